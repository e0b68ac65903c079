"""Parameter-efficient fine-tuning of protein language models: the public names, loaded on first use.

`import peftide` is instant; the first call of a function loads torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftide.api import audit, demo, embed, evaluate, plan, predict, split, train
    from peftide.config import (
        AuditSettings,
        EmbedSettings,
        EvaluateSettings,
        PlanSettings,
        PredictSettings,
        SplitSettings,
        TrainSettings,
    )
    from peftide.errors import UserError

    __version__: str

__all__ = [
    "AuditSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "PlanSettings",
    "PredictSettings",
    "SplitSettings",
    "TrainSettings",
    "UserError",
    "__version__",
    "audit",
    "demo",
    "embed",
    "evaluate",
    "plan",
    "predict",
    "split",
    "train",
]

_HOMES = {
    "AuditSettings": "peftide.config",
    "EmbedSettings": "peftide.config",
    "EvaluateSettings": "peftide.config",
    "PlanSettings": "peftide.config",
    "PredictSettings": "peftide.config",
    "SplitSettings": "peftide.config",
    "TrainSettings": "peftide.config",
    "UserError": "peftide.errors",
    "audit": "peftide.api",
    "demo": "peftide.api",
    "embed": "peftide.api",
    "evaluate": "peftide.api",
    "plan": "peftide.api",
    "predict": "peftide.api",
    "split": "peftide.api",
    "train": "peftide.api",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("peftide")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'peftide' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__

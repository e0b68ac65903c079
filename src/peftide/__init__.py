"""Parameter-efficient fine-tuning of protein language models: the public names, loaded on first use.

`import peftide` is instant; the first call of a function loads torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftide.api import audit, compare, demo, embed, evaluate, plan, predict, screen, split, sweep, train
    from peftide.config import (
        AuditSettings,
        CompareSettings,
        EmbedSettings,
        EvaluateSettings,
        PlanSettings,
        PredictSettings,
        ScreenSettings,
        SplitSettings,
        SweepSettings,
        TrainSettings,
    )
    from peftide.errors import UserError

    __version__: str

__all__ = [
    "AuditSettings",
    "CompareSettings",
    "EmbedSettings",
    "EvaluateSettings",
    "PlanSettings",
    "PredictSettings",
    "ScreenSettings",
    "SplitSettings",
    "SweepSettings",
    "TrainSettings",
    "UserError",
    "__version__",
    "audit",
    "compare",
    "demo",
    "embed",
    "evaluate",
    "plan",
    "predict",
    "screen",
    "split",
    "sweep",
    "train",
]

_HOMES = {
    "AuditSettings": "peftide.config",
    "CompareSettings": "peftide.config",
    "EmbedSettings": "peftide.config",
    "EvaluateSettings": "peftide.config",
    "PlanSettings": "peftide.config",
    "PredictSettings": "peftide.config",
    "ScreenSettings": "peftide.config",
    "SplitSettings": "peftide.config",
    "SweepSettings": "peftide.config",
    "TrainSettings": "peftide.config",
    "UserError": "peftide.errors",
    "audit": "peftide.api",
    "compare": "peftide.api",
    "demo": "peftide.api",
    "embed": "peftide.api",
    "evaluate": "peftide.api",
    "plan": "peftide.api",
    "predict": "peftide.api",
    "screen": "peftide.api",
    "split": "peftide.api",
    "sweep": "peftide.api",
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

"""Parameter-efficient fine-tuning of protein language models: the public names, loaded on first use.

`import peftide` is instant; the first call of a function loads torch and transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftide.api import demo, embed, evaluate, plan, predict, train
    from peftide.config import EmbedSettings, EvaluateSettings, PlanSettings, PredictSettings, TrainSettings
    from peftide.errors import UserError

    __version__: str

__all__ = [
    "EmbedSettings",
    "EvaluateSettings",
    "PlanSettings",
    "PredictSettings",
    "TrainSettings",
    "UserError",
    "__version__",
    "demo",
    "embed",
    "evaluate",
    "plan",
    "predict",
    "train",
]

_HOMES = {
    "EmbedSettings": "peftide.config",
    "EvaluateSettings": "peftide.config",
    "PlanSettings": "peftide.config",
    "PredictSettings": "peftide.config",
    "TrainSettings": "peftide.config",
    "UserError": "peftide.errors",
    "demo": "peftide.api",
    "embed": "peftide.api",
    "evaluate": "peftide.api",
    "plan": "peftide.api",
    "predict": "peftide.api",
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

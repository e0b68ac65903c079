"""What a sweep varies: settings with their values or ranges, from text, and every combination of them."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from peftide.config.commands import Method, RecipeSettings, SweepSettings, TrainSettings
from peftide.config.setting import Setting, settings_of

USUAL: dict[Method, tuple[str, ...]] = {  # lora: what the paper's robustness study varied
    "lora": (
        "lora_rank=1,4,16",
        "lora_matrices=key+value,query+value,query+key+value",
        "lora_layers=last-quarter,all",
    ),
    "head": ("learning_rate=3e-4,1e-3,3e-3", "head=mlp,linear", "state_layers=last,spread"),
    "full": ("learning_rate=3e-5,1e-4,3e-4",),
}
VARIED_GROUPS = ("model", "lora", "training")
VARIED_TOO = ("max_residues", "long_proteins")
NOT_VARIED = ("metric",)  # values of different metrics cannot be compared


@dataclass(frozen=True)
class Choices:
    """A setting and the values to try, as the user wrote them and as they are."""

    name: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number to try between two ends, both included; on a logarithmic scale where the lower end is above 0."""

    name: str
    low: float
    high: float
    is_whole: bool

    @property
    def is_log(self) -> bool:
        """Whether factors rather than differences are what matters."""
        return self.low > 0

    @property
    def values(self) -> tuple[float, float]:
        """The two ends, by which a range is checked."""
        return self.low, self.high


Variation = Choices | Range


def varied(settings: SweepSettings) -> tuple[str, ...]:
    """What the sweep varies, as text: what was given, or the usual for the method."""
    return settings.vary or USUAL[settings.method]


def read_variations(texts: Sequence[str]) -> tuple[list[Variation], list[str]]:
    """The settings to vary, and all that is wrong with the texts."""
    known = {name: item for name, item in settings_of(TrainSettings).items() if _can_vary(item)}
    found: list[Variation] = []
    problems: list[str] = []
    for text in texts:
        name, is_given, given = text.partition("=")
        name = name.strip().replace("-", "_")
        if not is_given or not given.strip():
            problems.append(f"{text}: write NAME=V1,V2,... or NAME=LOW..HIGH")
        elif name not in known:
            problems.append(f"{text}: {name} cannot be varied; choose among {', '.join(known)}")
        elif any(name == one.name for one in found):
            problems.append(f"{text}: {name} is varied twice; name all its values at once")
        else:
            one = _read(known[name], given)
            wrong = _problems(known[name], one)
            problems += [f"{text}: {name} {problem}" for problem in wrong]
            found += [] if wrong else [one]
    return found, problems


def trial_settings(settings: SweepSettings, values: Mapping[str, Any], *, out: str) -> TrainSettings:
    """The settings of one trial; the split is that of the sweep, also where the seed is varied."""
    shared = {item.name: getattr(settings, item.name) for item in fields(RecipeSettings)}
    shared |= {"backbone": settings.backbone, "method": settings.method, "out": out}
    if settings.split_seed is None and values.get("seed", settings.seed) != settings.seed:
        shared["split_seed"] = settings.seed
    return TrainSettings(**(shared | dict(values)))


def combinations(variations: Sequence[Variation]) -> list[dict[str, Any]]:
    """Every combination of the values (of the ends, for a range), the last setting changing fastest."""
    names = [one.name for one in variations]
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(one.values for one in variations))]


def text_of(value: object) -> str:
    """A value as it is written after NAME=."""
    if isinstance(value, tuple | list):
        return "+".join(str(item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.6g}" if isinstance(value, float) else str(value).replace(",", "+")


def _can_vary(item: Setting) -> bool:
    return (item.group in VARIED_GROUPS or item.name in VARIED_TOO) and item.name not in NOT_VARIED


def _read(item: Setting, given: str) -> Variation:
    ends = re.fullmatch(r"(.+?)\.\.(.+)", given.strip())
    if ends and item.base in (int, float):
        low, high = (item.from_flag(end.strip()) for end in ends.groups())
        if isinstance(low, int | float) and isinstance(high, int | float):
            return Range(item.name, low, high, is_whole=item.base is int)
    texts = tuple(text.strip() for text in given.split(","))
    return Choices(item.name, texts, tuple(_value(item, text) for text in texts))


def _value(item: Setting, text: str) -> object:
    """One value; a + inside it separates the items of a list, and stands for the comma of a text such as 5,7-9."""
    if item.is_list:
        return tuple(text.split("+"))
    if item.base is bool:
        return {"true": True, "false": False}.get(text, text)
    if item.base is str and not item.choices:
        return text.replace("+", ",")
    return item.from_flag(text)


def _problems(item: Setting, one: Variation) -> list[str]:
    problems = [problem for value in one.values if (problem := item.problem(value))]
    if not problems and isinstance(one, Range) and one.low >= one.high:
        problems.append(f"must go from a lower to a higher end, not from {one.low:g} to {one.high:g}")
    if not problems and len(set(one.values)) < len(one.values):
        problems.append("names a value twice")
    return problems

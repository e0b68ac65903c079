"""What a setting is: its documentation and range, the values it may take, and how they are read from text or TOML."""

import dataclasses
import sys
import types
from dataclasses import MISSING, dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

GROUPS = ("run", "data", "columns", "model", "lora", "training", "machine")  # the order in help and documentation
POSITIONALS = ("bundle", "data")  # in their order on the command line, where they are required
UNBOUNDED = sys.float_info.max  # leaves out infinity, which no setting may be
UNCOUNTABLE = 10**12  # beyond anything that is counted, and far from overflowing


@dataclass(frozen=True)
class Interval:
    """The numbers from `low` up to, but without, `high`; `low` itself belongs to it when `with_low`."""

    low: float
    high: float = UNBOUNDED
    with_low: bool = True

    def __contains__(self, number: float) -> bool:
        above = number >= self.low if self.with_low else number > self.low
        return above and number < self.high

    def __str__(self) -> str:
        lower = f"at least {self.low:,}" if self.with_low else f"above {self.low:,}"
        return lower if self.high in (UNBOUNDED, UNCOUNTABLE) else f"{lower} and below {self.high:,}"


COUNT = Interval(1, UNCOUNTABLE)
WIDTH = Interval(1, 1 << 16)  # of matrices: several times the widest backbone
NUM_THREADS = Interval(1, 1 << 10)
NUM_RUNS = Interval(1, 10_000)
NOT_NEGATIVE = Interval(0)
POSITIVE = Interval(0, with_low=False)
FRACTION = Interval(0, 1, with_low=False)
FRACTION_OR_ZERO = Interval(0, 1)
SEED = Interval(0, 2**32)  # what every library's generator accepts


def setting(
    help: str, *, default: Any = MISSING, group: str, within: Interval | None = None, is_repeated: bool = False
) -> Any:
    """A dataclass field that carries its own documentation, the heading it is listed under, and its range.

    is_repeated: a list whose values may hold commas; its flag may be given several times.
    """
    metadata = {"help": help, "group": group, "within": within, "is_repeated": is_repeated}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One field of a settings class, with its annotation taken apart.

    default: MISSING when the setting is required.
    base: str, int, float or bool: what one value is.
    choices: the texts that a Literal allows; empty when any will do.
    is_list: whether the value is a tuple of `base`, none twice.
    is_repeated: whether each word on the command line is one value of the list, commas and all.
    is_optional: whether None stands for "absent".
    """

    name: str
    help: str
    group: str
    within: Interval | None
    default: object
    base: type[str] | type[int] | type[float] | type[bool]
    choices: tuple[str, ...]
    is_list: bool
    is_repeated: bool
    is_optional: bool

    @property
    def is_required(self) -> bool:
        """Whether the setting has no default."""
        return self.default is MISSING

    @property
    def is_positional(self) -> bool:
        """Whether the command line takes the value by its place, without a flag."""
        return self.is_required and self.name in POSITIONALS

    @property
    def flag(self) -> str:
        """The name on the command line: `--learning-rate` for `learning_rate`, `DATA` for a positional one."""
        return self.name.upper() if self.is_positional else "--" + self.name.replace("_", "-")

    @property
    def expected(self) -> str:
        """The values that are right, in words."""
        if self.choices:
            return f"{', '.join(self.choices[:-1])} or {self.choices[-1]}"
        words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}[self.base]
        return words if self.within is None else f"{words} {self.within}"

    @property
    def default_text(self) -> str:
        """The default as it is written on the command line; empty where there is none."""
        return "" if self.default in (MISSING, None) else shown(self.default).strip("'")

    def from_flag(self, given: object) -> object:
        """The value of the words after a flag (a switch gives a bool); words of another type come back as they are."""
        if isinstance(given, list):
            if self.is_repeated:
                return tuple(given)
            return tuple(word for words in given for word in words.replace(",", " ").split())
        if self.base in (int, float) and isinstance(given, str):
            try:
                return self.base(given)
            except ValueError:
                return given
        return given

    def from_toml(self, given: object) -> object:
        """The value of a TOML value: an array stands for a tuple."""
        return tuple(given) if self.is_list and isinstance(given, list) else given

    def problem(self, value: object) -> str | None:
        """What is wrong with the type or the range of `value`, or None."""
        if value is None and self.is_optional:
            return None
        if isinstance(value, int) and self.within is not None and value >= UNCOUNTABLE == self.within.high:
            return f"must be below {UNCOUNTABLE:,}, not {shown(value)}"
        if not self.is_list:
            return None if self._accepts(value) else f"must be {self.expected}, not {shown(value)}"
        if not isinstance(value, tuple) or not value:
            return f"must be one or more of {self.expected}, not {shown(value)}"
        wrong = [shown(item) for item in value if not self._accepts(item)]
        if wrong:
            return f"must be one or more of {self.expected}, not {', '.join(wrong)}"
        return f"names a value twice: {shown(value)}" if len(set(value)) < len(value) else None

    def _accepts(self, value: object) -> bool:
        match value:
            case bool():
                return self.base is bool
            case int() | float():
                right_type = self.base is float or (self.base is int and isinstance(value, int))
                return right_type and (self.within is None or value in self.within)
            case str():
                is_text = value != "" and "\0" not in value  # which no name of a file can hold
                return self.base is str and (value in self.choices if self.choices else is_text)
        return False


def settings_of(kind: type) -> dict[str, Setting]:
    """Every setting of a settings class by name, group by group."""
    annotations = get_type_hints(kind)
    settings = [_setting_of(item, annotations[item.name]) for item in dataclasses.fields(kind)]
    return {item.name: item for item in sorted(settings, key=lambda item: GROUPS.index(item.group))}


def _setting_of(item: dataclasses.Field[Any], annotation: Any) -> Setting:
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    values = [part for part in parts if part is not types.NoneType]
    is_list = get_origin(values[0]) is tuple
    if is_list:
        values = [get_args(values[0])[0]]
    choices = tuple(choice for part in values if get_origin(part) is Literal for choice in get_args(part))
    base = str if choices else values[0]
    assert base in (str, int, float, bool), f"{item.name}: {annotation} cannot be read from text"
    return Setting(
        name=item.name,
        help=item.metadata["help"],
        group=item.metadata["group"],
        within=item.metadata["within"],
        default=item.default,
        base=base,
        choices=choices,
        is_list=is_list,
        is_repeated=item.metadata["is_repeated"],
        is_optional=types.NoneType in parts,
    )


def shown(value: object) -> str:
    """A value as the user would write it, shortened when long."""
    if isinstance(value, tuple):
        words = ",".join(str(item) for item in value) or "none"
    else:
        words = str(value).lower() if isinstance(value, bool) else repr(value)
    return words if len(words) <= 80 else words[:77] + "..."

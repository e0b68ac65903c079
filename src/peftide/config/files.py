"""Settings from a TOML file and from flags, and back to TOML."""

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from peftide.config.checks import CANNOT_USE, contradictions
from peftide.config.commands import Settings
from peftide.config.setting import settings_of
from peftide.errors import UserError, raise_problems

S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], toml_path: str | None, flags: Mapping[str, object]) -> S:
    """Settings of one command: the defaults, overridden by the TOML file, overridden by the flags that were given.

    flags: by name of the setting: text, a list of texts for a setting of several values, a bool for a switch.
    Raises one UserError that lists every unknown, missing, wrong or contradictory setting and where it stands.
    """
    known = settings_of(kind)
    assert flags.keys() <= known.keys(), f"unknown flags: {flags.keys() - known.keys()}"
    from_file = {} if toml_path is None else _read_toml(toml_path)
    problems = [f"{toml_path}: {name}: no such setting; {hint(name, known)}" for name in from_file if name not in known]
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, item in known.items():
        if name in flags:
            values[name], places[name] = item.from_flag(flags[name]), item.flag
        elif name in from_file:
            values[name], places[name] = item.from_toml(from_file[name]), f"{toml_path}: {name}"
        elif item.is_required:
            problems.append(f"{item.flag} is missing ({item.help}), and no TOML file gives {name}")
    problems += [f"{places[name]}: {problem}" for name in values if (problem := known[name].problem(values[name]))]
    raise_problems(CANNOT_USE, problems)
    settings = kind(**values)
    raise_problems(CANNOT_USE, [f"{places.get(name, name)}: {problem}" for name, problem in contradictions(settings)])
    return settings


def to_toml(settings: Settings) -> str:
    """The settings as TOML text that `load_settings` reads back to the same settings; absent ones are left out."""
    values = {name: getattr(settings, name) for name in settings_of(type(settings))}
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in values.items() if value is not None)


def hint(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Which known name (with `prefix`) an unknown one may mean, where one is like it; else where they all stand."""
    similar = difflib.get_close_matches(name, list(known), n=1)
    return f"the nearest is {prefix}{similar[0]}" if similar else "see --help for those that there are"


def _read_toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid TOML: {error}") from error


def _toml_value(value: bool | float | str | tuple[str, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # TOML escapes DEL, JSON does not
    return str(value).lower()

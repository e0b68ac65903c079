"""JSON read into typed records: everything missing or of a wrong type is found, with its place."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from peftide.errors import raise_problems

T = TypeVar("T")

NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def read_as(kind: type[T], value: object, *, title: str) -> T:
    """A dataclass from the values of a JSON document, its fields by name; unknown names are passed over.

    Fields may be dataclasses, texts, numbers, Literals, tuples and dicts of these, or None where the type allows it;
    a field with a default may be absent. Raises one UserError under `title` that lists every problem with its place.
    """
    problems: list[str] = []
    record = _read(kind, value, "", problems)
    raise_problems(title, problems)
    return record


def _read(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        inner = next(part for part in parts if part is not types.NoneType)
        return None if value is None else _read(inner, value, place, problems)
    if dataclasses.is_dataclass(kind):
        return _read_record(kind, value, place, problems)
    if origin is tuple:
        return _read_list(parts[0], value, place, problems)
    if origin in (dict, Mapping):
        return _read_mapping(parts[1], value, place, problems)
    if kind in (object, Any):
        return value
    if not _fits(kind, value):
        expected = " or ".join(map(repr, parts)) if origin is Literal else NAMES[kind]
        problems.append(f"{place} must be {expected}, not {value!r:.60}")
    return value


def _read_record(kind: Any, value: Any, place: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{place or 'it'} must be an object with names, not {value!r:.60}")
        return None
    annotations, before = get_type_hints(kind), len(problems)
    found = {}
    for field in dataclasses.fields(kind):
        inner = f"{place}.{field.name}" if place else field.name
        if field.name in value:
            found[field.name] = _read(annotations[field.name], value[field.name], inner, problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{inner} is missing")
    return None if len(problems) > before else kind(**found)


def _read_list(inner: Any, value: Any, place: str, problems: list[str]) -> tuple[Any, ...]:
    if not isinstance(value, list):
        problems.append(f"{place} must be a list, not {value!r:.60}")
        return ()
    return tuple(_read(inner, item, f"{place}[{number}]", problems) for number, item in enumerate(value))


def _read_mapping(inner: Any, value: Any, place: str, problems: list[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        problems.append(f"{place} must be an object with names, not {value!r:.60}")
        return {}
    return {name: _read(inner, item, f"{place}.{name}", problems) for name, item in value.items()}


def _fits(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)

"""JSON and tensors from files that anyone may have made: nothing is taken for granted, and no more memory than theirs.

Tensors come from safetensors alone, which cannot hold code. A header is read and compared with the shapes that are
needed before any tensor is; a header that claims more than its file holds is refused by the format itself.
"""

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from peftide.config import gibibytes
from peftide.config.setting import Interval
from peftide.errors import UserError, raise_problems

Shape = tuple[int, ...]

MOST_JSON_BYTES = 64 << 20  # a run.json with thousands of classes has a few MiB
MOST_HEADER_BYTES = 4 << 20  # that of the largest ESM-2 has 0.1 MiB
SHOWN = 5  # names in a message
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # of the kinds of numbers that weights are kept in


def number_problem(value: object, within: Interval, *, whole: bool) -> str | None:
    """What is wrong with a number, or with what should be one; None where it is right."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and value in within and (isinstance(value, int) or not whole):
        return None
    return f"must be a {'whole ' * whole}number {within}, not {shown(value)}"


def shown(value: object) -> str:
    """A value of JSON for a message, cut when long."""
    return f"{value!r:.60}" if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


def check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raise UserError with every name that is no regular file, or that leads out of the folder by a link."""
    home = folder.resolve()
    problems = []
    for name in names:
        path = folder / name
        if not path.is_file():  # nor for links in a circle, pipes and devices
            problems.append(f"{name}: there is no such regular file")
        elif not path.resolve().is_relative_to(home):
            problems.append(f"{name}: a link that leads out of the folder; copy the file itself in its place")
    raise_problems(f"{folder}: some of its files are missing or elsewhere", problems)


def read_json(path: Path) -> dict[str, Any]:
    """An object of JSON, without NaN and infinity; UserError for anything else, and for one that is far too large."""
    try:
        size = path.stat().st_size
        if size > MOST_JSON_BYTES:
            raise UserError(f"{path}: {gibibytes(size)} of JSON, where at most {gibibytes(MOST_JSON_BYTES)} are read")
        document = json.loads(path.read_text("utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); it is damaged: get it again") from error
    if not isinstance(document, dict):
        raise UserError(f"{path}: not an object of JSON; it is damaged: get it again")
    return document


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


def tensor_shapes(path: Path) -> dict[str, Shape]:
    """The shape of each tensor by its name, from the header alone.

    Raises UserError for what is not whole safetensors, for a header of unlikely length and for tensors that are no
    weights.
    """
    _check_header_length(path)
    try:
        with safe_open(path, "np") as file:  # which maps the file for reading alone, whatever its length
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
            kinds = {name: part.get_dtype() for name, part in slices.items()}
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: no whole safetensors file ({error}); get it again") from error
    wrong = [f"{name} holds {kind}" for name, kind in kinds.items() if kind not in ITEM_BYTES]
    raise_problems(f"{path}: weights are kept as {', '.join(ITEM_BYTES)}", wrong)
    return shapes


def _check_header_length(path: Path) -> None:
    try:
        with open(path, "rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if length > min(MOST_HEADER_BYTES, os.path.getsize(path)):
        raise UserError(f"{path}: no whole safetensors file (its header claims {length:,} bytes); get it again")


def check_shapes(path: Path, found: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> None:
    """Raise UserError that tells, of all tensors that are needed, which are missing or have another shape."""
    problems = []
    if missing := sorted(wanted.keys() - found.keys()):
        problems.append(f"missing: {_listed(missing)}")
    others = [name for name in sorted(wanted.keys() & found.keys()) if found[name] != wanted[name]]
    problems += [f"{name} has shape {found[name]}, not {wanted[name]}" for name in others]
    raise_problems(f"{path}: its tensors are not those that are needed", problems, shown=SHOWN)


def read_tensors(path: Path, wanted: Mapping[str, Shape]) -> dict[str, Tensor]:
    """The tensors of a file that must hold exactly those that are wanted, all of them finite.

    Raises UserError as `tensor_shapes` and `check_shapes` do, for tensors that nobody asked for, for numbers that are
    not finite, and where there is too little memory.
    """
    found = tensor_shapes(path)
    check_shapes(path, found, wanted)
    if unknown := sorted(found.keys() - wanted.keys()):
        raise UserError(f"{path}: holds tensors that do not belong there: {_listed(unknown)}")
    check_memory(str(path), wanted.values(), torch.float32)
    return load_tensors(path, wanted)


def load_tensors(path: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """Some tensors of a file whose header has been checked; UserError where one holds a number that is not finite."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise UserError(f"{path}: no whole safetensors file ({error}); get it again") from error
    bad = [name for name, tensor in tensors.items() if not is_finite(tensor)]
    if bad:
        raise UserError(
            f"{path}: weights that are NaN or infinite in {_listed(bad)}; nothing can be computed with them"
        )
    return tensors


def is_finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite (without a mask as large as the tensor)."""
    return tensor.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(tensor))


def check_memory(what: str, shapes: Iterable[Shape], dtype: torch.dtype) -> None:
    """Raise UserError where tensors of these shapes do not fit into the memory that is free now."""
    needed = sum(map(math.prod, shapes)) * dtype.itemsize
    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(f"{what}: its weights take {gibibytes(needed)}, and {gibibytes(free)} of memory are free here")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(name) if not name.isprintable() else name for name in names[:SHOWN]) + more

"""The symmetry classes of homo-oligomers: 17 named ones and `other` (Sledzieski et al., PNAS 2024)."""

import re

SYMMETRY_CLASSES: tuple[str, ...] = (
    *("C1", "C2", "C3", "C4", "C5", "C6", "C7-C9", "C10-C17"),
    *("D2", "D3", "D4", "D5", "D6-D12"),
    *("H", "O", "T", "I", "other"),
)
COARSE_GROUPS: dict[str, tuple[str, ...]] = {
    "monomer": SYMMETRY_CLASSES[:1],
    "cyclic": SYMMETRY_CLASSES[1:8],
    "dihedral": SYMMETRY_CLASSES[8:13],
    "cubic or helical": SYMMETRY_CLASSES[13:17],
    "other": SYMMETRY_CLASSES[17:],
}
# Columns of the classes in each group
GROUP_COLUMNS: dict[str, tuple[int, ...]] = {
    group: tuple(SYMMETRY_CLASSES.index(name) for name in names) for group, names in COARSE_GROUPS.items()
}
SYMMETRY_HELP = "write C1, C2, ..., D2, D3, ..., H, O, T, I or other, several of them separated by spaces"

_NAMES = {name.casefold(): name for name in SYMMETRY_CLASSES}
_RANGES = {
    ("C", order): name for name, orders in (("C7-C9", range(7, 10)), ("C10-C17", range(10, 18))) for order in orders
} | {("D", order): "D6-D12" for order in range(6, 13)}
_POINT_GROUP = re.compile(r"([CD])([1-9][0-9]{0,3})")
_SEPARATORS = re.compile(r"[;,\s]+")


def symmetry_class(symbol: str) -> str | None:
    """The class of one point group (`C12` -> `C10-C17`, `D13` -> `other`), of a class's own name, or None.

    Upper and lower case mean the same. `D1` is none: a single two-fold axis is C2.
    """
    named = _NAMES.get(symbol.casefold())
    if named is not None:
        return named
    match = _POINT_GROUP.fullmatch(symbol.upper() if symbol.isascii() else symbol)
    if match is None or match.group() == "D1":
        return None
    return _RANGES.get((match[1], int(match[2])), "other")


def read_symbols(label: str) -> dict[str, str | None]:
    """The class (None: no symmetry) of each symbol in a label such as `D3 C2` (or `D3, C2`, `D3;C2`)."""
    return {symbol: symmetry_class(symbol) for symbol in _SEPARATORS.split(label) if symbol}

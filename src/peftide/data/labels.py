"""Labels as text become targets: what kind they are, their classes, and every label that does not fit."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from peftide.data.findings import Findings, has_controls, listed, nearest, quoted, repeated, rows_by_value, words
from peftide.data.symmetry import SYMMETRY_CLASSES, SYMMETRY_HELP, read_symbols
from peftide.data.tables import Table
from peftide.errors import UserError
from peftide.records import TargetKind, Task

KIND = "labels"  # of these findings
MOST_CLASSES = 5_000
MANY_VALUES = 20  # more distinct whole numbers than this are a quantity, not classes
FALSE_WORDS = words("0 0.0 false no")  # spellings of one class, also side by side
TRUE_WORDS = words("1 1.0 true yes")
NEGATIVE_WORDS = words("0 0.0 false f no n negative neg - noninteracting nonbinding absent inactive -1")
POSITIVE_WORDS = words("1 1.0 true t yes y positive pos + interacting binding present active +1")
NEGATIONS = words("non not no un in")
NO_LABELS = words("nan na n/a #n/a null")  # what numpy and pandas, R, Excel and databases write for nothing

MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(r"[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+(,[0-9]+)?(e[+-]?[0-9]+)?", re.IGNORECASE)
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Targets:
    """Targets of all rows of a table, as `Dataset` holds them; a row whose label is a problem holds zeros."""

    kind: TargetKind
    classes: tuple[str, ...]
    values: np.ndarray


class Labels(NamedTuple):
    """The labels of a table: the rows in which each one stands, without the empty ones (known as problems)."""

    table: Table
    rows: Mapping[str, Sequence[int]]

    def report(self, label: str, problem: str, mend: str, findings: Findings) -> None:
        """Add a problem of one label, where it stands first."""
        rows = self.rows[label]
        findings.add(KIND, f"{self.table.place(rows[0])}: {problem}{repeated(rows)}; {mend}")


def read_targets(
    table: Table, texts: Sequence[str], *, task: Task, kind: TargetKind | None, classes: tuple[str, ...] | None,
    findings: Findings,
) -> Targets:  # fmt: skip
    """Targets from the labels of a table, one text per row.

    kind: None reads it from the labels (`guess_kind`); pairs are then binary. classes: those of a trained model, and
    then every other label is a problem; None takes them from the labels.
    """
    if any(MINUS in text for text in texts):
        findings.notes.append(f"{table.path}: the minus sign U+2212 in labels is read as '-'")
        texts = [text.replace(MINUS, "-") for text in texts]
    rows = rows_by_value(texts)
    rows.pop("", None)
    labels = Labels(table, rows)
    for label in [label for label in rows if label.casefold() in NO_LABELS and label not in (classes or ())]:
        mend = "fill it in or remove the row; a class of that name needs another"
        labels.report(label, f"label {quoted(label)} is no label", mend, findings)
        rows.pop(label)
    if kind is None:
        kind = "binary" if task == "pair" else guess_kind(labels)
    if kind == "regression":
        return _regression(labels, findings=findings)
    if len(rows) > MOST_CLASSES:
        what = f"{len(rows):,} different labels are too many for a {kind} target"
        raise UserError(f"{table.path}: {what}; name the right column with --column-label, or say --target regression")
    if task == "symmetry":
        return _symmetry(labels, findings=findings)
    if kind == "multilabel":
        return _multilabel(labels, classes=classes, findings=findings)
    _report_controls(labels, {label: (label,) for label in rows}, findings=findings)
    return (_binary if kind == "binary" else _multiclass)(labels, classes=classes, findings=findings)


def guess_kind(labels: Labels) -> TargetKind:
    """The kind of target that the labels of single proteins look like.

    Two values, or several spellings of yes and no: binary. Nine in ten of the values numbers, not whole or more than
    20 of them: regression. Values of several parts joined by `;` or `,`, where the parts are fewer than the values:
    multilabel. Else multiclass.
    """
    if len(labels.rows) <= 2 or _is_truth(labels.rows):
        return "binary"
    num_like = sum(_DECIMAL_COMMA.fullmatch(label) is not None for label in labels.rows)
    if num_like >= 0.9 * len(labels.rows) and any(_has_comma(label) for label in labels.rows):
        mend = "write 0.5 for 0,5; or say --target multilabel where the comma separates"
        raise UserError(f"{labels.table.path}: the labels look like decimal commas; {mend}")
    numbers = {float(label) for label in labels.rows if _NUMBER.fullmatch(label)}
    is_quantity = len(numbers) > MANY_VALUES or any(not number.is_integer() for number in numbers)
    if is_quantity and len(numbers) >= 0.9 * len(labels.rows):
        return "regression"
    separator = _separator(labels.rows)
    parts = {part for label in labels.rows for part in _parts(label, separator)}
    return "multilabel" if separator is not None and len(parts) < len(labels.rows) else "multiclass"


def _has_comma(label: str) -> bool:
    return "," in label and _DECIMAL_COMMA.fullmatch(label) is not None


def _regression(labels: Labels, *, findings: Findings) -> Targets:
    values_N = np.zeros(len(labels.table), dtype=np.float32)
    for label, rows in labels.rows.items():
        number = float(label) if _NUMBER.fullmatch(label) else None
        if number is not None and abs(number) <= _LARGEST:
            values_N[rows] = number
        else:
            problem = "is no number" if number is None else "is not a finite 32-bit number"
            labels.report(label, f"label {quoted(label)} {problem}", "write a number such as 0.5", findings)
    findings.notes.append(f"{labels.table.path}: the label is a number, from {values_N.min():g} to {values_N.max():g}")
    return Targets("regression", (), values_N)


def _binary(labels: Labels, *, classes: tuple[str, ...] | None, findings: Findings) -> Targets:
    known = classes or _binary_classes(labels, findings=findings)
    codes = {label: _binary_code(label, known) for label in labels.rows}
    targets = _single(labels, "binary", known, codes=codes, findings=findings)
    if known:
        number = f"{int(targets.values.sum()):,} of {len(labels.table):,} rows"
        findings.notes.append(f"{labels.table.path}: the label is binary; {known[1]!r} is positive ({number})")
    return targets


def _binary_classes(labels: Labels, *, findings: Findings) -> tuple[str, ...]:
    """(negative, positive), or () and a problem where the labels are not two classes."""
    if _is_truth(labels.rows):
        negative = next(label for label in labels.rows if as_word(label) in FALSE_WORDS)
        return negative, next(label for label in labels.rows if as_word(label) in TRUE_WORDS)
    if len(labels.rows) == 2:
        first, second = sorted(labels.rows, key=_natural_order)
        return (second, first) if _is_reversed(first, second) else (first, second)
    if labels.rows:
        what = "every label is" if len(labels.rows) == 1 else f"{len(labels.rows):,} different labels:"
        mend = "a binary target needs two; name the right column with --column-label or the kind with --target"
        findings.add(KIND, f"{labels.table.path}: {what} {listed(labels.rows, shown=5)}; {mend}")
    return ()


def as_word(label: str) -> str:
    """A label as one word; signs before numbers stay."""
    folded = label.casefold()
    return re.sub(r"[\s_-]+", "", folded) if any(letter.isalpha() for letter in folded) else folded


def _is_truth(labels: Iterable[str]) -> bool:
    """Whether labels are spellings of yes and no, and both occur."""
    found = {as_word(label) for label in labels}
    return found <= FALSE_WORDS | TRUE_WORDS and bool(found & FALSE_WORDS) and bool(found & TRUE_WORDS)


def _is_positive(label: str) -> bool | None:
    word = as_word(label)
    return True if word in POSITIVE_WORDS else False if word in NEGATIVE_WORDS else None


def _is_reversed(first: str, second: str) -> bool:
    """Whether the second of two sorted labels means the negative class: yes/absent, binder/non-binder."""
    if _NUMBER.fullmatch(first) and _NUMBER.fullmatch(second):
        return False
    signs = _is_positive(first), _is_positive(second)
    prefix = as_word(second).removesuffix(as_word(first))
    return signs in ((True, False), (True, None), (None, False)) or prefix in NEGATIONS


def _binary_code(label: str, classes: tuple[str, ...]) -> int | None:
    if label in classes:
        return classes.index(label)
    signs = [_is_positive(name) for name in classes]
    return int(bool(_is_positive(label))) if signs == [False, True] and _is_positive(label) is not None else None


def _multiclass(labels: Labels, *, classes: tuple[str, ...] | None, findings: Findings) -> Targets:
    known = tuple(sorted(labels.rows, key=_natural_order)) if classes is None else classes
    if len(known) == 1:
        mend = "a multiclass target needs two or more; name the right column with --column-label"
        findings.add(KIND, f"{labels.table.path}: every label is {quoted(known[0])}; {mend}")
    sizes = listed(f"{name} ({len(labels.rows.get(name, ())):,})" for name in known)
    findings.notes.append(f"{labels.table.path}: the label is one of {len(known)} classes: {sizes}")
    codes = {label: index for index, label in enumerate(known)}
    of_number = {float(label): index for label, index in codes.items() if _NUMBER.fullmatch(label)}
    codes |= {  # 1 and 1.0 are one class, as tables write either
        label: of_number[float(label)]
        for label in labels.rows
        if label not in codes and _NUMBER.fullmatch(label) and float(label) in of_number
    }
    return _single(labels, "multiclass", known, codes=codes, findings=findings)


def _single(
    labels: Labels, kind: TargetKind, classes: tuple[str, ...], *, codes: Mapping[str, int | None], findings: Findings
) -> Targets:
    values_N = np.zeros(len(labels.table), dtype=np.float32 if kind == "binary" else np.int64)
    for label, rows in labels.rows.items():
        code = codes.get(label)
        if code is not None:
            values_N[rows] = code
        elif classes:
            _report_unknown(labels, label, label, classes=classes, findings=findings)
    return Targets(kind, classes, values_N)


def _multilabel(labels: Labels, *, classes: tuple[str, ...] | None, findings: Findings) -> Targets:
    separator = _separator(labels.rows)
    whole = frozenset(classes or ())
    parts_of = {label: (label,) if label in whole else _parts(label, separator) for label in labels.rows}
    _report_controls(labels, parts_of, findings=findings)
    known = classes or tuple(sorted({part for parts in parts_of.values() for part in parts}, key=_natural_order))
    if len(known) > MOST_CLASSES:
        what = f"{len(known):,} different labels are too many"
        raise UserError(f"{labels.table.path}: {what}; name the right column with --column-label")
    names = frozenset(known)
    for label, parts in parts_of.items():
        for part in parts:
            if part not in names:
                _report_unknown(labels, label, part, classes=known, findings=findings)
    return _several(labels, known, parts_of=parts_of, findings=findings)


def _symmetry(labels: Labels, *, findings: Findings) -> Targets:
    parts_of: dict[str, tuple[str, ...]] = {}
    rare: list[str] = []
    for label in labels.rows:
        symbols = read_symbols(label)
        parts_of[label] = tuple(name for name in symbols.values() if name is not None)
        rare += [symbol for symbol, name in symbols.items() if name == "other" != symbol.casefold()]
        for symbol, name in symbols.items():
            if name is None:
                labels.report(label, f"{quoted(symbol)} is no symmetry", SYMMETRY_HELP, findings)
    if rare:
        findings.notes.append(f"{labels.table.path}: counted as class other: {listed(sorted(set(rare)))}")
    return _several(labels, SYMMETRY_CLASSES, parts_of=parts_of, findings=findings)


def _several(
    labels: Labels, classes: tuple[str, ...], *, parts_of: Mapping[str, tuple[str, ...]], findings: Findings
) -> Targets:
    column = {name: index for index, name in enumerate(classes)}
    values_NC = np.zeros((len(labels.table), len(classes)), dtype=np.float32)
    for label, rows in labels.rows.items():
        columns = [column[part] for part in parts_of[label] if part in column]
        values_NC[np.ix_(rows, columns)] = 1
        if not re.sub(r"[;,\s]", "", label):
            labels.report(label, f"label {quoted(label)} names no class", "write at least one", findings)
    sizes = listed(f"{name} ({int(size):,})" for name, size in zip(classes, values_NC.sum(axis=0), strict=True))
    findings.notes.append(f"{labels.table.path}: the label is any of {len(classes)} classes: {sizes}")
    return Targets("multilabel", classes, values_NC)


def _report_controls(labels: Labels, parts_of: Mapping[str, Sequence[str]], *, findings: Findings) -> None:
    """Names of classes are printed, so what a terminal would obey is a problem."""
    for label, parts in parts_of.items():
        if any(map(has_controls, parts)):
            what = f"label {quoted(label)} has characters that cannot be printed"
            labels.report(label, what, "write it without them", findings)


def _separator(labels: Mapping[str, Sequence[int]]) -> str | None:
    """What separates the classes in one cell, for the whole table; None stands for white space."""
    return next((separator for separator in ";," if any(separator in label for label in labels)), None)


def _parts(label: str, separator: str | None) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in label.split(separator) if part.strip()))


def _natural_order(label: str) -> tuple[float, str]:
    """Numbers by size, then text by alphabet."""
    number = float(label) if _NUMBER.fullmatch(label) else math.inf
    return (math.inf if math.isnan(number) else number, label)


def _report_unknown(labels: Labels, label: str, part: str, *, classes: tuple[str, ...], findings: Findings) -> None:
    similar = nearest(part, classes)
    hint = f" (nearest: {quoted(similar)})" if similar else ""
    labels.report(
        label, f"label {quoted(part)} is not a known class", f"write one of {listed(classes)}{hint}", findings
    )

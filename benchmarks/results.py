"""Results as a table on the screen and as JSON."""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftide.models.machine import Machine, describe

PATHS = ("data", "sequences", "yeast", "bernett", "backbone", "json", "figure")  # options that hold them
Row = dict[str, Any]  # one line of results, in the form in which it is written


@dataclass(frozen=True)
class Column:
    """A column of the printed table: the key in a row, its heading, and its format."""

    key: str
    heading: str
    form: str = ",.1f"
    divisor: float = 1


def print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """Names to the left, numbers to the right, nothing where a value is None."""
    texts = [["variant", *(column.heading for column in columns)]]
    texts += [[row["variant"], *(_text(row.get(column.key), column) for column in columns)] for row in rows]
    widths = [max(len(line[index]) for line in texts) for index in range(len(texts[0]))]
    for first, *others in texts:
        cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
        print("  ".join([first.ljust(widths[0]), *cells]))


def _text(value: float | None, column: Column) -> str:
    return "" if value is None else format(value / column.divisor, column.form)


def document(name: str, machine: Machine, arguments: argparse.Namespace, **findings: Any) -> dict[str, Any]:
    """What a benchmark writes: its name, hardware and versions, its arguments (only the names of files), findings."""
    given = {key: Path(value).name if key in PATHS and value else value for key, value in vars(arguments).items()}
    return {"benchmark": name, "machine": describe(machine), "arguments": given, **findings}


def write_json(path: str | None, results: dict[str, Any]) -> None:
    """Write the results where `path` says, if it does."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
    fresh.write_text(json.dumps(results, indent=2) + "\n", "utf-8")
    os.replace(fresh, target)
    print(f"results written to {target}")

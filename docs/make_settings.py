"""Write docs/settings.md from the settings themselves; with --check, fail where the file is out of date."""

import sys
from pathlib import Path

from peftide.cli import COMMANDS
from peftide.config import Setting, settings_of

PAGE = Path(__file__).with_name("settings.md")
OPENING = """# Settings

Every setting is a flag of the command, a key of the TOML file that `--config` reads, and a field of the command's
settings in Python. Flags win over the file, the file over the defaults. This page is written by `make docs`.
"""


def table_of(command: str) -> str:
    """One command: its sentence and a table of its settings."""
    kind, sentence = COMMANDS[command]
    rows = [
        f"| `{item.flag}` | `{item.name}` | {_values(item)} | {_default(item)} | {_cell(item.help)} |"
        for item in settings_of(kind).values()
    ]
    head = ["| command line | TOML, Python | value | default | meaning |", "|---|---|---|---|---|"]
    return "\n".join([f"## peftide {command}", "", f"`{kind.__name__}`: {sentence}.", "", *head, *rows, ""])


def _values(item: Setting) -> str:
    return f"one or more of {item.expected}" if item.is_list else item.expected


def _default(item: Setting) -> str:
    if item.is_required:
        return "required"
    return f"`{item.default_text}`" if item.default_text else "absent"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Write or check the page and return the exit code."""
    page = "\n".join([OPENING, *map(table_of, COMMANDS)])
    if sys.argv[1:] == ["--check"]:
        if PAGE.is_file() and PAGE.read_text("utf-8") == page:
            return 0
        print(f"{PAGE} is out of date: run `make docs`", file=sys.stderr)
        return 1
    PAGE.write_text(page, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

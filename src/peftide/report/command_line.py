"""The command that repeats a run, from the settings that it was given."""

import shlex
from collections.abc import Mapping

from peftide.config import Setting, Settings, TrainSettings, settings_of


def command_line(
    settings: Mapping[str, object], *, command: str = "train", kind: type[Settings] = TrainSettings
) -> str:
    """The command for a POSIX shell, with the settings that differ from their defaults.

    settings: by name, tuples as such or as lists; names that the command does not know are left
    out. A required setting that is absent stands there by its name in capitals.
    """
    positionals, flags = [], []
    for name, item in settings_of(kind).items():
        given = settings.get(name)
        value = tuple(given) if isinstance(given, list) else given
        if item.is_positional:
            positionals.append(name.upper() if value is None else str(value))
        elif item.is_required and value is None:
            flags += [item.flag, name.upper()]
        elif value is not None and value != item.default:
            flags += _words(item, value)
    if any(word.startswith("-") for word in positionals):
        return shlex.join(["peftide", command, *flags, "--", *positionals])
    return shlex.join(["peftide", command, *positionals, *flags])


def _words(item: Setting, value: object) -> list[str]:
    if item.is_repeated and isinstance(value, tuple):
        return [word for text in value for word in (item.flag, str(text))]
    if isinstance(value, bool):
        return [item.flag if value else item.flag.replace("--", "--no-", 1)]
    values = value if isinstance(value, tuple) else (value,)
    texts = list(map(str, values)) if item.is_repeated else [",".join(map(str, values))]
    return [word for text in texts for word in ([f"{item.flag}={text}"] if text.startswith("-") else [item.flag, text])]

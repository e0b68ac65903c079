"""The `peftide` command: flags from the settings, one line per command over `peftide.api`."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version

from peftide.config import (
    AuditSettings,
    CompareSettings,
    DemoSettings,
    DoctorSettings,
    EmbedSettings,
    EvaluateSettings,
    PlanSettings,
    PredictSettings,
    ReportSettings,
    ScreenSettings,
    Setting,
    Settings,
    SplitSettings,
    SweepSettings,
    TrainSettings,
    check_settings,
    hint,
    load_settings,
    settings_of,
)
from peftide.config.setting import GROUPS, POSITIONALS
from peftide.errors import FULL, UserError, raise_problems, unwritable

COMMANDS: dict[str, tuple[type[Settings], str]] = {
    "demo": (DemoSettings, "train, evaluate and predict on the shipped data, beside a baseline, in minutes"),
    "split": (SplitSettings, "write a table with a split in which similar proteins stay together, and a report"),
    "audit": (AuditSettings, "tell whether a score on the splits of a table could be believed: leaks and shortcuts"),
    "train": (TrainSettings, "adapt a protein language model to a table of examples"),
    "plan": (PlanSettings, "memory, time and cache of a training run, from a short probe on this machine"),
    "compare": (CompareSettings, "train several methods with several seeds on one split, and tell which is the best"),
    "sweep": (SweepSettings, "train with many settings, by validation alone: how robust a result is, and the best"),
    "evaluate": (EvaluateSettings, "measure a trained bundle on a labelled table"),
    "predict": (PredictSettings, "probabilities from a trained bundle for new pairs or proteins"),
    "screen": (ScreenSettings, "score all pairs of a proteome, or of two: the likeliest partners of each protein"),
    "embed": (EmbedSettings, "vectors of proteins or residues, from a backbone or a trained bundle"),
    "report": (ReportSettings, "write the page of a finished run again, from what its bundle holds"),
    "doctor": (DoctorSettings, "a self-test of this machine, and of a trained bundle on it, in a few seconds"),
}
USAGE = "peftide COMMAND ...    (peftide COMMAND --help lists its settings; peftide --version)"
OWN_FLAGS = ("--config", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: that of `run`, 2 after a user's mistake, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the console's encoding does not have are no reason to end
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _obey(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # here, where what goes wrong is told
        return code
    except BrokenPipeError:  # whoever read what is printed, `head` say, has read enough
        _drop_output()
        return 1
    except OSError as error:
        if error.errno not in FULL:
            raise
        _drop_output()
        with suppress(OSError):  # errors may go to the same full disk
            told = unwritable(error.filename or "what this command prints", error)
            print(f"error: {_printable(str(told))}", file=sys.stderr)
        return 2
    except UserError as error:
        print(f"error: {_printable(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _obey(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return 0
    if words[0] == "--version":
        print(f"peftide {version('peftide')}")
        return 0
    _, settings, warnings = parse(words)
    for warning in warnings:
        print(f"warning: {_printable(warning)}", file=sys.stderr)
    return run(settings)


def _drop_output() -> None:
    """Drop what waits to be printed to a full disk: the interpreter would try again as it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _printable(text: str) -> str:
    """A message that may hold names of the user's: what a terminal would obey is written out."""
    return "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in text)


def run(settings: Settings) -> int:
    """Carry out the command of the settings; 1 where a strict audit flags or the self-test fails, else 0."""
    # Threads that wait for each other sleep instead of spinning: on a machine with other work, a step of two threads is
    # two to five times faster so (measured), on a quiet one equal to a few per cent. OpenMP reads it as torch loads it.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from peftide import api  # here, because it loads torch, which takes seconds that --help should not
    from peftide.training.ranks import launched

    if not isinstance(settings, TrainSettings) and (count := launched(os.environ).count) > 1:
        raise UserError(f"{count} processes were started, and only train shares its work among them: start one")
    match settings:
        case DemoSettings():
            api.demo(settings)
        case DoctorSettings():
            return 1 if any(check.passed is False for check in api.doctor(settings)) else 0
        case SplitSettings():
            api.split(settings)
        case AuditSettings():
            return 1 if api.audit(settings).flags and settings.strict else 0
        case TrainSettings():
            api.train(settings)
        case PlanSettings():
            api.plan(settings)
        case CompareSettings():
            api.compare(settings)
        case SweepSettings():
            api.sweep(settings)
        case EvaluateSettings():
            api.evaluate(settings)
        case PredictSettings():
            api.write_predictions(settings)
        case ScreenSettings():
            api.screen(settings)
        case EmbedSettings():
            api.embed(settings)
        case ReportSettings():
            api.report(settings)
    return 0


def parse(argv: Sequence[str]) -> tuple[str, Settings, tuple[str, ...]]:
    """The command, its checked settings, and a warning for each setting that it would ignore.

    Raises UserError that lists what is wrong, with the nearest name for an unknown one; exits after `--help`.
    """
    command, *words = argv
    if command not in COMMANDS:
        raise UserError(f"no command {command!r}; {hint(command, COMMANDS)}")
    end = words.index("--") if "--" in words else len(words)
    try:
        given, left_over = parser_of(command).parse_known_intermixed_args(words[:end])
    except argparse.ArgumentError as error:
        raise UserError(f"{error} (see peftide {command} --help)") from error
    kind, _ = COMMANDS[command]
    flags, names = vars(given), words[end + 1 :]
    free = [item.name for item in _positionals(kind) if item.name not in flags]
    flags.update(zip(free, names, strict=False))  # they may begin with a dash; argparse would not have them even here
    known = [*OWN_FLAGS, *(item.flag for item in settings_of(kind).values() if not item.is_positional)]
    _refuse(left_over, names[len(free) :], known)
    settings = load_settings(kind, flags.pop("config", None), flags)
    return command, settings, check_settings(settings)


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of one command; it yields only what was given, as text, and leaves the checks to the settings."""
    kind, sentence = COMMANDS[command]
    known = list(settings_of(kind).values())
    positionals = _positionals(kind)
    required = [f"{item.flag} {_metavar(item)}" for item in known if item.is_required and not item.is_positional]
    parser = argparse.ArgumentParser(
        prog=f"peftide {command}",
        usage=" ".join([f"peftide {command}", *(item.flag for item in positionals), *required, "[--config FILE] ..."]),
        description=f"{sentence[0].upper()}{sentence[1:]}.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
    )
    for item in positionals:
        parser.add_argument(item.name, nargs="?", metavar=item.flag, help=_help(item))
    parser.add_argument("--config", metavar="FILE", help="TOML file with any of these settings; flags win")
    for group in GROUPS:
        listed = [item for item in known if item.group == group and not item.is_positional]
        if listed:
            _add_flags(parser.add_argument_group(group), listed)
    return parser


def _positionals(kind: type[Settings]) -> list[Setting]:
    known = settings_of(kind).values()
    return sorted((item for item in known if item.is_positional), key=lambda item: POSITIONALS.index(item.name))


def _add_flags(section: argparse._ArgumentGroup, settings: Sequence[Setting]) -> None:
    for item in settings:
        if item.base is bool:
            section.add_argument(item.flag, action=argparse.BooleanOptionalAction, help=_help(item))
        elif item.is_repeated:
            section.add_argument(item.flag, action="append", metavar=_metavar(item), help=_help(item))
        else:
            nargs, action = ("+", "extend") if item.is_list else (None, "store")
            section.add_argument(item.flag, nargs=nargs, action=action, metavar=_metavar(item), help=_help(item))


def _metavar(item: Setting) -> str:
    if item.choices and not item.is_list:
        return "|".join(item.choices)
    return {str: "TEXT", int: "N", float: "X", bool: ""}[item.base]


def _help(item: Setting) -> str:
    default = f" (default: {item.default_text})" if item.default_text else ""
    return (item.help + default).replace("%", "%%")  # argparse fills in %-formats


def _refuse(words: Sequence[str], names: Sequence[str], flags: Sequence[str]) -> None:
    """Raise a UserError for words that have no place and names after `--` that have none; unknown flags first.

    For these shift the others.
    """
    unknown = [word for word in words if word.startswith("-")]
    raise_problems("unknown flags", [_unknown(word, flags) for word in unknown])
    raise_problems("too many arguments", [f"{word!r}: nothing is expected here" for word in [*words, *names]])


def _unknown(word: str, flags: Sequence[str]) -> str:
    if os.path.exists(word):
        return f"{word}: no flag; as the name of a file it goes at the end, after --"
    flag = word.split("=")[0]
    begun = [known for known in flags if known.startswith(flag)]
    if begun:
        return f"{flag}: the nearest is {begun[0]}"
    return f"{flag}: {hint(flag.lstrip('-'), [known.lstrip('-') for known in flags], prefix='--')}"


def overview() -> str:
    """What `peftide --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {command:{width}}  {sentence}" for command, (_, sentence) in COMMANDS.items()]
    return "\n".join([f"usage: {USAGE}", "", "commands:", *lines])

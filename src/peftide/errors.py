"""The one error that users see: what is wrong, where, and how to mend it."""

import errno
import os
import re
from collections.abc import Sequence

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, what the user may have of it, what a file may


class UserError(Exception):
    """Something the user can fix. The command line prints it as `error: ...` and exits with 2."""


class UnwritableError(UserError):
    """A place that cannot be written to. Whatever else there is to do would fail there too, so it ends the command."""


def unwritable(place: object, error: Exception, *, goes_on: bool = False) -> UnwritableError:
    """The error for a place that the system refused to write, with the system's reason and how to mend it.

    goes_on: whether the same command goes on where this one ended, and does not begin again.
    """
    told = re.search(r"\(os error (\d+)\)", str(error))  # safetensors has the number in its text alone
    number = error.errno if isinstance(error, OSError) else int(told[1]) if told else None
    reason = os.strerror(number) if number else str(error)
    mend, begin = "make it writable", "or name another place"
    if number in FULL:
        mend, begin = "make room there", "and give the same command again"
    then = "and the same command goes on" if goes_on else begin
    return UnwritableError(f"{place}: cannot be written ({reason}); {mend}, {then}")


def raise_problems(title: str, problems: Sequence[str], *, shown: int = 50) -> None:
    """Raise one `UserError` that lists every problem (the first `shown` in full, then a count); none: return."""
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more of the same kinds")
    raise UserError("\n".join([f"{title} ({len(problems)} problem{'s' if len(problems) > 1 else ''})", *lines]))

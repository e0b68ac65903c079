"""The one error that users see: what is wrong, where, and how to mend it."""

from collections.abc import Sequence


class UserError(Exception):
    """Something the user can fix. The command line prints it as `error: ...` and exits with 2."""


def raise_problems(title: str, problems: Sequence[str], *, shown: int = 50) -> None:
    """Raise one `UserError` that lists every problem (the first `shown` in full, then a count); none: return."""
    if not problems:
        return
    lines = [f"  {problem}" for problem in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more of the same kinds")
    raise UserError("\n".join([f"{title} ({len(problems)} problem{'s' if len(problems) > 1 else ''})", *lines]))

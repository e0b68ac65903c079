"""A straight line through measured times: what a call costs at least, and what each token adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Line:
    """seconds = fixed + per_token * tokens."""

    fixed: float
    per_token: float

    def __call__(self, num_tokens: float) -> float:
        """Seconds of a call over so many tokens."""
        return self.fixed + self.per_token * num_tokens

    @staticmethod
    def through(points: Sequence[tuple[int, float]]) -> "Line":
        """The line nearest to (tokens, seconds), none of its two numbers below zero.

        Its slope is the median of those of all pairs of points (Theil 1950, Sen 1968), so that a call in which
        something else held up the machine does not count.
        """
        pairs = [(a, b) for a in points for b in points if a[0] < b[0]]
        rate = median(seconds / num_tokens for num_tokens, seconds in points)
        if not pairs:
            return Line(0.0, rate)
        slope = max(0.0, median((b[1] - a[1]) / (b[0] - a[0]) for a, b in pairs))
        fixed = median(seconds - slope * num_tokens for num_tokens, seconds in points)
        return Line(fixed, slope) if fixed >= 0 else Line(0.0, rate)

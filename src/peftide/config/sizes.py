"""Sizes of memory as users write and read them."""

import re

UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30}
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b|b)\s*", re.IGNORECASE)


def parse_size(text: str) -> int | None:
    """Bytes of a size such as 6GB (6 * 10^9), 6GiB (6 * 2^30) or 500MB; None where it is no size above 0."""
    match = SIZE.fullmatch(text)
    if match is None or match[2].lower() not in UNITS:
        return None
    return int(float(match[1]) * UNITS[match[2].lower()]) or None


def gibibytes(num_bytes: float) -> str:
    """`5.1 GiB`; smaller sizes as `310 MiB`."""
    return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"

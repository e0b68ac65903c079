"""A plan as a table, and what to choose in plain words."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from peftide.config import Method, gibibytes
from peftide.inference.cache_folder import readable_size
from peftide.training.forecast import Row

PREFERENCE: tuple[Method, ...] = ("lora", "head", "full")  # the usual gain for the usual cost first
PATIENCE_SECONDS = 24 * 3600.0  # a run that takes longer is not recommended where another does not

HEADINGS = (
    "backbone",
    "method",
    "fits",
    "memory",
    "tokens at once",
    "cache",
    "fill it",
    "epoch",
    "to the end",
    "trained",
)
TABLE_WIDTH = 120  # where there is no terminal


def plan_table(rows: Sequence[Row], *, limit_bytes: int, epochs: int) -> Table:
    """A line per backbone and method; a star: layers checkpointed; `(no)`: nothing is kept."""
    title = f"peak memory within {gibibytes(limit_bytes)}; to the end: at most {epochs} epochs"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:3] else "right", no_wrap=heading != "backbone")
    for row in rows:
        fits = {True: "yes", False: "no", None: "?"}[row.fits]
        trained = "" if row.trained_parameters is None else f"{row.trained_parameters:,}"
        table.add_row(row.backbone, row.method, fits, *_measures(row), trained)
    return table


def _measures(row: Row) -> tuple[str, ...]:
    if row.forecast is None or row.execution is None or row.cache is None:
        return ("",) * 6
    found, execution = row.forecast, row.execution
    tokens = f"{execution.token_budget:,}" + (" *" if execution.checkpoint_layers else "")
    return (
        ("" if found.is_measured else "about ") + gibibytes(found.peak_memory_bytes),
        tokens,
        _cache_text(row),
        duration(found.fill_seconds),
        duration(found.epoch_seconds),
        duration(found.total_seconds),
    )


def _cache_text(row: Row) -> str:
    assert row.cache is not None
    if not row.cache.num_bytes:
        return "none"
    return readable_size(row.cache.num_bytes) + ("" if row.cache.is_kept else " (no)")


def recommendation(rows: Sequence[Row], *, limit_bytes: int) -> str:
    """What to choose, and for each row that does not fit, or could not be tried, why and what would mend it."""
    fitting = [row for row in rows if row.fits]
    lines = []
    if fitting:
        lines.append(_praise(min(fitting, key=_rank)))
    else:
        lines.append(f"nothing fits in {gibibytes(limit_bytes)}:")
    for row in rows:
        if row.cache is not None and row.cache.num_bytes and not row.cache.is_kept:
            lines.append(f"{row.method} on {row.backbone}: {row.cache.note}")
        if not row.fits:
            lines.append(f"{row.method} on {row.backbone}: {row.reason or _excess(row, limit_bytes)}")
    return "\n".join(lines)


def _rank(row: Row) -> tuple[bool, int, float]:
    """Runs that end in time first, then the usual method; of these the larger backbone, or the shorter run."""
    assert row.forecast is not None
    assert row.trained_parameters is not None
    is_long = row.forecast.total_seconds > PATIENCE_SECONDS
    size = row.forecast.total_seconds if is_long else -row.trained_parameters
    return is_long, PREFERENCE.index(row.method), size


def _praise(row: Row) -> str:
    assert row.forecast is not None
    assert row.execution is not None
    found, execution = row.forecast, row.execution
    how = f", to save memory {row.most_repeats} of a step's parts encoded twice" if row.most_repeats else ""
    how += ", layers checkpointed" if execution.checkpoint_layers else ""
    return (
        f"{row.method} on {row.backbone} fits: {gibibytes(found.peak_memory_bytes)}, "
        f"{duration(found.epoch_seconds)} per epoch, {duration(found.total_seconds)} to the end{how}"
    )


def _excess(row: Row, limit_bytes: int) -> str:
    assert row.forecast is not None
    return (
        f"{gibibytes(row.forecast.peak_memory_bytes)} and more than the {gibibytes(limit_bytes)} that there are: give "
        f"--memory, with which a run keeps within a limit, or a smaller --token-budget or --max-residues"
    )


def duration(seconds: float) -> str:
    """`0.4 s`, `45 s`, `12 min`, `3.5 h`, `2.1 days`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"

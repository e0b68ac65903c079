"""From what is to do and what was measured to what a run will take: plain arithmetic."""

from dataclasses import dataclass

from peftide.config import Method
from peftide.training.memory import Execution, Footprint
from peftide.training.probe import Line, Probe
from peftide.training.work import Work


@dataclass(frozen=True)
class CacheNeed:
    """What the cache of frozen states or vectors takes.

    num_bytes: with everything in it; new_tokens: of the proteins not in it yet; is_kept: whether there will be one;
    note: why, in words.
    """

    num_bytes: int
    new_tokens: int
    is_kept: bool
    note: str


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    peak_memory_bytes: of the process (CPU) or of PyTorch's tensors (GPU); is_measured: else counted. fill_seconds: the
    cache, once; epoch_seconds: with the cache filled; total_seconds: all, with all epochs, from the loaded backbone on.
    """

    peak_memory_bytes: int
    is_measured: bool
    fill_seconds: float
    epoch_seconds: float
    total_seconds: float


@dataclass(frozen=True)
class Row:
    """One backbone and method of a plan; None where it is not known, and `reason` says why.

    fits: whether the peak is within the limit. execution, most_parts: how it would run, and in how many parts a step
    at most.
    """

    backbone: str
    method: Method
    fits: bool | None
    reason: str | None = None
    trained_parameters: int | None = None
    execution: Execution | None = None
    steps_per_epoch: int | None = None
    tokens_per_epoch: int | None = None
    most_parts: int | None = None
    cache: CacheNeed | None = None
    forecast: Forecast | None = None


def forecast(
    work: Work, probe: Probe, need: Footprint, cache: CacheNeed, execution: Execution, *, epochs: int, base_bytes: int
) -> Forecast:
    """What the work takes, going by the probe; base_bytes: what the process holds before the backbone is loaded."""
    encodes = bool(need.layers)
    first_pass = _sum(probe.encode, work.standardizing)
    if encodes:
        fill = probe.frozen.fixed * len(work.standardizing) + probe.frozen.per_token * cache.new_tokens
        last_pass = _sum(probe.encode, work.everything)
    else:
        known = 1 - cache.new_tokens / max(1, sum(work.everything))
        fill, last_pass = _sum(probe.encode, work.everything) * (1 - known), 0.0
    epoch = (
        work.batching_seconds
        + sum(_step_seconds(parts, probe) for parts in work.steps)
        + _sum(probe.encode, work.validation)
        + probe.scoring_seconds
    )
    peak, is_measured = _peak(work, probe, need, execution, base_bytes=base_bytes)
    total = probe.startup_seconds + fill + first_pass + epochs * epoch + last_pass + probe.scoring_seconds
    return Forecast(peak, is_measured, fill, epoch, total)


def _step_seconds(parts: tuple[int, ...], probe: Probe) -> float:
    """All parts but the last are encoded twice: without gradient, then again with it."""
    return _sum(probe.step, parts) + _sum(probe.encode, parts[:-1])


def _sum(line: Line, calls: tuple[int, ...]) -> float:
    return line.fixed * len(calls) + line.per_token * sum(calls)


def _peak(work: Work, probe: Probe, need: Footprint, execution: Execution, *, base_bytes: int) -> tuple[int, bool]:
    """Bytes at the worst moment, and whether the probe's measurements stand behind them."""
    held, step_bytes, encode_bytes = probe.held_bytes, probe.step_bytes, probe.encode_bytes
    if held is None or step_bytes is None or encode_bytes is None:
        return execution.planned_bytes, False
    rounded = 0 if execution.checkpoint_layers else min(need.rounded, step_bytes)
    in_step = rounded + (step_bytes - rounded) * work.largest_part / probe.step_tokens
    if work.most_parts == 1:  # gradients come while what they are made from goes
        in_step -= min(need.gradients, in_step)
    in_encoding = encode_bytes * work.largest_encoding / probe.encode_tokens
    on_top = max(in_step, in_encoding - need.gradients) if need.layers else in_encoding
    return round(base_bytes + held + need.best + on_top), True

"""From what is to do and what was measured to what a run will take: plain arithmetic."""

from dataclasses import dataclass

from peftide.config import Method
from peftide.training.line import Line
from peftide.training.memory import Execution, Footprint
from peftide.training.probe import Probe
from peftide.training.work import StepWork, Work

RESIDENT_SPREAD = 1.25  # growth of resident memory over that of the tensors kept (measured on a CPU: 1.1 to 1.4)


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

    fits: whether the peak is within the limit. execution, most_repeats: how it would run, and how many parts of a
    step at most are encoded twice.
    """

    backbone: str
    method: Method
    fits: bool | None
    reason: str | None = None
    trained_parameters: int | None = None
    execution: Execution | None = None
    steps_per_epoch: int | None = None
    tokens_per_epoch: int | None = None
    most_repeats: int | None = None
    cache: CacheNeed | None = None
    forecast: Forecast | None = None


def forecast(
    work: Work, probe: Probe, need: Footprint, cache: CacheNeed, execution: Execution, *, epochs: int, base_bytes: int
) -> Forecast:
    """What the work takes, going by the probe; base_bytes: what the process holds before the backbone is loaded."""
    encoding = probe.encode.seconds
    everything = _sum(encoding, work.everything)
    new_share = cache.new_tokens / max(1, sum(work.everything))
    if need.layers:
        new_calls = new_share * len(work.standardizing)
        fill = probe.frozen.fixed * new_calls + probe.frozen.per_token * cache.new_tokens
        once = fill + _sum(encoding, work.standardizing) + everything
    else:
        fill = once = new_share * everything
    epoch = (
        work.batching_seconds
        + sum(_step_seconds(step, probe) for step in work.steps)
        + _sum(encoding, work.validation)
        + probe.scoring_seconds
    )
    peak, is_measured = _peak(work, probe, need, execution, base_bytes=base_bytes)
    total = probe.startup_seconds + once + epochs * epoch + probe.scoring_seconds
    return Forecast(peak, is_measured, fill, epoch, total)


def _step_seconds(step: StepWork, probe: Probe) -> float:
    return _sum(probe.gradient.seconds, step.calls) + _sum(probe.encode.seconds, step.repeated) + probe.update_seconds


def _sum(line: Line, calls: tuple[int, ...]) -> float:
    return line.fixed * len(calls) + line.per_token * sum(calls)


def _peak(work: Work, probe: Probe, need: Footprint, execution: Execution, *, base_bytes: int) -> tuple[int, bool]:
    """Bytes at the worst moment, and whether the probe's measurements stand behind them."""
    step_bytes, encode_bytes = probe.gradient.added_bytes, probe.encode.added_bytes
    if step_bytes is None or encode_bytes is None:
        return execution.planned_bytes, False
    beyond = work.most_kept - probe.gradient.num_tokens
    kept = need.kept_per_token(checkpoint_layers=execution.checkpoint_layers)
    if probe.is_resident and beyond > 0:  # the holes between tensors, much of a small sample's memory, hardly grow
        in_step = step_bytes + RESIDENT_SPREAD * kept * beyond
    else:
        rounded = 0 if execution.checkpoint_layers else min(need.rounded, step_bytes)
        in_step = rounded + (step_bytes - rounded) * work.most_kept / probe.gradient.num_tokens
    if work.most_repeats == 0:  # gradients come while what they are made from goes
        in_step -= min(need.gradients, in_step)
    in_encoding = encode_bytes * work.largest_encoding / probe.encode.num_tokens
    on_top = max(in_step, in_encoding - need.gradients) if need.layers else in_encoding
    return round(base_bytes + probe.held_bytes + need.best + on_top), True

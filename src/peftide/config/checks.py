"""What is wrong with settings, all at once, and which of them a run would ignore."""

import re
from collections.abc import Iterator

from peftide.config.commands import (
    ClusterSettings,
    CompareSettings,
    CostSettings,
    DataSettings,
    DoctorSettings,
    EmbedSettings,
    FractionSettings,
    MachineSettings,
    PlanSettings,
    RecipeSettings,
    Settings,
    SplitSettings,
    SweepSettings,
    TrainSettings,
)
from peftide.config.layers import HOW_TO_WRITE, are_layers
from peftide.config.setting import settings_of
from peftide.config.sizes import parse_size
from peftide.config.vary import Range, combinations, read_variations, text_of, trial_settings, varied
from peftide.errors import raise_problems

CANNOT_USE = "these settings cannot be used"
SYMMETRY_TARGETS = ("auto", "multilabel")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")

Finding = tuple[str, str]  # the name of a setting, and what is wrong with it or why it has no effect


def check_settings(settings: Settings) -> tuple[str, ...]:
    """Raise one UserError that lists every wrong or contradictory setting; return a warning for each ignored one.

    A setting counts as given where it differs from its default, so that saved settings can be used again unchanged.
    """
    known = settings_of(type(settings))
    values = {name: getattr(settings, name) for name in known}
    found = [(name, problem) for name, value in values.items() if (problem := known[name].problem(value))]
    raise_problems(CANNOT_USE, [f"{name}: {problem}" for name, problem in found or contradictions(settings)])
    return tuple(
        f"{name} is ignored: {reason}"
        for name, reason in without_effect(settings)
        if values[name] != known[name].default
    )


def contradictions(settings: Settings) -> Iterator[Finding]:
    """Settings, each of a right type and in its range, that cannot be used, or not beside the others."""
    if isinstance(settings, MachineSettings) and not DEVICE.fullmatch(settings.device):
        yield "device", f"must be auto, cpu, mps, cuda or cuda:N, not {settings.device!r}"
    if isinstance(settings, ClusterSettings) and settings.ray is not None and settings.device.startswith("cuda:"):
        yield "device", f"must be cuda beside ray, which gives each worker its own GPU, not {settings.device!r}"
    if isinstance(settings, DataSettings) and settings.task == "symmetry" and settings.target not in SYMMETRY_TARGETS:
        yield "target", f"must be auto or multilabel where task is symmetry, not {settings.target!r}"
    if isinstance(settings, FractionSettings) and settings.val_fraction + settings.test_fraction >= 1:
        yield "test_fraction", "leaves nothing to train on: val_fraction + test_fraction must be below 1"
    if isinstance(settings, CostSettings) and settings.memory is not None and parse_size(settings.memory) is None:
        yield "memory", f"must be a size such as 6GB, 6GiB or 500MB, not {settings.memory!r}"
    for name in ("lora_layers", "state_layers"):
        if not are_layers(written := getattr(settings, name, "last")):
            yield name, f"must be {HOW_TO_WRITE}, not {written!r}"
    if isinstance(settings, RecipeSettings) and settings.task == "pair" and settings.sampling == "clusters":
        yield "sampling", "by clusters is for tasks of one protein, and task is pair"
    if isinstance(settings, SplitSettings) and settings.negatives is not None and settings.task != "pair":
        yield "negatives", f"can be sampled for pairs only, and task is {settings.task}"
    if isinstance(settings, TrainSettings) and settings.shard and (settings.method != "full" or settings.compile):
        yield "shard", f"needs method full, without compile; method is {settings.method}"
    if isinstance(settings, SweepSettings):
        yield from _unfit_to_vary(settings)


def _unfit_to_vary(settings: SweepSettings) -> Iterator[Finding]:
    """What cannot be varied, at all or together: a setting that one of the combinations would ignore tells nothing."""
    variations, problems = read_variations(varied(settings))
    yield from (("vary", problem) for problem in problems)
    if settings.search == "grid":
        ranges = [one.name for one in variations if isinstance(one, Range)]
        yield from (("vary", f"{name} is a range: list its values, or say --search optuna") for name in ranges)
    if problems:
        return
    seen: set[Finding] = set()
    for values in combinations(variations):
        trial = trial_settings(settings, values, out=settings.out)
        found = [(name, f"has no effect: {reason}") for name, reason in without_effect(trial)]
        fresh = {(name, why) for name, why in [*found, *contradictions(trial)] if name in values} - seen
        where = ", ".join(f"{name}={text_of(value)}" for name, value in values.items())
        yield from (("vary", f"{name} {why} ({where})") for name, why in sorted(fresh))
        seen |= fresh


def without_effect(settings: Settings) -> Iterator[Finding]:
    """Settings that a command would ignore, whatever their values, and why."""
    if isinstance(settings, MachineSettings) and settings.cache_limit_gb == 0:
        yield "cache_dir", "cache_limit_gb is 0, so there is no cache"
    if isinstance(settings, ClusterSettings) and settings.ray is not None:
        for name in ("cache_dir", "cache_limit_gb"):
            yield name, "ray is given, and its workers keep no cache"
    if isinstance(settings, EmbedSettings):
        yield from _embed_without_effect(settings)
    if isinstance(settings, DoctorSettings) and settings.bundle is not None:
        yield "backbone", "the bundle names its own"
    if isinstance(settings, DataSettings) and settings.task != "pair":
        for name in ("column_a", "column_b", "allow_self_pairs"):
            yield name, f"task is {settings.task}, not pair"
    if isinstance(settings, DataSettings) and settings.task == "pair":
        yield "column_cluster", "task is pair, and clusters are read for tasks of one protein"
    if isinstance(settings, RecipeSettings) and settings.task != "symmetry":
        yield "group_weight", f"task is {settings.task}, not symmetry"
    if isinstance(settings, SplitSettings):
        yield from _split_without_effect(settings)
    if isinstance(settings, CostSettings):
        yield from _training_without_effect(settings, _methods(settings))
    if isinstance(settings, TrainSettings) and settings.audit == "none":
        yield "strict", "audit is none, so nothing is flagged"
    if isinstance(settings, SweepSettings) and settings.search != "optuna":
        yield "trials", "search is grid, which tries every combination"


def _methods(settings: CostSettings) -> tuple[str, ...]:
    if isinstance(settings, PlanSettings | CompareSettings):
        return settings.methods
    return (settings.method,) if isinstance(settings, TrainSettings | SweepSettings) else ()


def _split_without_effect(settings: SplitSettings) -> Iterator[Finding]:
    yield "column_split", "a new split is made"
    if settings.by == "protein":
        for name in ("identity", "coverage", "search", "threads"):
            yield name, "by is protein, so no similar proteins are looked for"
    elif settings.column_cluster is not None:
        for name in ("identity", "coverage", "search", "threads"):
            yield name, "column_cluster says which proteins are similar"


def _embed_without_effect(settings: EmbedSettings) -> Iterator[Finding]:
    if settings.bundle is not None:
        for name in ("backbone", "pooling", "state_layers", "max_residues", "long_proteins"):
            yield name, "the bundle brings its own"
    elif settings.per_residue:
        yield "pooling", "per_residue gives every residue its own vector"


def _training_without_effect(settings: CostSettings, methods: tuple[str, ...]) -> Iterator[Finding]:
    method = f"method is {' or '.join(methods)}"
    if settings.task != "pair":
        yield "pair_steps", f"task is {settings.task}, not pair"
    elif methods == ("head",):
        yield "pair_steps", f"{method}, so every protein is encoded once and for all, and steps are shuffled"
    if "lora" not in methods:
        for name in ("lora_rank", "lora_alpha", "lora_dropout", "lora_matrices", "lora_layers"):
            yield name, f"{method}, not lora"
    if methods == ("head",):
        yield "checkpoint_layers", f"{method}, so nothing goes backward through the backbone"
    if methods == ("full",):
        for name in ("cache_dir", "cache_limit_gb"):
            yield name, f"{method}, so no hidden state stays the same"
    if settings.head != "mlp":
        for name in ("head_width", "head_dropout"):
            yield name, f"head is {settings.head}, not mlp"
    if settings.column_split is not None:
        for name in ("val_fraction", "test_fraction", "split_seed", "split_by", "split_identity"):
            yield name, "column_split says which example is in which split"
    elif settings.split_by == "protein":
        yield "split_identity", "split_by is protein, so no similar proteins are looked for"

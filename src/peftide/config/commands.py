"""Every setting of every command, once: name, type, default, range and one sentence; flags, TOML and docs follow."""

from dataclasses import dataclass
from typing import Literal

from peftide.config.setting import (
    COUNT,
    FRACTION,
    FRACTION_OR_ZERO,
    NOT_NEGATIVE,
    NUM_RUNS,
    NUM_THREADS,
    POSITIVE,
    SEED,
    WIDTH,
    setting,
)
from peftide.records import TargetKind, Task

Method = Literal["head", "lora", "full"]
LongProteins = Literal["crop", "window", "error"]
SplitBy = Literal["cluster", "protein"]
Sampling = Literal["examples", "clusters"]
PairSteps = Literal["shared", "shuffled"]
Matrix = Literal["query", "key", "value", "output", "feed-forward"]

BUNDLE_OR_SEVERAL = "folder that `peftide train` wrote, or one that holds several: their scores are averaged"


@dataclass(frozen=True, kw_only=True)
class TableSettings:
    """Where the examples are and how to find them in their files."""

    data: str = setting("table of examples: CSV, TSV, Parquet or (proteins only) FASTA, plain or .gz", group="data")
    sequences: str | None = setting(
        "FASTA or table with the sequences, where the table of examples has only ids", default=None, group="data"
    )
    column_a: str | None = setting(
        "column with the first protein of a pair (id or sequence)", default=None, group="columns"
    )
    column_b: str | None = setting("column with the second protein of a pair", default=None, group="columns")
    column_id: str | None = setting("column with the protein's id", default=None, group="columns")
    column_sequence: str | None = setting("column with the protein's sequence", default=None, group="columns")
    column_label: str | None = setting("column with the label", default=None, group="columns")
    column_split: str | None = setting("column with train, val or test", default=None, group="columns")
    column_cluster: str | None = setting(
        "column with the cluster of similar proteins that a protein is in",
        default=None,
        group="columns",
    )
    allow_self_pairs: bool = setting("accept pairs of a protein with itself (homodimers)", default=False, group="data")


@dataclass(frozen=True, kw_only=True)
class DataSettings(TableSettings):
    """What the examples mean; a trained bundle knows it and needs only `TableSettings`."""

    task: Task = setting(
        "pair (do two proteins interact), protein (any property of one), symmetry (of a homo-oligomer)",
        default="pair",
        group="data",
    )
    target: TargetKind | Literal["auto"] = setting(
        "what the label is; auto reads it from the column and says what it took",
        default="auto",
        group="data",
    )
    max_residues: int = setting(
        "longest piece of a protein that the backbone sees, in residues", default=1022, group="data", within=COUNT
    )
    long_proteins: LongProteins = setting(
        "what to do beyond max_residues: crop keeps the start, window averages overlapping pieces, error refuses",
        default="crop",
        group="data",
    )


@dataclass(frozen=True, kw_only=True)
class FractionSettings:
    """How many of the examples a split that is made here gives to validation and test."""

    val_fraction: float = setting(
        "fraction of the kept examples for validation, where the split is made here",
        default=0.1,
        group="data",
        within=FRACTION,
    )
    test_fraction: float = setting(
        "fraction of the kept examples for the test, where the split is made here",
        default=0.1,
        group="data",
        within=FRACTION,
    )


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """What to run on, and how much of it to take."""

    device: str = setting("auto, cpu, cuda, cuda:1 or mps", default="auto", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "arithmetic of the backbone; auto takes bf16 where the device does it well",
        default="auto",
        group="machine",
    )
    threads: int | None = setting(
        "CPU threads; all cores when absent", default=None, group="machine", within=NUM_THREADS
    )
    token_budget: int | None = setting(
        "tokens encoded at once; chosen by device and memory when absent", default=None, group="machine", within=COUNT
    )
    compile: bool = setting("torch.compile the layers (CUDA; pays on runs of minutes)", default=False, group="machine")
    cache_dir: str | None = setting(
        "folder of the cache of frozen hidden states; ~/.cache/peftide (or $PEFTIDE_CACHE) when absent",
        default=None,
        group="machine",
    )
    cache_limit_gb: float = setting(
        "largest size of that cache in GB; 0 switches it off", default=20.0, group="machine", within=NOT_NEGATIVE
    )


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(MachineSettings):
    """What to run on, where that may be several machines."""

    ray: str | None = setting(
        "spread the work over the workers of a Ray cluster: its address, auto, or local; each takes a GPU, or as many "
        "CPUs as threads says",
        default=None,
        group="machine",
    )


@dataclass(frozen=True, kw_only=True)
class CostSettings(MachineSettings, FractionSettings, DataSettings):
    """What decides how long training takes and in how much memory, whatever the backbone and the method."""

    head: Literal["mlp", "paper", "linear"] = setting(
        "mlp (pairs: mean, absolute difference and product), paper (mean, 128 tanh), linear",
        default="mlp",
        group="model",
    )
    head_width: int = setting("hidden units of the mlp head", default=512, group="model", within=WIDTH)
    head_dropout: float = setting("dropout in the mlp head", default=0.1, group="model", within=FRACTION_OR_ZERO)
    pooling: Literal["mean", "cls"] = setting(
        "protein vector: mean over its residues, or the <cls> token", default="mean", group="model"
    )
    state_layers: str = setting(
        "layers whose states, side by side, make the vector: last, spread (at a half, three quarters and the end of "
        "the depth), last:K, all, or counted from 1 like 4,6,8",
        default="last",
        group="model",
    )
    lora_rank: int = setting("rank r of the LoRA matrices (the paper's 8)", default=8, group="lora", within=WIDTH)
    lora_alpha: float = setting(
        "LoRA scale: the update is multiplied by alpha / r (the paper's 32)",
        default=32.0,
        group="lora",
        within=POSITIVE,
    )
    lora_dropout: float = setting(
        "dropout before the LoRA matrices (the paper's 0.1)", default=0.1, group="lora", within=FRACTION_OR_ZERO
    )
    lora_matrices: tuple[Matrix, ...] = setting(
        "adapted matrices among query, key, value, output, feed-forward (the paper's key + value)",
        default=("key", "value"),
        group="lora",
    )
    lora_layers: str = setting(
        "adapted layers: last-quarter (the paper's 8 of 33), all, last:K, or counted from 1 like 5,7-9",
        default="last-quarter",
        group="lora",
    )
    epochs: int = setting("passes over the training examples, at most", default=20, group="training", within=COUNT)
    batch_examples: int = setting(
        "examples per optimiser step (the paper's 4 x 16)", default=64, group="training", within=COUNT
    )
    pair_steps: PairSteps = setting(
        "how pairs come into steps where proteins are encoded in each: shared builds a step around proteins, every one "
        "encoded once for its many pairs; shuffled draws pairs at random and encodes several times as much",
        default="shared",
        group="training",
    )
    seed: int = setting("seed of split, initial weights, order and dropout", default=0, group="training", within=SEED)
    split_seed: int | None = setting(
        "seed of the split alone, where no split column is given; that of training when absent",
        default=None,
        group="data",
        within=SEED,
    )
    split_by: SplitBy = setting(
        "where no split column is given: cluster keeps similar proteins in one part, protein only identical ones",
        default="cluster",
        group="data",
    )
    split_identity: float = setting(
        "identity from which proteins are similar, over half of either", default=0.3, group="data", within=FRACTION
    )
    checkpoint_layers: bool = setting(
        "recompute activations in the backward pass: less memory, about a third more time",
        default=False,
        group="machine",
    )
    memory: str | None = setting(
        "memory to keep within, such as 6GB, 6GiB or 500MB: what the process holds (CPU) or PyTorch takes (GPU)",
        default=None,
        group="machine",
    )


@dataclass(frozen=True, kw_only=True)
class RecipeSettings(CostSettings):
    """How a model is trained, whatever the backbone and the method."""

    learning_rate: float | None = setting(
        "peak learning rate; by method when absent: head 1e-3, lora 1e-3, full 1e-4",
        default=None,
        group="training",
        within=POSITIVE,
    )
    weight_decay: float = setting(
        "AdamW weight decay of matrices (norms and biases: none)", default=0.01, group="training", within=NOT_NEGATIVE
    )
    warmup_fraction: float = setting(
        "fraction of the steps with rising learning rate, then cosine",
        default=0.05,
        group="training",
        within=FRACTION_OR_ZERO,
    )
    clip_norm: float = setting("largest gradient norm", default=1.0, group="training", within=POSITIVE)
    patience: int = setting(
        "epochs without a better validation metric before stopping", default=4, group="training", within=COUNT
    )
    metric: str = setting(
        "validation metric to select by; auto: aupr, macro_aupr or spearman by kind of target",
        default="auto",
        group="training",
    )
    class_weights: Literal["none", "balanced"] = setting(
        "balanced weighs rare classes up in the loss", default="none", group="training"
    )
    sampling: Sampling = setting(
        "what an epoch draws: examples, each once, or clusters, each as often as any other, and a member of it "
        "(not for pairs)",
        default="examples",
        group="training",
    )
    group_weight: float = setting(
        "weight in the loss of the coarse groups of symmetries (cyclic, dihedral, cubic or helical) beside the classes",
        default=0.2,
        group="training",
        within=NOT_NEGATIVE,
    )
    audit: Literal["auto", "full", "fast", "none"] = setting(
        "look for leakage before training; fast leaves out the search for similar proteins, and auto does so where it "
        "would take more than about a minute",
        default="auto",
        group="run",
    )
    strict: bool = setting("do not train where the audit flags the split", default=False, group="run")


@dataclass(frozen=True, kw_only=True)
class JudgeSettings:
    """What a trained model is compared with."""

    baselines: Literal["all", "quick", "none"] = setting(
        "simple predictors to compare with on the same examples; quick leaves out the search for relatives and the "
        "same head on a random backbone, which encodes every protein once more",
        default="all",
        group="run",
    )


@dataclass(frozen=True, kw_only=True)
class TrainSettings(JudgeSettings, RecipeSettings):
    """Everything that `peftide train` can be told."""

    out: str = setting("folder of the bundle to write", group="run")
    checkpoint_minutes: float = setting(
        "minutes between checkpoints: a run that was killed goes on there, with the same command",
        default=5.0,
        group="run",
        within=NOT_NEGATIVE,
    )
    restart: bool = setting("throw away an unfinished run in the folder", default=False, group="run")
    backbone: str = setting(
        "swissprot-10m (shipped), esm2-8m ... esm2-15b, a hub name or a local folder",
        default="swissprot-10m",
        group="model",
    )
    method: Method = setting(
        "head (frozen backbone, cached embeddings), lora (adapters), full (every weight)",
        default="lora",
        group="model",
    )
    shard: bool = setting(
        "method full in several processes: each holds a share of the weights, gradients and moments (FSDP)",
        default=False,
        group="machine",
    )


@dataclass(frozen=True, kw_only=True)
class SplitSettings(FractionSettings, DataSettings):
    """Everything that `peftide split` can be told."""

    out: str = setting("table to write: .tsv, .csv or .parquet, plain or .gz; the report goes beside it", group="run")
    by: SplitBy = setting(
        "cluster keeps similar proteins in one part, protein only identical ones", default="cluster", group="data"
    )
    identity: float = setting("identity from which proteins are similar", default=0.3, group="data", within=FRACTION)
    coverage: float = setting(
        "fraction of either protein that the similar part has to cover", default=0.5, group="data", within=FRACTION
    )
    negatives: float | None = setting(
        "for a table of positive pairs alone: presumed negatives per positive to sample, each protein as often as "
        "among the positives",
        default=None,
        group="data",
        within=POSITIVE,
    )
    search: Literal["auto", "mmseqs", "builtin"] = setting(
        "program that finds similar proteins; auto takes mmseqs where it is installed", default="auto", group="run"
    )
    seed: int = setting("seed of split and sampling", default=0, group="run", within=SEED)
    threads: int | None = setting(
        "CPU threads of the search; all cores when absent", default=None, group="machine", within=NUM_THREADS
    )


@dataclass(frozen=True, kw_only=True)
class AuditSettings(DataSettings):
    """Everything that `peftide audit` can be told."""

    search: Literal["auto", "mmseqs", "builtin", "none"] = setting(
        "program that finds similar proteins; auto takes mmseqs where it is installed, none leaves the search out",
        default="auto",
        group="run",
    )
    strict: bool = setting("exit with 1 where the split is flagged", default=False, group="run")
    json: str | None = setting("file for the audit as JSON", default=None, group="run")
    threads: int | None = setting(
        "CPU threads of the search; all cores when absent", default=None, group="machine", within=NUM_THREADS
    )


@dataclass(frozen=True, kw_only=True)
class PlanSettings(CostSettings):
    """Everything that `peftide plan` can be told."""

    backbones: tuple[str, ...] = setting(
        "backbones to compare, each as in train", default=("swissprot-10m",), group="model"
    )
    methods: tuple[Method, ...] = setting(
        "methods to compare among head, lora, full", default=("head", "lora", "full"), group="model"
    )
    json: str | None = setting("file for the plan as JSON", default=None, group="run")


@dataclass(frozen=True, kw_only=True)
class CompareSettings(JudgeSettings, RecipeSettings):
    """Everything that `peftide compare` can be told."""

    out: str = setting("folder for the bundles, the tables and the report", group="run")
    backbones: tuple[str, ...] = setting(
        "backbones to compare, each as in train", default=("swissprot-10m",), group="model"
    )
    methods: tuple[Method, ...] = setting(
        "methods to compare among head, lora, full", default=("head", "lora", "full"), group="model"
    )
    seeds: int = setting(
        "runs of each backbone and method, with seed, seed + 1, ...; all have the split of the first",
        default=3,
        group="training",
        within=NUM_RUNS,
    )


@dataclass(frozen=True, kw_only=True)
class SweepSettings(RecipeSettings):
    """Everything that `peftide sweep` can be told."""

    out: str = setting("folder for the trials, the tables, the best settings and the report", group="run")
    backbone: str = setting("as in train", default="swissprot-10m", group="model")
    method: Method = setting("as in train", default="lora", group="model")
    vary: tuple[str, ...] | None = setting(
        "a setting and its values, NAME=V1,V2,... (a list as key+value), or NAME=LOW..HIGH with search optuna; may be "
        "repeated; absent: rank, matrices and layers (lora), learning rate, head and state layers (head), "
        "learning rate (full)",
        default=None,
        group="run",
        is_repeated=True,
    )
    search: Literal["grid", "optuna"] = setting(
        "grid: every combination; optuna: combinations chosen by what came of the earlier ones, poor ones ended early",
        default="grid",
        group="run",
    )
    trials: int = setting("combinations that optuna tries in all", default=20, group="run", within=NUM_RUNS)
    keep_bundles: bool = setting("keep the model of every trial, not only its numbers", default=False, group="run")


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(MachineSettings, TableSettings):
    """Everything that `peftide evaluate` can be told."""

    bundle: str = setting(BUNDLE_OR_SEVERAL, group="run")
    split: Literal["train", "val", "test", "all"] = setting(
        "which part of the table to score; all when it has no split column",
        default="test",
        group="data",
    )
    out: str | None = setting(
        "folder for metrics.json and predictions.tsv; print only when absent", default=None, group="run"
    )


@dataclass(frozen=True, kw_only=True)
class PredictSettings(ClusterSettings, TableSettings):
    """Everything that `peftide predict` can be told."""

    bundle: str = setting(BUNDLE_OR_SEVERAL, group="run")
    out: str = setting("table to write: .tsv, .csv or .parquet, plain or .gz", group="run")
    threshold: float = setting(
        "probability from which the answer is yes (binary, multilabel); the report lists one for each precision",
        default=0.5,
        group="run",
        within=FRACTION,
    )
    min_confidence: float | None = setting(
        "abstain (an empty prediction) where the answer's calibrated probability is lower; absent: always answer",
        default=None,
        group="run",
        within=FRACTION,
    )


@dataclass(frozen=True, kw_only=True)
class ScreenSettings(ClusterSettings):
    """Everything that `peftide screen` can be told."""

    bundle: str = setting("folder that `peftide train` wrote, of task pair", group="run")
    data: str = setting("FASTA or table of proteins: all pairs of these are scored", group="data")
    against: str | None = setting(
        "FASTA or table of other proteins: all pairs of one of DATA and one of these instead",
        default=None,
        group="data",
    )
    out: str = setting("file to write: .parquet", group="run")
    top_k: int | None = setting(
        "keep the likeliest partners of each protein of DATA, so many, with their ranks",
        default=None,
        group="run",
        within=COUNT,
    )
    min_probability: float | None = setting(
        "keep pairs of this calibrated probability or more; every pair when neither this nor top_k is given",
        default=None,
        group="run",
        within=FRACTION,
    )
    self_pairs: bool = setting("pair each protein with itself too (homodimers)", default=False, group="data")
    exact: bool = setting(
        "score every pair in float32, not only those that a fast estimate leaves (mlp head on a CPU; a quarter of the "
        "speed)",
        default=False,
        group="machine",
    )
    column_id: str | None = setting("column with the protein's id", default=None, group="columns")
    column_sequence: str | None = setting("column with the protein's sequence", default=None, group="columns")


@dataclass(frozen=True, kw_only=True)
class EmbedSettings(ClusterSettings):
    """Everything that `peftide embed` can be told."""

    data: str = setting("FASTA or table of proteins", group="data")
    out: str = setting("file to write: .h5 or .parquet", group="run")
    backbone: str = setting("as in train", default="swissprot-10m", group="model")
    bundle: str | None = setting(
        "a trained bundle instead: embeddings of the adapted backbone", default=None, group="model"
    )
    per_residue: bool = setting("a vector per residue instead of one per protein", default=False, group="model")
    pooling: Literal["mean", "cls"] = setting("protein vector", default="mean", group="model")
    state_layers: str = setting(
        "layers whose states, side by side, make the vector (also of a residue), as in train",
        default="last",
        group="model",
    )
    column_id: str | None = setting("column with the protein's id", default=None, group="columns")
    column_sequence: str | None = setting("column with the protein's sequence", default=None, group="columns")
    max_residues: int = setting(
        "longest piece of a protein that the backbone sees, in residues", default=1022, group="data", within=COUNT
    )
    long_proteins: LongProteins = setting(
        "what to do beyond max_residues: crop, window or error", default="crop", group="data"
    )


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Everything that `peftide report` can be told."""

    bundle: str = setting("folder that `peftide train` wrote", group="run")
    out: str | None = setting("page to write; report.html in the bundle when absent", default=None, group="run")


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(MachineSettings):
    """Everything that `peftide doctor` can be told."""

    bundle: str | None = setting("a trained bundle to check, on this machine", default=None, group="run")
    backbone: str = setting("as in train, where no bundle is given", default="swissprot-10m", group="model")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """Everything that `peftide demo` can be told."""

    out: str = setting("folder for the bundles, the predictions and summary.json", default="runs/demo", group="run")


Settings = (
    DemoSettings
    | DoctorSettings
    | SplitSettings
    | AuditSettings
    | TrainSettings
    | PlanSettings
    | CompareSettings
    | SweepSettings
    | EvaluateSettings
    | PredictSettings
    | ScreenSettings
    | EmbedSettings
    | ReportSettings
)

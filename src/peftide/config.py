"""Every setting once: name, type, default and one sentence; the TOML key, the flag and the docs come from here."""

from dataclasses import MISSING, Field, dataclass, field
from typing import Any, Literal

from peftide.records import TargetKind, Task

Method = Literal["head", "lora", "full"]
LongProteins = Literal["crop", "window", "error"]
Matrix = Literal["query", "key", "value", "output", "feed-forward"]


def setting(help: str, *, default: Any = MISSING, group: str, choices: tuple[str, ...] = ()) -> Any:
    """A dataclass field that carries its own documentation."""
    metadata = {"help": help, "group": group, "choices": choices}
    return field(default=default, metadata=metadata) if default is not MISSING else field(metadata=metadata)


def help_of(item: Field) -> str:
    """The one sentence that documents a setting."""
    return item.metadata["help"]


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Where the examples are and how to read them."""

    data: str = setting("table of examples: CSV, TSV, Parquet or (proteins only) FASTA, plain or .gz", group="data")
    sequences: str | None = setting(
        "FASTA or table with the sequences, where the table of examples has only ids", default=None, group="data"
    )
    task: Task = setting(
        "pair (do two proteins interact), protein (any property of one), symmetry (of a homo-oligomer)",
        default="pair", group="data", choices=("pair", "protein", "symmetry"),
    )  # fmt: skip
    target: TargetKind | Literal["auto"] = setting(
        "what the label is; auto reads it from the column and says what it took",
        default="auto", group="data", choices=("auto", "binary", "multiclass", "multilabel", "regression"),
    )  # fmt: skip
    column_a: str | None = setting("column with the first protein of a pair (id or sequence)", default=None, group="columns")
    column_b: str | None = setting("column with the second protein of a pair", default=None, group="columns")
    column_id: str | None = setting("column with the protein's id", default=None, group="columns")
    column_sequence: str | None = setting("column with the protein's sequence", default=None, group="columns")
    column_label: str | None = setting("column with the label", default=None, group="columns")
    column_split: str | None = setting("column with train, val or test", default=None, group="columns")
    allow_self_pairs: bool = setting(
        "accept pairs of a protein with itself (homodimers)", default=False, group="data"
    )
    max_residues: int = setting("longest piece of a protein that the backbone sees, in residues", default=1022, group="data")
    long_proteins: LongProteins = setting(
        "what to do beyond max_residues: crop keeps the start, window averages overlapping pieces, error refuses",
        default="crop", group="data", choices=("crop", "window", "error"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    """What to run on, and how much of it to take."""

    device: str = setting("auto, cpu, cuda, cuda:1 or mps", default="auto", group="machine")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "arithmetic of the backbone; auto takes bf16 where the device does it well",
        default="auto", group="machine", choices=("auto", "fp32", "bf16"),
    )  # fmt: skip
    threads: int | None = setting("CPU threads; all cores when absent", default=None, group="machine")
    token_budget: int | None = setting(
        "tokens encoded at once; chosen by device and memory when absent", default=None, group="machine"
    )
    compile: bool = setting("torch.compile the layers (CUDA; pays on runs of minutes)", default=False, group="machine")
    cache_dir: str | None = setting(
        "folder of the cache of frozen hidden states; ~/.cache/peftide (or $PEFTIDE_CACHE) when absent",
        default=None, group="machine",
    )  # fmt: skip
    cache_limit_gb: float = setting("largest size of that cache in GB; 0 switches it off", default=20.0, group="machine")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(DataSettings, MachineSettings):
    """Everything that `peftide train` can be told."""

    out: str = setting("folder of the bundle to write", group="run")
    backbone: str = setting(
        "swissprot-10m (shipped), esm2-8m ... esm2-15b, a hub name or a local folder", default="swissprot-10m", group="model"
    )
    method: Method = setting(
        "head (frozen backbone, cached embeddings), lora (adapters), full (every weight)",
        default="lora", group="model", choices=("head", "lora", "full"),
    )  # fmt: skip
    head: Literal["mlp", "paper", "linear"] = setting(
        "mlp (pairs: mean, absolute difference and product), paper (mean, 128 tanh), linear",
        default="mlp", group="model", choices=("mlp", "paper", "linear"),
    )  # fmt: skip
    head_width: int = setting("hidden units of the mlp head", default=512, group="model")
    head_dropout: float = setting("dropout in the mlp head", default=0.1, group="model")
    pooling: Literal["mean", "cls"] = setting(
        "protein vector: mean over its residues, or the <cls> token", default="mean", group="model", choices=("mean", "cls")
    )
    lora_rank: int = setting("rank r of the LoRA matrices (the paper's 8)", default=8, group="lora")
    lora_alpha: float = setting("LoRA scale: the update is multiplied by alpha / r (the paper's 32)", default=32.0, group="lora")
    lora_dropout: float = setting("dropout before the LoRA matrices (the paper's 0.1)", default=0.1, group="lora")
    lora_matrices: tuple[Matrix, ...] = setting(
        "adapted matrices among query, key, value, output, feed-forward (the paper's key + value)",
        default=("key", "value"), group="lora", choices=("query", "key", "value", "output", "feed-forward"),
    )  # fmt: skip
    lora_layers: str = setting(
        "adapted layers: last-quarter (the paper's 8 of 33), all, last:K, or 1-based like 5,7-9", default="last-quarter",
        group="lora",
    )  # fmt: skip
    epochs: int = setting("passes over the training examples, at most", default=20, group="training")
    batch_examples: int = setting("examples per optimiser step (the paper's 4 x 16)", default=64, group="training")
    learning_rate: float | None = setting(
        "peak learning rate; by method when absent: head 1e-3, lora 1e-3, full 1e-4", default=None, group="training"
    )
    weight_decay: float = setting("AdamW weight decay of matrices (norms and biases: none)", default=0.01, group="training")
    warmup_fraction: float = setting("fraction of the steps with rising learning rate, then cosine", default=0.05, group="training")
    clip_norm: float = setting("largest gradient norm", default=1.0, group="training")
    patience: int = setting("epochs without a better validation metric before stopping", default=4, group="training")
    metric: str = setting(
        "validation metric to select by; auto: aupr, macro_aupr or spearman by kind of target", default="auto", group="training"
    )
    class_weights: Literal["none", "balanced"] = setting(
        "balanced weighs rare classes up in the loss", default="none", group="training", choices=("none", "balanced")
    )
    seed: int = setting("seed of split, initial weights, order and dropout", default=0, group="training")
    val_fraction: float = setting("fraction of proteins for validation, where no split column is given", default=0.1, group="data")
    test_fraction: float = setting("fraction of proteins for the test, where no split column is given", default=0.1, group="data")
    checkpoint_layers: bool = setting(
        "recompute activations in the backward pass: less memory, about a third more time", default=False, group="machine"
    )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings(DataSettings, MachineSettings):
    """Everything that `peftide evaluate` can be told."""

    bundle: str = setting("folder that `peftide train` wrote", group="run")
    split: Literal["train", "val", "test", "all"] = setting(
        "which part of the table to score; all when it has no split column",
        default="test", group="data", choices=("train", "val", "test", "all"),
    )  # fmt: skip
    out: str | None = setting("folder for metrics.json and predictions.tsv; print only when absent", default=None, group="run")


@dataclass(frozen=True, kw_only=True)
class PredictSettings(DataSettings, MachineSettings):
    """Everything that `peftide predict` can be told."""

    bundle: str = setting("folder that `peftide train` wrote", group="run")
    out: str = setting("table to write: .tsv, .csv or .parquet, plain or .gz", group="run")


@dataclass(frozen=True, kw_only=True)
class EmbedSettings(MachineSettings):
    """Everything that `peftide embed` can be told."""

    data: str = setting("FASTA or table of proteins", group="data")
    out: str = setting("file to write: .h5 or .parquet", group="run")
    backbone: str = setting("as in train", default="swissprot-10m", group="model")
    bundle: str | None = setting("a trained bundle instead: embeddings of the adapted backbone", default=None, group="model")
    per_residue: bool = setting("a vector per residue instead of one per protein", default=False, group="model")
    pooling: Literal["mean", "cls"] = setting("protein vector", default="mean", group="model", choices=("mean", "cls"))
    column_id: str | None = setting("column with the protein's id", default=None, group="columns")
    column_sequence: str | None = setting("column with the protein's sequence", default=None, group="columns")
    max_residues: int = setting("longest piece of a protein that the backbone sees, in residues", default=1022, group="data")
    long_proteins: LongProteins = setting(
        "what to do beyond max_residues: crop, window or error", default="crop", group="data", choices=("crop", "window", "error")
    )

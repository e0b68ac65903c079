"""How long and how fast a run trains."""

from dataclasses import dataclass

from peftide.config import PairSteps, Sampling


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train; the names are those of the settings."""

    epochs: int
    batch_examples: int
    learning_rate: float
    weight_decay: float
    warmup_fraction: float
    clip_norm: float
    patience: int
    metric: str
    seed: int
    sampling: Sampling = "examples"
    pair_steps: PairSteps = "shared"

"""What a training run has to encode, counted in tokens from its own batches: steps, parts, validation, the cache.

Shapes: P proteins, N examples, K proteins of an example.
"""

import time
from dataclasses import dataclass

import numpy as np

from peftide.inference.embed import length_batches
from peftide.training.build import STANDARDIZING_SAMPLE
from peftide.training.loop import Trainer
from peftide.training.memory import encoding_budget


@dataclass(frozen=True)
class StepWork:
    """Tokens of one optimiser step. kept: of the parts that hold their graphs together; repeated: of each other part,
    which is encoded without gradient first.
    """

    kept: int
    repeated: tuple[int, ...] = ()

    @property
    def calls(self) -> tuple[int, ...]:
        """Tokens of each back-propagation."""
        return self.kept, *self.repeated


@dataclass(frozen=True)
class Work:
    """Tokens of every call of the encoder.

    steps: of each optimiser step; occurrences_P: steps of an epoch that encode each protein;
    standardizing, validation, everything: of each call without gradient, by what it is for;
    batching_seconds: what making an epoch's batches took.
    """

    steps: tuple[StepWork, ...]
    occurrences_P: np.ndarray
    standardizing: tuple[int, ...]
    validation: tuple[int, ...]
    everything: tuple[int, ...]
    batching_seconds: float

    @property
    def most_kept(self) -> int:
        """The most tokens that hold their graphs at once."""
        return max(max(step.calls) for step in self.steps)

    @property
    def largest_encoding(self) -> int:
        """Tokens of the largest call without gradient."""
        return max([*self.standardizing, *self.validation, *self.everything])

    @property
    def most_repeats(self) -> int:
        """Parts encoded twice in the step that has the most."""
        return max(len(step.repeated) for step in self.steps)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all steps, each part once, and of the validation."""
        return sum(sum(step.calls) for step in self.steps) + sum(self.validation)


def count_work(trainer: Trainer, *, encodes: bool) -> Work:
    """Count the first epoch of a trainer; `encodes`: False where the vectors of all proteins are made once, before."""
    tokens_P, members_NK = trainer.tokens_P, trainer.train.members_NK
    started = time.perf_counter()
    batches = trainer.epoch_batches(1)
    batching_seconds = time.perf_counter() - started
    budget = encoding_budget(trainer.token_budget, trainer.device)
    everything = _encoding_calls(tokens_P, budget)
    if not encodes:
        return Work((StepWork(0),) * len(batches), np.ones(len(tokens_P)), (), (), everything, batching_seconds)
    steps, occurrences_P = [], np.zeros(len(tokens_P))
    for batch in batches:
        plan = trainer.plan(members_NK[batch])
        tokens = [int(tokens_P[part].sum()) for part in plan.parts]
        steps.append(StepWork(sum(tokens[-plan.num_kept :]), tuple(tokens[: -plan.num_kept])))
        occurrences_P[np.concatenate(plan.parts)] += 1
    train_tokens = tokens_P[np.unique(members_NK)]
    spread = np.linspace(0, len(train_tokens) - 1, min(STANDARDIZING_SAMPLE, len(train_tokens))).astype(int)
    return Work(
        steps=tuple(steps),
        occurrences_P=occurrences_P,
        standardizing=_encoding_calls(np.sort(train_tokens)[spread], budget),
        validation=_encoding_calls(tokens_P[np.unique(trainer.validation.members_NK)], budget),
        everything=everything,
        batching_seconds=batching_seconds,
    )


def _encoding_calls(tokens_P: np.ndarray, budget: int) -> tuple[int, ...]:
    return tuple(int(tokens_P[rows].sum()) for rows in length_batches(tokens_P.tolist(), budget))


def sample_rows(tokens_P: np.ndarray, weights_P: np.ndarray, num_tokens: int) -> np.ndarray:
    """Proteins of about `num_tokens` tokens together, their lengths spread like those of all, weighted.

    A systematic sample in order of length: the mean of the squared lengths, which attention costs, is that of all too.
    """
    rows = np.flatnonzero(weights_P)
    rows = rows[np.argsort(tokens_P[rows], kind="stable")]
    shares = np.cumsum(weights_P[rows]) / weights_P[rows].sum()
    mean_tokens = np.average(tokens_P[rows], weights=weights_P[rows])
    count = max(1, round(num_tokens / mean_tokens))
    places = np.searchsorted(shares, (np.arange(count) + 0.5) / count)
    return np.unique(rows[np.minimum(places, len(rows) - 1)])

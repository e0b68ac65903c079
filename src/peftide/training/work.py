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
from peftide.training.step import plan_step


@dataclass(frozen=True)
class Work:
    """Tokens of every call of the encoder.

    steps: of each optimiser step, its parts; occurrences_P: steps of an epoch that encode each protein;
    standardizing: of each protein that sets the head's scale (one call each); validation, everything: of each call;
    batching_seconds: what making an epoch's batches took.
    """

    steps: tuple[tuple[int, ...], ...]
    occurrences_P: np.ndarray
    standardizing: tuple[int, ...]
    validation: tuple[int, ...]
    everything: tuple[int, ...]
    batching_seconds: float

    @property
    def largest_part(self) -> int:
        """Tokens of the largest part of any step."""
        return max(max(parts) for parts in self.steps)

    @property
    def largest_encoding(self) -> int:
        """Tokens of the largest call without gradient."""
        return max([*self.standardizing, *self.validation, *self.everything])

    @property
    def most_parts(self) -> int:
        """Parts of the step that has the most."""
        return max(len(parts) for parts in self.steps)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens of all steps, each part once, and of the validation."""
        return sum(sum(parts) for parts in self.steps) + sum(self.validation)


def count_work(trainer: Trainer, *, encodes: bool) -> Work:
    """Count the first epoch of a trainer; `encodes`: False where the vectors of all proteins are made once, before."""
    tokens_P, members_NK = trainer.tokens_P, trainer.train.members_NK
    started = time.perf_counter()
    batches = trainer.epoch_batches(1)
    batching_seconds = time.perf_counter() - started
    budget = encoding_budget(trainer.token_budget, trainer.device)
    everything = _encoding_calls(tokens_P, budget)
    if not encodes:
        return Work(((0,),) * len(batches), np.ones(len(tokens_P)), (), (), everything, batching_seconds)
    steps, occurrences_P = [], np.zeros(len(tokens_P))
    for batch in batches:
        plan = plan_step(members_NK[batch], tokens_P, token_budget=trainer.token_budget)
        steps.append(tuple(int(tokens_P[part].sum()) for part in plan.parts))
        occurrences_P[np.concatenate(plan.parts)] += 1
    train_tokens = tokens_P[np.unique(members_NK)]
    spread = np.linspace(0, len(train_tokens) - 1, min(STANDARDIZING_SAMPLE, len(train_tokens))).astype(int)
    return Work(
        steps=tuple(steps),
        occurrences_P=occurrences_P,
        standardizing=tuple(np.sort(train_tokens)[spread].tolist()),
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

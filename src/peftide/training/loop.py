"""The training loop: batches, steps, validation, early stopping, the best weights kept.

Where several ranks train together, each goes through the same steps here: see `training.ranks`.

Shapes: N examples, K proteins of an example, P proteins, D width.
"""

import math
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from peftide.errors import UserError
from peftide.evaluation.metrics import METRIC_NAMES, higher_is_better, measure
from peftide.inference.encoder import Encoder
from peftide.inference.predict import score_examples
from peftide.models.property_model import PropertyModel
from peftide.models.target import loss as loss_of_logits
from peftide.models.tokens import Pieces
from peftide.records import Dataset
from peftide.training.batches import cluster_batches, pair_batches, plain_batches
from peftide.training.checkpoint import Checkpoints, Snapshot
from peftide.training.memory import encoding_budget
from peftide.training.optimizer import clip_gradients, learning_rate_at, make_optimizer
from peftide.training.progress import TrainingProgress
from peftide.training.ranks import ALONE, HeldInterrupt, Ranks
from peftide.training.resident import trim
from peftide.training.schedule import Schedule
from peftide.training.shares import dealt_examples, embed_together
from peftide.training.state import INTERRUPTED, Fit, State, keep_state, put_back, restore, shared, snapshot
from peftide.training.step import LossOfMembers, StepPlan, backward, plan_step

AfterEpoch = Callable[[int, float], str | None]  # its number (from 1) and validation metric -> why to stop, or None

STEPS_PER_TRIM = 8  # costs less than a hundredth of the time, and bounds what lies freed but unreturned


class Trainer:
    """The model, optimiser and data of one run; `fit` runs it."""

    def __init__(
        self,
        model: PropertyModel,
        encoder: Encoder,
        dataset: Dataset,
        pieces: list[Pieces],
        schedule: Schedule,
        *,
        token_budget: int,
        vectors_PD: np.ndarray | None,
        ranks: Ranks = ALONE,
    ):
        """`vectors_PD`: where nothing of the backbone is trained, the vectors of all proteins, which stand for it."""
        self.model, self.encoder, self.schedule, self.ranks = model, encoder, schedule, ranks
        self.train, self.validation = dataset.part("train"), dataset.part("val")
        self.pieces = pieces
        self.tokens_P = np.array([protein.num_tokens for protein in pieces])
        self.token_budget = token_budget
        self.device = encoder.machine.device
        self.vectors_PD = vectors_PD
        self.table_PD = None if vectors_PD is None else torch.from_numpy(vectors_PD).to(self.device)
        self.targets = torch.from_numpy(self.train.targets).to(self.device)
        self.optimizer = make_optimizer(
            [model.model, model.head], learning_rate=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        self.parameters: list[nn.Parameter] = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.num_steps = schedule.epochs * math.ceil(len(self.train) / schedule.batch_examples)
        self.halved = False
        self.interrupt = HeldInterrupt(ranks)
        self.mend = f"lower --learning-rate (now {schedule.learning_rate}), or use --precision fp32"

    def fit(
        self,
        show: TrainingProgress,
        after_epoch: AfterEpoch = lambda epoch, value: None,
        checkpoints: Checkpoints | None = None,
    ) -> Fit:
        """Train on the "train" part and choose the epoch on the "val" part; the model ends with its best weights.

        checkpoints: where the run is kept meanwhile; one that was killed goes on there, with the losses and the weights
        that it would have had. Ctrl-C ends the run cleanly, with the best weights so far, and leaves the checkpoints;
        in the first epoch, which has no such weights yet, it raises KeyboardInterrupt. Raises UserError where the loss
        is not a number.
        """
        state = self._resume(checkpoints, show)
        try:
            with self.interrupt:
                self._run(state, show, after_epoch, checkpoints)
        except KeyboardInterrupt:
            state.fit.ended = f"{INTERRUPTED} {len(state.fit.history) + 1}"
            goes_on = checkpoints is not None and checkpoints.keep()
            later = "; the same command goes on from the last checkpoint" if goes_on else ""
            if not state.fit.best_epoch:
                show.say(f"interrupted in the first epoch: there is no model to keep yet{later}")
                raise
            show.say(f"interrupted: keeping the weights of epoch {state.fit.best_epoch}{later}")
        restore(self.model, state.best)
        return state.fit

    def _run(
        self, state: State, show: TrainingProgress, after_epoch: AfterEpoch, checkpoints: Checkpoints | None
    ) -> None:
        """Epoch after epoch, until the run has ended."""
        result, sign = state.fit, 1 if higher_is_better(self.schedule.metric) else -1
        while not result.ended:
            epoch, started = len(result.history) + 1, time.perf_counter() - state.seconds
            batches = self.epoch_batches(epoch)
            for batch in batches[len(state.losses) :]:
                state.losses.append(self.step(batch, state.step, epoch, show))
                state.step += 1
                if self._is_due(checkpoints):
                    state.seconds = time.perf_counter() - started
                    kept = self._kept(state)
                    if checkpoints is not None:
                        checkpoints.save(state.step, kept)
            show.validating(epoch)
            value = self.validate()
            is_best = result.best_value is None or sign * value > sign * result.best_value
            seconds = time.perf_counter() - started
            loss = float(np.mean(state.losses))
            result.history.append({"epoch": epoch, "loss": loss, self.schedule.metric: value, "seconds": seconds})
            show.epoch(epoch, loss=loss, value=value, seconds=seconds, is_best=is_best)
            if is_best:
                result.best_epoch, result.best_value, state.best = epoch, value, snapshot(self.model)
            state.losses, state.seconds = [], 0.0
            result.ended = self._end(result, epoch) or after_epoch(epoch, value) or ""

    def _end(self, result: Fit, epoch: int) -> str:
        """Why the run ends after this epoch; empty where it goes on."""
        if epoch - result.best_epoch >= self.schedule.patience:
            return f"no better {self.schedule.metric} for {self.schedule.patience} epochs"
        return "all epochs done" if epoch == self.schedule.epochs else ""

    def _resume(self, checkpoints: Checkpoints | None, show: TrainingProgress) -> State:
        """The state of a run that was killed, put back into model and optimiser; else that of one that begins.

        The first rank's is that of all.
        """
        found = shared(None if checkpoints is None else checkpoints.latest(show.say), self.ranks)
        if found is None:
            self.ranks.take_from_first(self.model.trained_state())
            return State(Fit(), best=snapshot(self.model))
        state = put_back(found, self.model, self.optimizer, self.parameters)
        self.token_budget = min(self.token_budget, found.position["token_budget"])
        self.halved = found.position["halved"]
        show.resume(state.step)
        show.say(f"going on after step {state.step} of {self.num_steps} (epoch {len(state.fit.history) + 1})")
        return state

    def _is_due(self, checkpoints: Checkpoints | None) -> bool:
        """Whether the state is to be kept now; where weights are shared out, each rank has to give its share."""
        is_due = checkpoints is not None and checkpoints.is_due()
        return self.ranks.document_from_first(is_due) if self.ranks.shards else is_due

    def _kept(self, state: State) -> Snapshot:
        kept = keep_state(state, self.model, self.optimizer, self.parameters, is_wanted=self.ranks.is_first)
        return replace(kept, position=kept.position | {"token_budget": self.token_budget, "halved": self.halved})

    def epoch_batches(self, epoch: int) -> list[np.ndarray]:
        """Rows of the examples of each step; around shared proteins where a pair's proteins must be encoded.

        The schedule's `pair_steps` may ask for random steps there too.
        """
        generator = np.random.default_rng([self.schedule.seed, epoch])
        size, is_pair = self.schedule.batch_examples, self.train.members_NK.shape[1] == 2
        if is_pair and self.table_PD is None and self.schedule.pair_steps == "shared":
            strata_N = self.train.targets if self.train.kind in ("binary", "multiclass") else None
            return pair_batches(
                self.train.members_NK, self.tokens_P, batch_examples=size, generator=generator, strata_N=strata_N
            )
        if self.schedule.sampling == "clusters":
            return cluster_batches(self.train.member_groups()[:, 0], batch_examples=size, generator=generator)
        return plain_batches(len(self.train), batch_examples=size, generator=generator)

    def step(self, batch: np.ndarray, step: int, epoch: int, show: TrainingProgress) -> float:
        """One optimiser step over the examples in `batch`; the loss."""
        self.model.model.train()
        self.model.head.train()
        rate = learning_rate_at(
            step,
            num_steps=self.num_steps,
            peak=self.schedule.learning_rate,
            warmup_fraction=self.schedule.warmup_fraction,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss = self.gradient(batch, step, show)
        norm = clip_gradients(self.parameters, self.schedule.clip_norm, self.ranks)
        for what, number in (("loss", loss), ("gradient", norm)):
            if not math.isfinite(number):
                ids = [self.train.proteins.ids[row] for row in np.unique(self.train.members_NK[batch])[:5]]
                raise UserError(
                    f"the {what} of step {step + 1} (epoch {epoch}) is {number}: {self.mend}; "
                    f"the step's first proteins: {', '.join(ids)}"
                )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if (step + 1) % STEPS_PER_TRIM == 0:
            trim(self.device)
        show.step(epoch, loss, int(self.tokens_P[np.unique(self.train.members_NK[batch])].sum()))
        return loss

    def gradient(self, batch: np.ndarray, step: int, show: TrainingProgress) -> float:
        """The loss and its gradient; where memory runs out, once in a run, with half the token budget from then on.

        Raises KeyboardInterrupt on every rank where Ctrl-C was pressed and held back on one.
        """
        own = dealt_examples(batch, self.ranks)
        targets = self.targets[torch.from_numpy(own).to(self.device)]

        def loss_of(vectors_BKD: Tensor) -> Tensor:
            if not len(own):
                return vectors_BKD.sum()  # nothing, and its gradient nothing too
            loss = loss_of_logits(self.model.head(vectors_BKD), targets, self.model.target)
            return loss * (len(own) / len(batch))

        seed = int(np.random.SeedSequence([self.schedule.seed, step, self.ranks.rank]).generate_state(1)[0])
        try:
            loss = self._backward(batch, loss_of, seed)
        except torch.OutOfMemoryError as error:
            if self.halved or self.ranks.shards:
                raise UserError(
                    f"out of memory with {self.token_budget} tokens at once: lower --token-budget or --max-residues, "
                    "add --checkpoint-layers, or adapt fewer layers"
                ) from error
            self.halved = True
        else:
            loss, num_interrupted = self.ranks.sum_numbers([loss, float(self.interrupt.came)])
            if num_interrupted:
                raise KeyboardInterrupt
            self.ranks.sum_gradients(self.parameters)
            return loss
        self.token_budget //= 2
        self.optimizer.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        show.say(f"out of memory: going on with half the tokens at once ({self.token_budget})")
        return self.gradient(batch, step, show)

    def _backward(self, batch: np.ndarray, loss_of: LossOfMembers, seed: int) -> float:
        """This rank's part of the loss, and of its gradient; vectors that are only looked up need no other rank."""
        members_BK = self.train.members_NK[batch]
        if self.table_PD is not None:
            members_BK = dealt_examples(members_BK, self.ranks)
            return backward(self.encode, loss_of, self.plan(members_BK), seed=seed)
        return backward(self.encode, loss_of, self.plan(members_BK), seed=seed, ranks=self.ranks)

    def plan(self, members_BK: np.ndarray) -> StepPlan:
        """How a step over these examples is encoded; where the vectors are only looked up, in one part."""
        if self.table_PD is not None:
            return plan_step(members_BK, self.tokens_P, token_budget=int(self.tokens_P.sum()))
        return plan_step(
            members_BK,
            self.tokens_P,
            token_budget=self.token_budget,
            call_tokens=encoding_budget(self.token_budget, self.device),
            ranks=self.ranks,
        )

    def encode(self, rows: np.ndarray) -> Tensor:
        """Vectors of proteins, with gradient where the backbone is trained."""
        if self.table_PD is not None:
            return self.table_PD[torch.from_numpy(rows).to(self.device)]
        if not len(rows) and self.encoder.is_sharded:  # the other ranks need this one's share of the weights
            return self.encoder.vectors([self.pieces[self.tokens_P.argmin()]])[:0]
        if not len(rows):
            return torch.zeros(0, self.encoder.width, device=self.device, requires_grad=True)
        return self.encoder.vectors([self.pieces[row] for row in rows])

    def validate(self) -> float:
        """The validation metric, each validation protein encoded once."""
        rows, members_NK = np.unique(self.validation.members_NK, return_inverse=True)
        if self.vectors_PD is not None:
            vectors_PD = self.vectors_PD[rows]
        else:
            pieces = [self.pieces[row] for row in rows]
            budget = encoding_budget(self.token_budget, self.device)
            vectors_PD = embed_together(self.encoder, pieces, self.ranks, token_budget=budget)
        scores = score_examples(self.model, vectors_PD, members_NK.reshape(self.validation.members_NK.shape))
        if not np.isfinite(scores).all():
            raise UserError(f"the validation scores of an epoch are no numbers: {self.mend}")
        assert self.validation.targets is not None
        values = measure(self.validation.kind, self.validation.targets, scores, classes=self.validation.classes)
        if self.schedule.metric not in values:
            raise UserError(
                f"metric {self.schedule.metric} is not defined on the validation examples; "
                f"choose one of {', '.join(name for name in METRIC_NAMES[self.validation.kind] if name in values)}"
            )
        return self.ranks.document_from_first(values[self.schedule.metric])  # to the last bit on every rank

"""What must hold for any model on any machine, tried on a few random proteins: the checks of `peftide doctor`.

Each function returns what it saw, in words, and raises `CheckFailedError` with the reason where it does not hold.
Shapes: P proteins, N examples, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from peftide.data.sequences import RESIDUES
from peftide.data.writers import temporary_folder
from peftide.inference.embed import embed_proteins
from peftide.inference.encoder import Encoder, encoder_of
from peftide.inference.predict import score_examples
from peftide.models.bundle import load_bundle, save_bundle
from peftide.models.machine import Machine
from peftide.models.property_model import PropertyModel, train_all_weights
from peftide.models.target import Target
from peftide.models.target import loss as loss_of_logits
from peftide.models.tokens import Pieces
from peftide.records import Proteins
from peftide.training.optimizer import make_optimizer
from peftide.training.state import restore, snapshot
from peftide.training.step import backward, plan_step

LENGTHS = (61, 7, 150, 33, 1, 98, 210, 18)  # residues of the proteins to try
NUM_EXAMPLES, NUM_STEPS = 12, 3
TOKEN_BUDGET = 400  # less than all proteins have, so that a step takes several parts
LEARNING_RATE = 1e-3
# Largest difference of two vectors over their length that rounding explains
ROUNDING = {"fp32": 1e-4, "bf16": 5e-2}


class CheckFailedError(Exception):
    """Something that must hold does not; the message is the reason."""


@dataclass(frozen=True)
class Trial:
    """A model on a machine, ready to be trained, and examples of its task made up for it.

    pieces: of the proteins (P,); members_NK: rows into them; targets: of the examples, as `Dataset` holds them;
    token_budget: tokens to encode at once.
    """

    model: PropertyModel
    encoder: Encoder
    machine: Machine
    pieces: list[Pieces]
    members_NK: np.ndarray
    targets: Tensor
    token_budget: int


def make_trial(model: PropertyModel, machine: Machine, *, token_budget: int | None, compile_layers: bool) -> Trial:
    """Place a model, with all that its method trains made trainable, beside random proteins and examples."""
    generator = np.random.default_rng(0)
    sequences = tuple("".join(generator.choice(list(RESIDUES[:20]), length)) for length in LENGTHS)
    ids = tuple(f"random-{length}" for length in LENGTHS)
    arity = model.head_shape.arity
    rows = [generator.choice(len(ids), arity, replace=False) for _ in range(NUM_EXAMPLES)]
    model.head.requires_grad_(True)
    for name, parameter in model.model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    if model.method == "full":
        train_all_weights(model.model)
    encoder = encoder_of(model, machine, compile_layers=compile_layers)
    model.head.to(machine.device)
    return Trial(
        model=model,
        encoder=encoder,
        machine=machine,
        pieces=model.pieces(Proteins(ids, sequences)),
        members_NK=np.array(rows),
        targets=_targets(model.target, generator).to(machine.device),
        token_budget=token_budget or TOKEN_BUDGET,
    )


def _targets(target: Target, generator: np.random.Generator) -> Tensor:
    if target.kind == "multiclass":
        return torch.from_numpy(generator.integers(len(target.classes), size=NUM_EXAMPLES))
    if target.kind == "regression":
        return torch.from_numpy(generator.normal(target.center, target.scale, NUM_EXAMPLES).astype(np.float32))
    shape = (NUM_EXAMPLES, len(target.classes)) if target.kind == "multilabel" else (NUM_EXAMPLES,)
    return torch.from_numpy(generator.integers(2, size=shape).astype(np.float32))


@torch.inference_mode()
def packed_equals_single(trial: Trial) -> str:
    """Proteins encoded together have the vectors of each by itself."""
    trial.model.model.eval()
    together_PD = trial.encoder.vectors(trial.pieces)
    alone_PD = torch.cat([trial.encoder.vectors([piece]) for piece in trial.pieces])
    return _compare(together_PD, alone_PD, trial.machine, f"{len(trial.pieces)} proteins, together and each alone")


@torch.inference_mode()
def equals_stock(trial: Trial) -> str:
    """The hidden states of every layer that the model pools are those of the stock model of transformers."""
    trial.model.model.eval()
    ours, theirs = [], []
    for protein in trial.pieces:
        states_TD, batch = trial.encoder.hidden([protein])
        ids = batch.ids_T[None, : batch.lengths[0]]
        stock = trial.model.model(input_ids=ids, attention_mask=torch.ones_like(ids), output_hidden_states=True)
        of_layers = torch.cat([stock.hidden_states[layer][0] for layer in trial.encoder.state_layers], dim=-1)
        ours.append(states_TD[: batch.lengths[0]].float().mean(dim=0))
        theirs.append(of_layers.float().mean(dim=0))
    return _compare(torch.stack(ours), torch.stack(theirs), trial.machine, "mean states, ours and stock transformers'")


def _compare(found_PD: Tensor, expected_PD: Tensor, machine: Machine, what: str) -> str:
    found_PD, expected_PD = found_PD.double().cpu(), expected_PD.double().cpu()
    difference = ((found_PD - expected_PD).norm(dim=1) / expected_PD.norm(dim=1)).max().item()
    said = f"{what}: largest difference {difference:.1e}, {ROUNDING[machine.precision]:g} allowed"
    if not difference <= ROUNDING[machine.precision]:  # nor where it is NaN
        raise CheckFailedError(said)
    return said


def _vectors(trial: Trial) -> np.ndarray:
    return embed_proteins(trial.encoder, trial.pieces, token_budget=trial.token_budget)


def order_does_not_matter(trial: Trial) -> str:
    """The score of (A, B) is that of (B, A), to the last bit."""
    if trial.members_NK.shape[1] == 1:
        return "one protein per example, so there is no order"
    vectors_PD = _vectors(trial)
    there = score_examples(trial.model, vectors_PD, trial.members_NK)
    back = score_examples(trial.model, vectors_PD, np.ascontiguousarray(trial.members_NK[:, ::-1]))
    if not np.array_equal(there, back):
        raise CheckFailedError(f"scores of (A, B) and (B, A) differ by up to {np.abs(there - back).max():.1e}")
    return f"{len(there)} pairs have the same scores either way round"


def scores_are_numbers(trial: Trial) -> str:
    """Scores are finite, and probabilities between 0 and 1."""
    scores = score_examples(trial.model, _vectors(trial), trial.members_NK)
    if not np.isfinite(scores).all():
        raise CheckFailedError(f"{int((~np.isfinite(scores)).sum())} of {scores.size} scores are NaN or infinite")
    if trial.model.target.kind != "regression" and (scores.min() < 0 or scores.max() > 1):
        raise CheckFailedError(f"probabilities from {scores.min():.3g} to {scores.max():.3g}")
    return f"{scores.size} scores, from {scores.min():.3g} to {scores.max():.3g}"


def round_trip_is_exact(trial: Trial) -> str:
    """A model that is written as a bundle and read again scores the same, to the last bit."""
    model, machine = trial.model, trial.machine
    before = score_examples(model, _vectors(trial), trial.members_NK)
    with temporary_folder(what="doctor") as folder:
        save_bundle(folder / "bundle", model, {})
        read = load_bundle(folder / "bundle", dtype=machine.dtype)
    encoder = encoder_of(read, machine)
    read.head.to(machine.device)
    vectors_PD = embed_proteins(encoder, trial.pieces, token_budget=trial.token_budget)
    after = score_examples(read, vectors_PD, trial.members_NK)
    if not np.array_equal(before, after):
        raise CheckFailedError(f"scores differ by up to {np.abs(before - after).max():.1e} once written and read")
    return f"{'adapter and head' if model.method == 'lora' else model.method} written and read: the same scores"


def every_matrix_learns(trial: Trial) -> str:
    """One backward pass gives each trained weight a gradient that is neither zero nor infinite."""
    model, trained = trial.model, _trained(trial)
    model.model.train()
    model.head.train()
    try:
        _gradient(trial, seed=0)
        idle = [name for name, weight in trained.items() if weight.grad is None or not weight.grad.any()]
        wild = [
            name for name, weight in trained.items() if weight.grad is not None and not weight.grad.isfinite().all()
        ]
    finally:
        model.model.zero_grad(set_to_none=True)
        model.head.zero_grad(set_to_none=True)
    for names, what in ((wild, "a gradient that is NaN or infinite"), (idle, "no gradient")):
        if names:
            raise CheckFailedError(f"{len(names)} of {len(trained)} trained weights get {what}, such as {names[0]}")
    num_adapters = sum("lora_" in name for name in trained)
    return f"all of {num_adapters} adapter matrices and {len(trained) - num_adapters} other weights get a gradient"


def same_seed_same_losses(trial: Trial) -> str:
    """A few steps of training from the same start, with the same seed, lose the same: bit for bit on a CPU."""
    start = snapshot(trial.model)
    runs = []
    for _ in range(2):
        runs.append(_losses(trial))
        restore(trial.model, start)
    first, second = np.array(runs)
    if not np.isfinite(first).all():
        raise CheckFailedError(f"losses that are no numbers: {', '.join(map(str, first))}")
    difference = np.abs(first / second - 1).max()
    allowed = 0.0 if trial.machine.device.type == "cpu" else ROUNDING[trial.machine.precision]
    said = f"{NUM_STEPS} steps twice: the losses differ by {difference:.1e} of their size, {allowed:g} allowed"
    if difference > allowed:
        raise CheckFailedError(said)
    return said


def _losses(trial: Trial) -> list[float]:
    model = trial.model
    model.model.train()
    model.head.train()
    optimizer = make_optimizer([model.model, model.head], learning_rate=LEARNING_RATE, weight_decay=0.01)
    losses = []
    for step in range(NUM_STEPS):
        losses.append(_gradient(trial, seed=step))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses


def _gradient(trial: Trial, *, seed: int) -> float:
    """Add the gradient of the mean loss over the examples; the loss."""
    model = trial.model
    tokens_P = np.array([protein.num_tokens for protein in trial.pieces])

    def encode(rows: np.ndarray) -> Tensor:
        return trial.encoder.vectors([trial.pieces[row] for row in rows])

    def loss_of(vectors_NKD: Tensor) -> Tensor:
        return loss_of_logits(model.head(vectors_NKD), trial.targets, model.target)

    return backward(encode, loss_of, plan_step(trial.members_NK, tokens_P, token_budget=trial.token_budget), seed=seed)


def _trained(trial: Trial) -> dict[str, torch.nn.Parameter]:
    parts = {"model": trial.model.model, "head": trial.model.head}
    named = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
    return {name: weight for name, weight in named.items() if weight.requires_grad}


MODEL_CHECKS: dict[str, Callable[[Trial], str]] = {
    "packed equals single": packed_equals_single,
    "equals stock transformers": equals_stock,
    "order of a pair": order_does_not_matter,
    "scores are numbers": scores_are_numbers,
    "save and load": round_trip_is_exact,
    "gradients": every_matrix_learns,
    "determinism": same_seed_same_losses,
}

"""One training task for all: the same pairs, adapters, head and weights for the stock recipes and for peftide.

Shapes: N pairs.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from torch import nn

from pairs import PairSet
from peers import PAPER, Recipe, StockTrainer, careful_recipe, copy_trained, paper_head, stock_lora
from peftide.config import TrainSettings, parse_layers
from peftide.models.machine import Machine
from peftide.training.resident import give_back
from rounds import Unit, Variant
from subjects import cut_all, encoding_cost, load_subject, weight_bytes
from techniques import Cache, Product, Technique, make_product, open_cache, product_variant, take_gradient_norm

NUM_CHECKED = 8  # pairs whose loss and gradient every variant must get right
# In float32 all compute the same, in another order of summation; bfloat16 rounds to 8 bits in every layer.
TOLERANCES = {True: (1e-5, 1e-3), False: (0.02, 0.1)}  # by exactness: of the loss, and relative of the gradient norm
EVERY_TECHNIQUE = Technique(
    "every technique in float32",
    "cached, each protein once per step, in several parts",
    batch_examples=NUM_CHECKED,
    is_exact=True,
    is_cached=True,
    is_once=True,
    is_around=True,
)


@dataclass(frozen=True)
class Contest:
    """The contestants, ready: stock models and peftide's, all with the same adapters and head.

    exact, fast: peftide in float32, and in the machine's best arithmetic (the same object where that is float32).
    """

    machine: Machine
    pairs: PairSet
    stock: PeftModel
    stock_head: nn.Sequential
    exact: Product
    fast: Product
    cache: Cache | None
    cache_note: str
    check_rows: np.ndarray

    @property
    def has_bf16(self) -> bool:
        """Whether peftide computes in bfloat16 here."""
        return self.fast is not self.exact


@contextmanager
def open_contest(settings: TrainSettings, machine: Machine, pairs: PairSet) -> Iterator[Contest]:
    """Build all models on the device, and the cache in a temporary folder.

    settings: of peftide, with the paper's head; backbone, adapted layers, seed, max_residues and token_budget count
    for all. The models, but not what is measured with them, fit in memory together.
    """
    device = machine.device
    give_back(device)  # what an earlier contest held
    backbone = load_subject(settings.backbone, device)
    stock = stock_lora(backbone.model, parse_layers(settings.lora_layers, backbone.num_layers))
    head = paper_head(backbone.width).to(device)
    pieces = cut_all(pairs.sequences, backbone, max_residues=settings.max_residues)
    exact = fast = make_product(backbone, Machine(device, torch.float32), pairs, pieces, settings)
    if machine.dtype != torch.float32:
        fast = make_product(load_subject(settings.backbone, device), machine, pairs, pieces, settings)
    _share_weights(exact, fast, stock, head)
    rows = checked_pairs(pairs, np.array([protein.num_tokens for protein in pieces]))
    with tempfile.TemporaryDirectory(prefix="peftide-benchmark-") as folder:
        cache, note = open_cache(fast, folder, limit_bytes=int(settings.cache_limit_gb * 1e9))
        note = note.replace(folder, "a temporary folder")
        try:
            yield Contest(machine, pairs, stock, head, exact, fast, cache, note, rows)
        finally:
            if cache is not None:
                cache.store.close()


@torch.no_grad()
def _share_weights(exact: Product, fast: Product, stock: nn.Module, head: nn.Sequential) -> None:
    """The same adapters and head for all; B is not zero as in fresh adapters, so that A has a gradient to compare."""
    for name, parameter in exact.model.model.named_parameters():
        if "lora_B" in name:
            parameter.normal_(std=0.02)
    copy_trained(exact.model.model, stock)
    head.load_state_dict(exact.model.head.layers.state_dict())
    if fast is not exact:
        copy_trained(exact.model.model, fast.model.model)
        fast.model.head.load_state_dict(exact.model.head.state_dict())


def checked_pairs(pairs: PairSet, tokens_P: np.ndarray) -> np.ndarray:
    """Rows of a few pairs, rather short ones, half of them around the protein that has the most."""
    hub = np.bincount(pairs.members_N2.ravel()).argmax()
    around_hub = np.flatnonzero((pairs.members_N2 == hub).any(axis=1))[: NUM_CHECKED // 2]
    by_length = np.argsort(tokens_P[pairs.members_N2].sum(axis=1), kind="stable")
    others = by_length[len(by_length) // 4 :][: NUM_CHECKED // 2]
    return np.union1d(around_hub, others)


def stock_variants(contest: Contest) -> list[Variant]:
    """The paper's recipe, and the careful one."""
    careful = careful_recipe(contest.machine.device, contest.machine.dtype if contest.has_bf16 else None)
    return [
        _stock_variant("paper", "as published: stock EsmModel + peft, 4 padded pairs, float32", PAPER, contest),
        _stock_variant(
            "stock-bf16-sorted" if contest.has_bf16 else "stock-sorted",
            f"stock tools used with care: {careful.pairs_at_once} pairs of similar length"
            + (", bfloat16 autocast" if contest.has_bf16 else ""),
            careful,
            contest,
        ),
    ]


def _stock_variant(name: str, meaning: str, recipe: Recipe, contest: Contest) -> Variant:
    pairs, device, product = contest.pairs, contest.machine.device, contest.exact
    tokens = [protein.tokens[0] for protein in product.pieces]
    trainer = StockTrainer(contest.stock, contest.stock_head, recipe, tokens=tokens, device=device)
    targets_N = torch.from_numpy(pairs.targets_N).to(device)

    def unit(rows: np.ndarray) -> Unit:
        lengths = trainer.padded_lengths(pairs.members_N2[rows])
        return Unit(rows, encoding_cost(product.model.backbone, lengths), int(lengths.sum()))

    def run(unit: Unit) -> None:
        trainer.step(pairs.members_N2[unit.rows], targets_N[torch.from_numpy(unit.rows).to(device)])

    def check() -> np.ndarray:
        trainer.model.eval()
        total = 0.0
        for rows in np.array_split(contest.check_rows, max(1, len(contest.check_rows) // 4)):
            share = len(rows) / len(contest.check_rows)
            loss = share * trainer.loss(pairs.members_N2[rows], targets_N[torch.from_numpy(rows).to(device)])
            loss.backward()
            total += loss.item()
        return np.array([total, take_gradient_norm(trainer.parameters)])

    batches = trainer.order(pairs.members_N2, np.random.default_rng(product.settings.seed))
    resident_bytes = weight_bytes(contest.stock, contest.stock_head)
    return Variant(
        name, meaning, [unit(rows) for rows in batches], run, check, resident_bytes, is_exact=recipe.autocast is None
    )


def check_agreement(contest: Contest, variants: Sequence[Variant]) -> dict[str, dict[str, float]]:
    """Loss and gradient norm of the checked pairs in every variant, and with every technique on in float32; no dropout.

    Raises AssertionError where one is not that of the paper's recipe.
    """
    findings = {variant.name: (variant.check(), variant.is_exact) for variant in variants}
    findings[EVERY_TECHNIQUE.name] = (_check_every_technique(contest), True)
    (expected_loss, expected_norm), _ = findings["paper"]
    for name, ((loss, norm), is_exact) in findings.items():
        of_loss, of_norm = TOLERANCES[is_exact]
        assert abs(loss - expected_loss) <= of_loss, f"{name}: loss {loss}, not {expected_loss}"
        assert abs(norm / expected_norm - 1) <= of_norm, f"{name}: gradient norm {norm}, not {expected_norm}"
    return {name: {"loss": float(loss), "gradient_norm": float(norm)} for name, ((loss, norm), _) in findings.items()}


def _check_every_technique(contest: Contest) -> np.ndarray:
    exact = contest.exact
    used = np.unique(exact.pairs.members_N2[contest.check_rows])
    pairs, pieces = exact.pairs.subset(contest.check_rows), [exact.pieces[row] for row in used]
    execution = replace(exact.execution, token_budget=max(protein.num_tokens for protein in pieces))
    small = replace(exact, pairs=pairs, pieces=pieces, execution=execution)
    with tempfile.TemporaryDirectory(prefix="peftide-benchmark-") as folder:
        cache, _ = open_cache(small, folder, limit_bytes=10**9)
        try:
            return product_variant(EVERY_TECHNIQUE, small, cache, np.arange(len(pairs))).check()
        finally:
            if cache is not None:
                cache.store.close()

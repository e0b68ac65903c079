"""The stock recipes: transformers' EsmModel and peft as their manuals have them, padded batches, nothing of peftide.

Shapes: B sequences or pairs of a batch, L tokens of the longest, D width.
"""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import EsmModel

HEAD_WIDTH = 128
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM = 1e-3, 0.01, 0.2
RANK, ALPHA, DROPOUT = 8, 32, 0.1


@dataclass(frozen=True)
class Recipe:
    """How pairs are fed.

    pairs_at_once: of a micro-batch; num_accumulated: micro-batches of an optimiser step; autocast: arithmetic of
    `torch.autocast`, None: float32; is_sorted: pairs of similar lengths together, the shorter protein of each first.
    """

    pairs_at_once: int
    num_accumulated: int
    autocast: torch.dtype | None
    is_sorted: bool


PAPER = Recipe(pairs_at_once=4, num_accumulated=16, autocast=None, is_sorted=False)


def careful_recipe(device: torch.device, autocast: torch.dtype | None) -> Recipe:
    """What a good user of the stock tools does: sorted by length, half precision, larger batches on a GPU."""
    pairs_at_once = 16 if device.type == "cuda" else 4
    return Recipe(pairs_at_once, 64 // pairs_at_once, autocast, is_sorted=True)


def stock_lora(model: EsmModel, layers: Sequence[int]) -> PeftModel:
    """The paper's LoRA on key and value of these layers, on a copy of the model."""
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=["key", "value"],
        layers_to_transform=list(layers), bias="none",
    )  # fmt: skip
    with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for an attribute that it renamed
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return get_peft_model(copy.deepcopy(model), config)


def paper_head(width: int) -> nn.Sequential:
    """The paper's head over the mean of two protein vectors."""
    return nn.Sequential(nn.Linear(width, HEAD_WIDTH), nn.Tanh(), nn.Linear(HEAD_WIDTH, 1))


def mean_vectors(
    model: EsmModel | PeftModel, tokens: Sequence[np.ndarray], *, pad_id: int | None, device: torch.device
) -> Tensor:
    """Mean over the residues (B, D) of sequences in one batch, padded to the longest, with an attention mask."""
    assert pad_id is not None
    lengths = torch.tensor([len(ids) for ids in tokens])
    ids_BL = torch.full((len(tokens), int(lengths.max())), pad_id)
    for row, ids in enumerate(tokens):
        ids_BL[row, : len(ids)] = torch.from_numpy(ids)
    position_L = torch.arange(ids_BL.shape[1])
    mask_BL = (position_L < lengths[:, None]).long()
    is_residue_BL = (position_L > 0) & (position_L < lengths[:, None] - 1)  # neither <cls> nor <eos>
    shares_BL = (is_residue_BL / (lengths[:, None] - 2)).to(device)
    hidden_BLD = model(input_ids=ids_BL.to(device), attention_mask=mask_BL.to(device)).last_hidden_state
    return (hidden_BLD.float() * shares_BL[..., None]).sum(dim=1)


class StockTrainer:
    """The stock model and head of a recipe, with its optimiser; a resource, not to be subclassed."""

    def __init__(
        self,
        model: PeftModel,
        head: nn.Sequential,
        recipe: Recipe,
        *,
        tokens: Sequence[np.ndarray],
        device: torch.device,
    ):
        """`tokens`: of each protein, ready made, so that no time goes into the slow tokenizer."""
        self.model, self.head, self.recipe, self.tokens, self.device = model, head, recipe, tokens, device
        self.lengths_P = np.array([len(ids) for ids in tokens])
        self.pad_id = model.config.pad_token_id
        self.parameters = [p for module in (model, head) for p in module.parameters() if p.requires_grad]
        decays = [{"params": [p for p in self.parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY}]
        decays.append({"params": [p for p in self.parameters if p.ndim < 2], "weight_decay": 0.0})
        self.optimizer = torch.optim.AdamW(decays, lr=LEARNING_RATE)
        self.num_waiting = 0

    def order(self, members_N2: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
        """Rows of the pairs of each micro-batch of an epoch."""
        size = self.recipe.pairs_at_once
        if not self.recipe.is_sorted:
            rows = generator.permutation(len(members_N2))
            return [rows[start : start + size] for start in range(0, len(rows), size)]
        lengths_N2 = np.sort(self.lengths_P[members_N2], axis=1)
        rows = np.lexsort((lengths_N2[:, 0], lengths_N2[:, 1]))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        return [batches[number] for number in generator.permutation(len(batches))]

    def sides(self, members_B2: np.ndarray) -> np.ndarray:
        """The proteins (B, 2) of a micro-batch, those encoded together in one column."""
        if not self.recipe.is_sorted:
            return members_B2
        return np.take_along_axis(members_B2, self.lengths_P[members_B2].argsort(axis=1), axis=1)

    def padded_lengths(self, members_B2: np.ndarray) -> np.ndarray:
        """Tokens (2 B,) of all sequences of a micro-batch, padding included."""
        longest_2 = self.lengths_P[self.sides(members_B2)].max(axis=0)
        return np.repeat(longest_2, len(members_B2))

    def loss(self, members_B2: np.ndarray, targets_B: Tensor) -> Tensor:
        """Mean loss of a micro-batch; each side of the pairs is a padded batch of its own, as in the paper's code."""
        sides_B2 = self.sides(members_B2)
        with torch.autocast(self.device.type, dtype=self.recipe.autocast, enabled=self.recipe.autocast is not None):
            first_BD, second_BD = (
                mean_vectors(self.model, [self.tokens[row] for row in side], pad_id=self.pad_id, device=self.device)
                for side in sides_B2.T
            )
            logits_B = self.head((first_BD + second_BD) / 2)[:, 0]
        return F.binary_cross_entropy_with_logits(logits_B.float(), targets_B)

    def step(self, members_B2: np.ndarray, targets_B: Tensor) -> None:
        """One micro-batch; every `num_accumulated` of them, a step of the optimiser."""
        self.model.train()
        (self.loss(members_B2, targets_B) / self.recipe.num_accumulated).backward()
        self.num_waiting += 1
        if self.num_waiting == self.recipe.num_accumulated:
            nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.num_waiting = 0


def copy_trained(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the trained weights of `source`, by name."""
    weights = {name: p for name, p in source.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for name, parameter in target.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])

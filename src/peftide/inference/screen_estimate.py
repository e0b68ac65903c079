"""Logits of the default pair head in 8-bit integers: four times the speed of float32.

They only say which pairs are worth a look: what is written is computed again in float32.

Shapes: P proteins, R rows and C columns of a tile, D width, H hidden units, F = 2 D features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from peftide.inference.screen_selection import Pairs, concatenated
from peftide.inference.screen_tiles import gelu_, linear_layers
from peftide.models.heads import Head

EstimateFunction = Callable[[slice, slice, Tensor], None]  # fills (R, C) with estimates of rows R against columns C

STEPS = 255  # of the grid between the least and the largest value of a feature
ESTIMATED_COLUMNS = 1024  # at once; more would leave the caches, fewer repack the weights too often
TRIAL_ROWS, TRIAL_COLUMNS = 64, 16_384
HIGHEST_TRIED, OTHERS_TRIED = 20_000, 80_000


@dataclass(frozen=True)
class Grid:
    """Vectors on an even grid per feature, x = step * (integer + 128) + least, as signed and as unsigned bytes."""

    signed_PD: Tensor
    unsigned_PD: Tensor
    step_D: Tensor
    middle_D: Tensor


def has_fast_integers() -> bool:
    """Whether this processor multiplies bytes faster than it multiplies floats."""
    features = torch.cpu.get_capabilities()
    return any(features.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def make_grid(standard_PD: Tensor) -> Grid:
    """Round each feature to 256 steps over its range."""
    least_D = standard_PD.amin(dim=0)
    step_D = ((standard_PD.amax(dim=0) - least_D) / STEPS).clamp_min(1e-6)
    unsigned_PD = ((standard_PD - least_D) / step_D).round_().clamp_(0, STEPS).to(torch.uint8)
    signed_PD = (unsigned_PD.to(torch.int16) - 128).to(torch.int8)
    return Grid(signed_PD, unsigned_PD, step_D, least_D + 128 * step_D)


@torch.no_grad()
def estimated_tiles(head: Head, vectors_PD: Tensor) -> EstimateFunction:
    """Estimates of the logits of an mlp pair head on a CPU.

    For a fixed protein a the product part of the hidden layer, (a * b) W, is b (diag(a) W): b itself and |a - b|, both
    on the grid, are all the features of a pair, and the mean's part of b goes into the same weights.
    """
    (inner_HF, inner_H), (outer_1H, outer_1) = linear_layers(head)
    standard_PD = (vectors_PD - head.center_D) / head.scale_D
    grid = make_grid(standard_PD)
    mean_HD, difference_HD, product_HD = inner_HF.chunk(3, dim=1)
    half_mean_HD = mean_HD / 2
    own_PH = F.linear(standard_PD, half_mean_HD, inner_H)
    difference_HD = difference_HD * grid.step_D
    largest_H = difference_HD.abs().amax(dim=1)
    width, num_hidden, num_columns = standard_PD.shape[1], len(inner_H), ESTIMATED_COLUMNS

    def weights_of(row: int) -> tuple[Tensor, Tensor, Tensor]:
        """Integer weights (F, H) of the features of all pairs with one protein, their scale (H,) and the rest (H,)."""
        weights_HF = torch.empty(num_hidden, 2 * width)
        factor_HD = torch.addcmul(half_mean_HD, product_HD, standard_PD[row], out=weights_HF[:, :width])
        rest_H = own_PH[row] + factor_HD @ grid.middle_D
        factor_HD *= grid.step_D
        weights_HF[:, width:] = difference_HD
        scale_H = torch.maximum(factor_HD.abs().amax(dim=1), largest_H).clamp_min_(1e-30) / 127
        weights_HF.div_(scale_H[:, None]).round_()
        rest_H += 128 * scale_H * weights_HF[:, width:].sum(dim=1)
        return weights_HF.to(torch.int8).T, scale_H, rest_H

    @torch.no_grad()
    def fill(rows: slice, columns: slice, out_RC: Tensor) -> None:
        weights_R = [weights_of(row) for row in range(rows.start, rows.stop)]
        features = torch.empty(num_columns, 2 * width, dtype=torch.int8)
        larger = torch.empty(num_columns, width, dtype=torch.int8)
        smaller = torch.empty(num_columns, width, dtype=torch.uint8)
        sums = torch.empty(num_columns, num_hidden, dtype=torch.int32)
        hidden = torch.empty(num_columns, num_hidden)
        for start in range(columns.start, columns.stop, num_columns):
            block = slice(start, min(start + num_columns, columns.stop))
            size = block.stop - start
            features[:size, :width] = grid.signed_PD[block]
            for number, (weights_FH, scale_H, rest_H) in enumerate(weights_R):
                row = rows.start + number
                torch.maximum(grid.signed_PD[block], grid.signed_PD[row], out=larger[:size])
                torch.minimum(grid.unsigned_PD[block], grid.unsigned_PD[row], out=smaller[:size])
                # (larger - 128) - smaller = |a - b| - 128, which bytes hold although larger - smaller they do not
                torch.sub(larger[:size], smaller[:size].view(torch.int8), out=features[:size, width:])
                torch._int_mm(features[:size], weights_FH, out=sums[:size])
                gelu_(torch.addcmul(rest_H, hidden[:size].copy_(sums[:size]), scale_H, out=hidden[:size]))
                out_RC[number, start - columns.start :][:size] = hidden[:size] @ outer_1H[0] + outer_1

    return fill


@torch.no_grad()
def coarseness(head: Head, vectors_PD: Tensor) -> Tensor:
    """How coarse the integer weights of each protein are (P,): as its largest feature, in steps of the grid.

    The errors of its estimates as a row grow with it: a protein unlike all others can be estimated 30 times worse.
    """
    standard_PD = (vectors_PD - head.center_D) / head.scale_D
    return (standard_PD.abs() * make_grid(standard_PD).step_D).amax(dim=1)


@torch.no_grad()
def trial_pairs(estimate: EstimateFunction, *, coarse_R: np.ndarray, columns: range) -> Pairs:
    """Some 100,000 pairs, always the same, with their estimates, to see how good those are.

    Of up to 64 rows, half of them the coarsest and half drawn at random, each against up to 16,384 columns, the pairs
    of the highest estimates, which matter most and can be the worst, and others drawn at random.
    """
    generator = np.random.default_rng(0)
    width = min(TRIAL_COLUMNS, len(columns))
    order = np.argsort(-coarse_R, kind="stable")
    coarsest, others = order[: TRIAL_ROWS // 2], order[TRIAL_ROWS // 2 :]
    drawn = generator.choice(others, min(TRIAL_ROWS - len(coarsest), len(others)), replace=False)
    tiles = []
    for row in [*coarsest.tolist(), *drawn.tolist()]:
        start = int(generator.integers(columns.start, columns.stop - width + 1))
        logits_1C = torch.empty(1, width)
        estimate(slice(row, row + 1), slice(start, start + width), logits_1C)
        numbers = np.arange(start, start + width, dtype=np.int32)
        tiles.append(Pairs(np.full(width, row, dtype=np.int32), numbers, logits_1C[0].numpy()))
    pairs = concatenated(tiles)
    highest = np.argsort(-pairs.logits, kind="stable")[:HIGHEST_TRIED]
    others = generator.choice(len(pairs), min(OTHERS_TRIED, len(pairs)), replace=False)
    return pairs.where(np.union1d(highest, others))

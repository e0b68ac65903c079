"""Logits of whole tiles of pairs in float32, from terms that are computed once per protein.

Shapes: P proteins, R rows and C columns of a tile, D width, H hidden units, F features.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from peftide.models.heads import Head

# Fills (R, C) with the logits of rows R against columns C, which may be any, given as a tensor of their numbers
TileFunction = Callable[[slice, slice | Tensor, Tensor], None]

# Columns at once: what is made of them stays in the second-level cache of a CPU core; on a GPU it fills the device
COLUMNS_AT_ONCE = {"cpu": 512, "cuda": 32_768, "mps": 8_192}
PAPER_ROWS = 4  # at once, against so many columns
LARGEST_EXPONENT = 40.0  # the product of two such exponentials is finite in float32, and so is its inverse


@torch.no_grad()
def tile_function(head: Head, vectors_PD: Tensor) -> TileFunction:
    """The logits of a trained pair head with one output, for any tile of the proteins with these vectors.

    The same numbers as `head` gives pair by pair, up to the rounding of float32.
    """
    standard_PD = (vectors_PD - head.center_D) / head.scale_D
    return TILES[head.kind](head, standard_PD)


def _paper_tiles(head: Head, standard_PD: Tensor) -> TileFunction:
    """w.tanh(U(a + b)/2 + u) + c = c + sum(w) - 2 sum_k w_k / (1 + A_k B_k), where A = exp(Ua + u), B = exp(Ub + u).

    One product and one inverse for each hidden unit of a pair instead of a sum and a tanh.
    """
    (inner_HD, inner_H), (outer_1H, outer_1) = linear_layers(head)
    terms_PH = F.linear(standard_PD, inner_HD, inner_H)
    if terms_PH.abs().max() > LARGEST_EXPONENT:
        return _tanh_tiles(head, terms_PH / 2)
    factors_PH = terms_PH.exp()
    weights_H, constant = -2 * outer_1H[0], outer_1 + outer_1H.sum()
    one = factors_PH.new_ones(())
    num_columns = COLUMNS_AT_ONCE[standard_PD.device.type]

    @torch.no_grad()
    def fill(rows: slice, columns: slice | Tensor, out_RC: Tensor) -> None:
        rows_RH = factors_PH[rows]
        buffer = factors_PH.new_empty(min(PAPER_ROWS, len(rows_RH)), num_columns, len(weights_H))
        for start, block_CH in _blocks(factors_PH[columns], num_columns):
            for first, some_RH in _blocks(rows_RH, len(buffer)):
                inverse = buffer[: len(some_RH), : len(block_CH)]
                torch.addcmul(one, some_RH[:, None], block_CH, out=inverse).reciprocal_()
                out_RC[first : first + len(some_RH), start : start + len(block_CH)] = inverse @ weights_H + constant

    return fill


def _tanh_tiles(head: Head, halves_PH: Tensor) -> TileFunction:
    """As `_paper_tiles` for weights so large that the exponentials would overflow: the sum and the tanh themselves."""
    _, (outer_1H, outer_1) = linear_layers(head)
    num_columns = COLUMNS_AT_ONCE[halves_PH.device.type]

    @torch.no_grad()
    def fill(rows: slice, columns: slice | Tensor, out_RC: Tensor) -> None:
        for start, block_CH in _blocks(halves_PH[columns], num_columns):
            for row, one_H in enumerate(halves_PH[rows]):
                hidden_CH = (block_CH + one_H).tanh_()
                out_RC[row, start : start + len(block_CH)] = hidden_CH @ outer_1H[0] + outer_1

    return fill


def _linear_tiles(head: Head, standard_PD: Tensor) -> TileFunction:
    """The mean is a sum of one number per protein, the product a matrix product, the difference one pass per pair."""
    ((weight_1F, bias_1),) = linear_layers(head)
    mean_D, difference_D, product_D = weight_1F[0].chunk(3)
    own_P = standard_PD @ mean_D / 2 + bias_1 / 2
    num_columns = COLUMNS_AT_ONCE[standard_PD.device.type]

    @torch.no_grad()
    def fill(rows: slice, columns: slice | Tensor, out_RC: Tensor) -> None:
        difference = standard_PD.new_empty(num_columns, standard_PD.shape[1])
        for start, block_CD in _blocks(standard_PD[columns], num_columns):
            tile_RC = out_RC[:, start : start + len(block_CD)]
            tile_RC[:] = (standard_PD[rows] * product_D) @ block_CD.T
            for row, one_D in enumerate(standard_PD[rows]):
                difference_CD = torch.sub(block_CD, one_D, out=difference[: len(block_CD)]).abs_()
                tile_RC[row] += difference_CD @ difference_D
        out_RC += own_P[rows, None] + own_P[columns]

    return fill


def _mlp_tiles(head: Head, standard_PD: Tensor) -> TileFunction:
    """The mean's part of the hidden layer is a sum of one vector per protein; difference and product go by pair."""
    (inner_HF, inner_H), (outer_1H, outer_1) = linear_layers(head)
    width = standard_PD.shape[1]
    own_PH = F.linear(standard_PD, inner_HF[:, :width] / 2, inner_H / 2)
    pairwise_FH = inner_HF[:, width:].T.contiguous()
    num_columns = COLUMNS_AT_ONCE[standard_PD.device.type]

    @torch.no_grad()
    def fill(rows: slice, columns: slice | Tensor, out_RC: Tensor) -> None:
        size = min(num_columns, out_RC.shape[1])
        features = standard_PD.new_empty(size, 2 * width)
        hidden = standard_PD.new_empty(size, own_PH.shape[1])
        own_CH = own_PH[columns]
        for start, block_CD in _blocks(standard_PD[columns], num_columns):
            features_CF, hidden_CH = features[: len(block_CD)], hidden[: len(block_CD)]
            for row, (one_D, own_H) in enumerate(zip(standard_PD[rows], own_PH[rows], strict=True)):
                torch.sub(block_CD, one_D, out=features_CF[:, :width]).abs_()
                torch.mul(block_CD, one_D, out=features_CF[:, width:])
                torch.addmm(own_CH[start : start + len(block_CD)], features_CF, pairwise_FH, out=hidden_CH)
                gelu_(hidden_CH.add_(own_H))
                out_RC[row, start : start + len(block_CD)] = hidden_CH @ outer_1H[0] + outer_1

    return fill


def linear_layers(head: Head) -> list[tuple[Tensor, Tensor]]:
    """Weight (outputs, inputs) and bias (outputs,) of each linear layer of a head, in order."""
    return [(layer.weight, layer.bias) for layer in head.layers if isinstance(layer, nn.Linear)]


def gelu_(hidden: Tensor) -> Tensor:
    """GELU in place."""
    return torch.ops.aten.gelu_(hidden)


def _blocks(table: Tensor, size: int) -> list[tuple[int, Tensor]]:
    """The rows of a table, `size` at a time, each block with the number of its first row."""
    return [(number * size, block) for number, block in enumerate(table.split(size))]


TILES: dict[str, Callable[[Head, Tensor], TileFunction]] = {
    "mlp": _mlp_tiles,
    "paper": _paper_tiles,
    "linear": _linear_tiles,
}

"""Frozen hidden states kept on the device itself, where all of them fit: a step then reads no disk and copies nothing.

Shapes: T tokens, D width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

MEMORY_SHARE = 0.4  # of what is free on the device


class DeviceStates:
    """Rows of hidden states by the key of a piece, in one tensor on a GPU."""

    def __init__(self, capacity: int, width: int, *, dtype: torch.dtype, device: torch.device):
        self._rows_CD = torch.empty(capacity, width, dtype=dtype, device=device)
        self._spans: dict[bytes, tuple[int, int]] = {}
        self._used = 0

    @staticmethod
    def fits(num_tokens: int, width: int, *, dtype: torch.dtype, device: torch.device) -> bool:
        """Whether so many rows take no more than a modest share of the device's free memory; never on a CPU, where
        the store's files are in memory already.
        """
        if device.type != "cuda":
            return False
        return num_tokens * width * dtype.itemsize <= MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions in `keys` of pieces that are not here."""
        return [position for position, key in enumerate(keys) if key not in self._spans]

    def put(self, keys: Sequence[bytes], lengths: Sequence[int], hidden_TD: Tensor) -> None:
        """Keep pieces given one after another."""
        start = 0
        for key, length in zip(keys, lengths, strict=True):
            if key not in self._spans:
                self._rows_CD[self._used : self._used + length] = hidden_TD[start : start + length]
                self._spans[key] = (self._used, length)
                self._used += length
            start += length

    def gather(self, keys: Sequence[bytes]) -> Tensor:
        """The rows (T, D) of pieces, all of which are here, one after another."""
        spans = np.array([self._spans[key] for key in keys])
        starts, lengths = spans[:, 0], spans[:, 1]
        before = np.cumsum(lengths) - lengths
        index = np.repeat(starts - before, lengths) + np.arange(lengths.sum())
        return self._rows_CD[torch.from_numpy(index).to(self._rows_CD.device)]

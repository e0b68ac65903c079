"""Which rows repeat an earlier id, found among digests of 8 bytes with little memory."""

import hashlib
from array import array
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Repeats:
    """Rows, each in rising order. same: that repeat an earlier id with the same sequence; others: with another one,
    and firsts: the row where the id of each of these stands first.
    """

    same: np.ndarray
    others: np.ndarray
    firsts: np.ndarray


class RowDigests:
    """Two digests of each row, of its id and of all of it: 16 bytes a row."""

    def __init__(self) -> None:
        self._ids, self._records = array("Q"), array("Q")

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, name: str, record: bytes) -> None:
        """One more row. record: the digest of id and sequence."""
        self._ids.frombytes(hashlib.blake2b(name.encode(), digest_size=8).digest())
        self._records.frombytes(record[:8])

    def repeats(self) -> Repeats:
        """The rows that repeat an id.

        Rows are `same` where both digests, 16 bytes, are; `others` are sure only when their ids have been compared.
        """
        id_N, record_N = np.array(self._ids, np.uint64, copy=None), np.array(self._records, np.uint64, copy=None)
        ordered_N = np.sort(id_N)
        twice = np.unique(ordered_N[1:][ordered_N[1:] == ordered_N[:-1]])
        if not len(twice):
            return Repeats(*[np.empty(0, np.int64)] * 3)
        place_N = np.minimum(np.searchsorted(twice, id_N), len(twice) - 1)
        rows = np.flatnonzero(twice[place_N] == id_N)
        _, first, group = np.unique(id_N[rows], return_index=True, return_inverse=True)
        firsts = rows[first[group]]
        is_same = record_N[rows] == record_N[firsts]
        return Repeats(rows[is_same & (rows != firsts)], rows[~is_same], firsts[~is_same])

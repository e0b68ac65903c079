"""What can be counted in a sequence without any model: composition, length, neighbouring residues; pairs of them.

Shapes: P proteins, N examples, F features of one protein.
"""

import numpy as np

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"


def residue_composition(sequences: tuple[str, ...]) -> np.ndarray:
    """Fractions of the 20 residues and the natural logarithm of the length, (P, 21) float32."""
    table = np.zeros((len(sequences), len(RESIDUES) + 1), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        codes = _codes(sequence)
        table[row, :-1] = np.bincount(codes[codes >= 0], minlength=len(RESIDUES)) / len(sequence)
        table[row, -1] = np.log(len(sequence))
    return table


def dipeptide_composition(sequences: tuple[str, ...]) -> np.ndarray:
    """Square roots of the fractions of the 400 pairs of neighbouring residues, (P, 400) float32.

    The square root evens out the spread of rare and common pairs. Pairs with other letters than the 20 are not counted.
    """
    num_residues = len(RESIDUES)
    table = np.zeros((len(sequences), num_residues**2), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        codes = _codes(sequence)
        first, second = codes[:-1], codes[1:]
        known = (first >= 0) & (second >= 0)
        counts = np.bincount(num_residues * first[known] + second[known], minlength=num_residues**2)
        table[row] = np.sqrt(counts / max(len(sequence) - 1, 1))
    return table


def standardise(table_PF: np.ndarray, *, fitted_on: np.ndarray) -> np.ndarray:
    """Columns shifted and scaled to mean 0 and standard deviation 1 over the rows `fitted_on`, float32."""
    table_PF = table_PF.astype(np.float64)  # in float32 a constant column has a spread, of rounding
    mean_F, spread_F = table_PF[fitted_on].mean(axis=0), table_PF[fitted_on].std(axis=0)
    varies_F = spread_F > 1e-6 * np.maximum(np.abs(mean_F), 1e-3)
    return ((table_PF - mean_F) / np.where(varies_F, spread_F, 1)).astype(np.float32)


def principal_components(table_PF: np.ndarray, *, fitted_on: np.ndarray, num_components: int) -> np.ndarray:
    """The table along the (at most `num_components`) widest directions of the rows `fitted_on`, float32.

    Directions along which these rows do not differ are left out; n rows have n - 1 others at most.
    """
    centred = (table_PF - table_PF[fitted_on].mean(axis=0)).astype(np.float64)
    widths, directions = np.linalg.eigh(centred[fitted_on].T @ centred[fitted_on])
    num_wide = max(1, int((widths > 1e-6 * widths[-1]).sum()))
    return (centred @ directions[:, ::-1][:, : min(num_components, num_wide)]).astype(np.float32)


def example_features(table_PF: np.ndarray, members_NK: np.ndarray) -> np.ndarray:
    """Features of examples: a protein's own; a pair's mean, absolute difference and product, (N, 3F), order-free."""
    if members_NK.shape[1] == 1:
        return table_PF[members_NK[:, 0]]
    first, second = table_PF[members_NK[:, 0]], table_PF[members_NK[:, 1]]
    return np.concatenate([(first + second) / 2, np.abs(first - second), first * second], axis=1)


def _codes(sequence: str) -> np.ndarray:
    """Number of each residue in RESIDUES, -1 for other letters."""
    codes = np.full(256, -1, dtype=np.int64)
    codes[np.frombuffer(RESIDUES.encode(), dtype=np.uint8)] = np.arange(len(RESIDUES))
    return codes[np.frombuffer(sequence.encode("latin-1"), dtype=np.uint8)]

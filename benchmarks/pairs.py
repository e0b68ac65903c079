"""The pairs of a benchmark: read from files or folders, then the choice that makes an epoch.

Shapes: N pairs, P proteins.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.findings import Findings
from peftide.data.proteins import read_proteins
from peftide.data.tables import read_table
from peftide.errors import UserError
from peftide.training.demo import TASKS

# Which table of a folder holds the pairs; its columns are protein_a, protein_b and label.
LAYOUTS = {"yeast": "du_partition.tsv.gz", "bernett": "train.tsv.gz"}
BERNETT_PAIRS_PER_PROTEIN = 76  # 163,192 training pairs over 4,286 proteins
PROTEINS_PER_PAIR = 0.3
POOL_SHRINKAGE = 0.9


@dataclass(frozen=True)
class PairSet:
    """Labelled pairs over a table of proteins.

    source: where they come from, in words; members_N2: rows into `sequences`; targets_N: float32 of 0/1.
    """

    source: str
    sequences: tuple[str, ...]
    members_N2: np.ndarray
    targets_N: np.ndarray

    def __len__(self) -> int:
        return len(self.members_N2)

    def subset(self, rows: np.ndarray) -> "PairSet":
        """The pairs in `rows` over only those proteins that they need."""
        used, members = np.unique(self.members_N2[rows], return_inverse=True)
        sequences = tuple(self.sequences[protein] for protein in used)
        return PairSet(self.source, sequences, members.reshape(-1, 2), self.targets_N[rows])

    def facts(self, *, max_residues: int) -> dict[str, str | int | float]:
        """What the pairs are, for the record, where longer proteins are cropped."""
        lengths = [min(len(sequence), max_residues) for sequence in self.sequences]
        return {
            "source": self.source,
            "pairs": len(self),
            "proteins": len(self.sequences),
            "pairs_per_protein": round(2 * len(self) / len(self.sequences), 2),
            "mean_residues": round(float(np.mean(lengths)), 1),
            "median_residues": float(np.median(lengths)),
        }


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where the proteins and pairs are; the shipped demo data where none is given."""
    data = parser.add_argument_group("data")
    data.add_argument("--data", help="table of pairs (as in `peftide train`)")
    data.add_argument("--sequences", help="FASTA or table with the sequences, where the table of pairs has only ids")
    data.add_argument("--yeast", metavar="FOLDER", help=f"folder with {LAYOUTS['yeast']} and sequences.tsv.gz")
    data.add_argument("--bernett", metavar="FOLDER", help=f"folder with {LAYOUTS['bernett']} and sequences.tsv.gz")


def read_pairs(arguments: argparse.Namespace) -> PairSet:
    """All pairs of the source that the options name.

    Raises UserError where more than one source is named, or where the files cannot be used.
    """
    given = [name for name in ("data", "yeast", "bernett") if getattr(arguments, name)]
    if len(given) > 1:
        raise UserError(f"--{given[0]} and --{given[1]} name two sources of pairs: give one")
    if given and given[0] in LAYOUTS:
        return _read_folder(Path(getattr(arguments, given[0])), LAYOUTS[given[0]])
    settings = TASKS[0].data
    if given:
        settings = DataSettings(data=arguments.data, sequences=arguments.sequences, allow_self_pairs=True)
    dataset = read_dataset(settings)
    assert dataset.targets is not None
    return PairSet(Path(settings.data).name, dataset.proteins.sequences, dataset.members_NK, dataset.targets)


def _read_folder(folder: Path, name: str) -> PairSet:
    """The pairs of one table whose proteins both have a sequence."""
    proteins, _ = read_proteins(str(folder / "sequences.tsv.gz"), column_id="accession", column_sequence="sequence")
    row_of = {protein: row for row, protein in enumerate(proteins.ids)}
    cells = read_table(str(folder / name), findings=Findings()).cells
    names = zip(cells["protein_a"], cells["protein_b"], strict=True)
    members = [(row_of.get(a, -1), row_of.get(b, -1)) for a, b in names]
    targets_N = np.array(cells["label"], dtype=np.float32)
    pairs = PairSet(f"{folder.name}/{name}", proteins.sequences, np.array(members), targets_N)
    return pairs.subset(np.flatnonzero((pairs.members_N2 >= 0).all(axis=1)))


def neighbourhood(pairs: PairSet, *, num_pairs: int, num_proteins: int, generator: np.random.Generator) -> PairSet:
    """`num_pairs` pairs among about `num_proteins` proteins, as a data set of a small study has them.

    The proteins are drawn from those with the most pairs, from as many of them as leave enough pairs among the drawn.
    Fewer pairs come back where the source is too sparse.
    """
    degrees_P = np.bincount(pairs.members_N2.ravel(), minlength=len(pairs.sequences))
    order = np.argsort(-degrees_P, kind="stable")
    num_proteins = min(num_proteins, len(order))
    pool = len(order)
    while True:
        chosen_P = np.zeros(len(order), dtype=bool)
        chosen_P[generator.permutation(order[:pool])[:num_proteins]] = True
        rows = np.flatnonzero(chosen_P[pairs.members_N2].all(axis=1))
        if len(rows) >= num_pairs or pool == num_proteins:
            return pairs.subset(generator.permutation(rows)[:num_pairs])
        pool = max(num_proteins, int(pool * POOL_SHRINKAGE))


def without_shared_proteins(pairs: PairSet, *, num_pairs: int, generator: np.random.Generator) -> PairSet:
    """At most `num_pairs` pairs, no two of which share a protein."""
    used: set[int] = set()
    rows = []
    for row in generator.permutation(len(pairs)):
        a, b = pairs.members_N2[row].tolist()
        if a != b and a not in used and b not in used:
            used.update((a, b))
            rows.append(row)
        if len(rows) == num_pairs:
            break
    return pairs.subset(np.array(rows))


def random_graph(sequences: tuple[str, ...], *, pairs_per_protein: float, generator: np.random.Generator) -> PairSet:
    """Random pairs with random labels, each protein in `pairs_per_protein` of them on average."""
    num_pairs = round(len(sequences) * pairs_per_protein / 2)
    first_N = generator.integers(len(sequences), size=num_pairs)
    second_N = (first_N + generator.integers(1, len(sequences), size=num_pairs)) % len(sequences)
    members_N2 = np.stack([first_N, second_N], axis=1)
    targets_N = generator.integers(2, size=num_pairs).astype(np.float32)
    return PairSet(f"random pairs, {pairs_per_protein:g} a protein", sequences, members_N2, targets_N)


def choose_pairs(pairs: PairSet, arguments: argparse.Namespace, generator: np.random.Generator) -> PairSet:
    """The pairs of an epoch, as the options of `training_speed.py` say."""
    if arguments.bernett_slices:
        if arguments.bernett:
            return pairs
        return random_graph(pairs.sequences, pairs_per_protein=BERNETT_PAIRS_PER_PROTEIN, generator=generator)
    if arguments.no_shared_proteins:
        return without_shared_proteins(pairs, num_pairs=arguments.pairs, generator=generator)
    num_proteins = arguments.proteins or round(arguments.pairs * PROTEINS_PER_PAIR)
    return neighbourhood(pairs, num_pairs=arguments.pairs, num_proteins=num_proteins, generator=generator)

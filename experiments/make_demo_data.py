"""Cut the demo data of the package from Swiss-Prot 2014_01 with GO-derived labels; needs `mmseqs` on the PATH.

    python experiments/make_demo_data.py SOURCES HUMAN src/peftide/data/demo

SOURCES holds yeast_pairs.tsv.gz and human_pairs.tsv.gz (protein_a, protein_b, ...), yeast_sequences.tsv.gz and
human_sequences.tsv.gz (accession, sequence) and go_oligomer_2014.tsv.gz (accession, go_classes, sequence). HUMAN is a
gzipped TSV whose column `accession` lists human proteins. README.md in the output folder says what they are. The same
sources, seed and mmseqs give the same files, byte for byte.
"""

import argparse
import csv
import gzip
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

SPLITS = ("train", "val", "test")
FRACTIONS = np.array([0.56, 0.14, 0.30])
SHORTEST, LONGEST = 40, 500  # residues
IDENTITY, COVERAGE = 0.30, 0.5  # of an alignment, over either protein: what must not lie in two splits
LARGEST_FAMILY = 5  # proteins of one class taken from one family
LARGEST_SHARE = 0.1  # of all examples: a larger component belongs to the training set
HOMOMER, HETEROMER = "homo-oligomer", "hetero-complex"

Hit = tuple[str, str, float, float]  # two proteins, identity, larger of the two coverages


def main() -> None:
    """Read the sources, cut both tasks, write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", type=Path)
    parser.add_argument("human", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    cut_ppi(arguments.sources, arguments.out, np.random.default_rng([arguments.seed, 1]))
    cut_oligomer(arguments.sources, arguments.human, arguments.out, np.random.default_rng([arguments.seed, 2]))


def cut_ppi(sources: Path, out: Path, generator: np.random.Generator) -> None:
    """Co-complex pairs of yeast proteins that are no homologs of each other, and as many drawn negatives.

    Whole components of the graph of pairs and homologs go to one split, so no pair is lost between two. In each split
    the negatives are drawn by shuffling the ends of its positives, so each protein has as many of either.
    """
    sequences = {row["accession"]: row["sequence"] for row in rows(sources / "yeast_sequences.tsv.gz")}
    known = [(row["protein_a"], row["protein_b"]) for row in rows(sources / "yeast_pairs.tsv.gz")]
    short = {name: sequence for name, sequence in sequences.items() if SHORTEST <= len(sequence) <= LONGEST}
    hits = search(short)
    homologs = {frozenset(hit[:2]) for hit in hits}
    pairs = [pair for pair in known if set(pair) <= short.keys() and frozenset(pair) not in homologs]
    names = sorted({name for pair in pairs for name in pair})
    family = families(names, [*close(hits), *pairs])
    split_of = deal(Counter(family[a] for a, _ in pairs), generator)
    forbidden = homologs | {frozenset(pair) for pair in known}
    table = []
    for split in SPLITS:
        positives = [pair for pair in pairs if split_of[family[pair[0]]] == split]
        negatives = shuffle_ends(positives, forbidden, generator)
        table += [(*pair, 1, split) for pair in positives] + [(*pair, 0, split) for pair in negatives]
    order = generator.permutation(len(table))
    write_tsv(out / "ppi_pairs.tsv", ("protein_a", "protein_b", "label", "split"), [table[i] for i in order])
    write_gzip(out / "ppi_proteins.fasta.gz", "".join(f">{name}\n{sequences[name]}\n" for name in names))


def cut_oligomer(sources: Path, human: Path, out: Path, generator: np.random.Generator) -> None:
    """Human homo-oligomers and human subunits of hetero-complexes by GO term, whole families in one split.

    A protein with both annotations is left out, and so is everything not in the list of human proteins, which both
    classes come from: nothing but the annotation may tell them apart.
    """
    people = {row["accession"] for row in rows(human)}
    homomers = {row["accession"]: row["sequence"] for row in rows(sources / "go_oligomer_2014.tsv.gz")}
    heteromers = {row["accession"]: row["sequence"] for row in rows(sources / "human_sequences.tsv.gz")}
    sequences = {
        name: sequence
        for name, sequence in sorted((homomers | heteromers).items())
        if name in people and SHORTEST <= len(sequence) <= LONGEST and (name in homomers) != (name in heteromers)
    }
    label = {name: HOMOMER if name in homomers else HETEROMER for name in sequences}
    names = sorted({sequence: name for name, sequence in reversed(sequences.items())}.values())
    family = families(names, close(search({name: sequences[name] for name in names})))
    kept = thin([names[i] for i in generator.permutation(len(names))], family, label)
    homo_families = Counter(family[name] for name in kept if label[name] == HOMOMER)
    other_families = Counter(family[name] for name in kept if family[name] not in homo_families)
    split_of = deal(homo_families, generator) | deal(other_families, generator)
    table = [(name, sequences[name], label[name], split_of[family[name]]) for name in kept]
    write_gzip(out / "oligomer.tsv.gz", tsv(("id", "sequence", "label", "split"), table))


def thin(names: list[str], family: dict[str, int], label: dict[str, str]) -> list[str]:
    """At most LARGEST_FAMILY proteins of a class from one family, first come."""
    taken: Counter[tuple[int, str]] = Counter()
    kept = []
    for name in names:
        taken[family[name], label[name]] += 1
        if taken[family[name], label[name]] <= LARGEST_FAMILY:
            kept.append(name)
    return kept


def rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a gzipped TSV."""
    csv.field_size_limit(1 << 26)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t")


def search(sequences: dict[str, str]) -> list[Hit]:
    """All against all with mmseqs at its highest sensitivity; hits of a protein with itself left out."""
    with tempfile.TemporaryDirectory() as folder:
        fasta, table = Path(folder) / "proteins.fasta", Path(folder) / "hits.tsv"
        fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in sorted(sequences.items())))
        subprocess.run(
            ["mmseqs", "easy-search", str(fasta), str(fasta), str(table), str(Path(folder) / "work"),
             "-s", "7.5", "-e", "0.001", "--max-seqs", "4000", "--threads", "1", "-v", "1",
             "--format-output", "query,target,fident,qcov,tcov"],
            check=True,
        )  # fmt: skip
        lines = [line.split("\t") for line in table.read_text().splitlines()]
    return [(q, t, float(identity), max(float(a), float(b))) for q, t, identity, a, b in lines if q != t]


def close(hits: Iterable[Hit]) -> list[tuple[str, str]]:
    """Pairs of proteins that may not lie in two splits."""
    return [(a, b) for a, b, identity, coverage in hits if identity >= IDENTITY and coverage >= COVERAGE]


def families(names: list[str], links: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Connected components of the links."""
    index = {name: i for i, name in enumerate(names)}
    ends = np.array([(index[a], index[b]) for a, b in links if a in index and b in index]).reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(names), len(names)))
    return dict(zip(names, connected_components(graph, directed=False)[1].tolist(), strict=True))


def deal(sizes: Counter[int], generator: np.random.Generator) -> dict[int, str]:
    """Families to splits at random, one only where it does not overfill by more than half of itself; giants train."""
    order = [sorted(sizes)[i] for i in generator.permutation(len(sizes))]
    wanted, got, split_of = FRACTIONS * sizes.total(), np.zeros(3), {}
    for family in sorted(order, key=lambda family: sizes[family] <= LARGEST_SHARE * sizes.total()):
        lack = wanted - got
        if sizes[family] > LARGEST_SHARE * sizes.total():
            lack = np.array([sizes[family], 0, 0])
        fitting = [i for i in range(3) if lack[i] >= sizes[family] / 2] or [int(lack.argmax())]
        weights = np.maximum(lack[fitting], 1e-9)
        choice = int(generator.choice(fitting, p=weights / weights.sum()))
        got[choice] += sizes[family]
        split_of[family] = SPLITS[choice]
    return split_of


def shuffle_ends(
    positives: list[tuple[str, str]], forbidden: set[frozenset[str]], generator: np.random.Generator
) -> list[tuple[str, str]]:
    """As many new pairs, every protein as often as in the positives; none forbidden, repeated or with itself."""
    ends = [name for pair in positives for name in pair]
    drawn = [(ends[i], ends[j]) for i, j in generator.permutation(len(ends)).reshape(-1, 2)]
    for _ in range(200_000):
        counts = Counter(frozenset(pair) for pair in drawn)
        bad = [i for i, pair in enumerate(drawn) if is_bad(pair, counts, forbidden)]
        if not bad:
            return drawn
        i, j = int(generator.choice(bad)), int(generator.integers(len(drawn)))
        (a, b), (c, d) = drawn[i], drawn[j]
        fresh = [(a, c), (b, d)] if generator.random() < 0.5 else [(a, d), (b, c)]
        before = sum(is_bad(pair, counts, forbidden) for pair in (drawn[i], drawn[j]))
        after = sum(len(set(pair)) == 1 or frozenset(pair) in forbidden or frozenset(pair) in counts for pair in fresh)
        if i != j and after <= before:
            drawn[i], drawn[j] = fresh
    raise SystemExit("no set of negatives with these degrees was found; try another seed")


def is_bad(pair: tuple[str, str], counts: Counter[frozenset[str]], forbidden: set[frozenset[str]]) -> bool:
    """Whether a drawn pair must be drawn again."""
    key = frozenset(pair)
    return len(key) == 1 or key in forbidden or counts[key] > 1


def tsv(names: Iterable[str], table: Iterable[Iterable[object]]) -> str:
    """A TSV as text."""
    return "".join("\t".join(map(str, row)) + "\n" for row in [names, *table])


def write_tsv(path: Path, names: Iterable[str], table: Iterable[Iterable[object]]) -> None:
    """Write a plain TSV."""
    path.write_text(tsv(names, table), encoding="utf-8")


def write_gzip(path: Path, text: str) -> None:
    """Write a gzip without name and time, so that equal text makes equal bytes."""
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()

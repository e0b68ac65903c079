"""Whatever the rows of a file of proteins and the portions: the two readings agree with a plain one."""

from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftide.data.findings import Findings
from peftide.data.portions import PortionSize, ProteinsInMemory, outlines_digest, record_digest
from peftide.data.protein_scan import ScanRules, scan_proteins
from peftide.data.proteins import find_proteins
from peftide.data.repeats import RowDigests
from peftide.records import Proteins

rows = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["MK", "MKV", "M", "MKVLA"])), min_size=1)
sizes = st.builds(PortionSize, rows=st.integers(1, 5), residues=st.integers(1, 12))
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scanned(folder, proteins, size, *, merges=True):
    path = folder / "p.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in proteins))
    findings = Findings()
    file = find_proteins(str(path), findings=findings)
    return scan_proteins(file, ScanRules(size, merges=merges, max_residues=4), findings=findings), findings


@given(rows=rows, size=sizes)
@quick
def test_ids_with_two_sequences_are_all_problems_and_repeated_rows_are_left_out_once(tmp_path, rows, size):
    first = {}
    conflicts = [f"p.fasta:{2 * row + 1}" for row, (name, sequence) in enumerate(rows)
                 if first.setdefault(name, sequence) != sequence]  # fmt: skip
    scan, findings = scanned(tmp_path, rows, size)
    assert [text.split(": ")[0].rsplit("/", 1)[1] for text in findings.problems.get("ids", [])] == conflicts
    assert scan.num_unique == len(first) + len(conflicts)
    if not conflicts:
        portions = list(scan.checked.portions())
        found = [protein for portion in portions for protein in zip(portion.ids, portion.sequences, strict=True)]
        assert found == list(first.items())
        assert scan.checked.num_proteins == len(first)
        assert len(scan.long.texts(scan.repeats, str)) == sum(sequence == "MKVLA" for sequence in first.values())


@given(rows=rows, size=sizes)
@quick
def test_portions_hold_every_row_in_order_within_their_size(tmp_path, rows, size):
    scan, _ = scanned(tmp_path, rows, size, merges=False)
    portions = list(scan.checked.portions())
    assert [protein for w in portions for protein in zip(w.ids, w.sequences, strict=True)] == rows
    assert [portion.number for portion in portions] == list(range(len(portions)))
    for portion in portions:
        assert len(portion.ids) <= size.rows
        assert len(portion.ids) == 1 or sum(map(len, portion.sequences)) <= size.residues
    for one, other in pairwise(portions):  # none is cut earlier than it must be
        assert len(one.ids) == size.rows or sum(map(len, (*one.sequences, other.sequences[0]))) > size.residues


@given(rows=rows, size=sizes)
@quick
def test_portions_of_a_file_are_those_of_the_same_proteins_in_memory(tmp_path, rows, size):
    scan, _ = scanned(tmp_path, rows, size, merges=False)
    proteins = Proteins(*(tuple(column) for column in zip(*rows, strict=True)))
    source = ProteinsInMemory.cut(proteins, size, most_residues=None)
    assert source.outlines == scan.checked.outlines
    assert list(source.portions()) == list(scan.checked.portions())
    odd = list(source.portions(is_done=lambda outline: outline.number % 2 == 0))
    assert odd == list(scan.checked.portions(is_done=lambda outline: outline.number % 2 == 0))


@given(rows=rows, changed=st.data())
@quick
def test_another_protein_anywhere_gives_another_digest(tmp_path, rows, changed):
    size = PortionSize(2, 100)
    before = outlines_digest(scanned(tmp_path, rows, size, merges=False)[0].checked.outlines)
    row = changed.draw(st.integers(0, len(rows) - 1))
    other = [*rows[:row], (rows[row][0], rows[row][1] + "W"), *rows[row + 1 :]]
    assert outlines_digest(scanned(tmp_path, other, size, merges=False)[0].checked.outlines) != before


@given(names=st.lists(st.integers(0, 30), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_rows_that_repeat_are_found_by_their_digests(names):
    digests = RowDigests()
    for name in names:
        digests.add(str(name // 2), record_digest(str(name // 2), str(name % 2)))
    found = digests.repeats()
    first = {}
    expected = [first.setdefault(name // 2, (row, name)) for row, name in enumerate(names)]
    same = [row for row, (start, name) in enumerate(expected) if row != start and names[row] == name]
    others = [row for row, (_, name) in enumerate(expected) if names[row] != name]
    assert found.same.tolist() == same
    assert found.others.tolist() == others
    assert found.firsts.tolist() == [expected[row][0] for row in others]
    assert np.isin(found.same, found.others).sum() == 0

import gzip
import io
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peftide.config import DataSettings
from peftide.data.datasets import read_dataset
from peftide.data.fasta import iterate_fasta
from peftide.data.findings import Findings
from peftide.data.proteins import read_proteins
from peftide.data.sequences import RESIDUES, clean_sequence
from peftide.data.tables import read_table
from peftide.data.writers import write_table
from peftide.errors import UserError

sequences = st.text(RESIDUES, min_size=1, max_size=50)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, categories=["L", "N", "P"]), min_size=1, max_size=12)
# What a cell may hold: anything in UTF-8 but NUL; carriage returns read as line feeds.
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20)
fast = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.text(max_size=60))
@settings(deadline=None)
def test_cleaning_twice_is_cleaning_once(text):
    cleaned = clean_sequence(text)
    if not cleaned.foreign:
        assert set(cleaned.sequence) <= set(RESIDUES)
        assert clean_sequence(cleaned.sequence) == (cleaned.sequence, "", False, False, False)


@given(sequences, st.integers(1, 60), st.sampled_from(["", "*"]), st.booleans())
@settings(deadline=None)
def test_writing_a_sequence_another_way_does_not_change_it(sequence, width, stop, is_lower):
    text = "\n".join(sequence[start : start + width] for start in range(0, len(sequence), width)) + stop
    assert clean_sequence(text.lower() if is_lower else text).sequence == sequence


@given(
    st.lists(st.tuples(ids, sequences), min_size=1, max_size=8),
    st.integers(1, 60),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
)
@fast
def test_fasta_written_with_any_width_and_line_end_reads_back(tmp_path, records, width, end, is_gzipped):
    lines = []
    for name, sequence in records:
        lines += [f">{name} text", *(sequence[start : start + width] for start in range(0, len(sequence), width))]
    content = end.join(lines).encode()
    path = tmp_path / ("t.fasta.gz" if is_gzipped else "t.fasta")
    path.write_bytes(gzip.compress(content) if is_gzipped else content)
    found = list(iterate_fasta(str(path)))
    assert [(name, sequence) for _, name, sequence in found] == records
    assert [lines[line - 1] for line, _, _ in found] == [f">{name} text" for name, _ in records]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.csv.gz"])
@given(rows=st.lists(st.tuples(ids, cells), min_size=1, max_size=8))
@fast
def test_tables_of_any_text_read_back(tmp_path, name, rows):
    write_table(tmp_path / name, {"id": [row[0] for row in rows], "text": [row[1] for row in rows]})
    table = read_table(str(tmp_path / name), findings=Findings())
    assert list(zip(table.cells["id"], table.cells["text"], strict=True)) == rows


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=20))
@fast
def test_a_dataset_of_pairs_is_the_first_row_of_each_pair_or_an_error(tmp_path, rows):
    lines = "".join(f"p{first},p{second},{label}\n" for first, second, label in rows)
    (tmp_path / "pairs.csv").write_text("protein_a,protein_b,label\n" + lines)
    (tmp_path / "s.fasta").write_text("".join(f">p{index}\nMK{RESIDUES[index]}\n" for index in range(6)))
    data = DataSettings(data=str(tmp_path / "pairs.csv"), sequences=str(tmp_path / "s.fasta"), allow_self_pairs=True)
    first_label: dict[tuple[int, ...], int] = {}
    for first, second, label in rows:
        first_label.setdefault(tuple(sorted((first, second))), label)
    is_sound = all(first_label[tuple(sorted(row[:2]))] == row[2] for row in rows) and len({row[2] for row in rows}) == 2
    if not is_sound:
        with pytest.raises(UserError):
            read_dataset(data)
        return
    dataset = read_dataset(data)
    names = np.array(dataset.proteins.ids)[dataset.members_NK]
    found = [tuple(sorted(int(name[1:]) for name in pair)) for pair in names.tolist()]
    assert dict(zip(found, dataset.targets.astype(int).tolist(), strict=True)) == first_label
    assert found == list(first_label)


def _parquet(columns: dict[str, list[str]]) -> bytes:
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue()


PAIRS = 'protein_a,protein_b,label,split\na,b,1,train\n"b",c,0,train\nc,a,1,val\nd,a,0,val\n'
FASTA = ">a x\nMKVLA\nMK\n>b\nMKVC\n>c\nmkv*\n>d\nMKVE\n"
COLUMNS = {"id": ["a", "b", "c"], "sequence": ["MK", "ML", "MV"], "label": ["C2", "D3 C2", "C12"]}
FILES = {
    "pairs.csv": PAIRS.encode(),
    "pairs.csv.gz": gzip.compress(PAIRS.encode(), mtime=0),
    "proteins.parquet": _parquet(COLUMNS),
    "proteins.txt": b"id\tsequence\tlabel\na\tMK\tC2\nb\tML\tD3 C2\n",
    "s.fasta": FASTA.encode(),
}
PIECES = [
    b"",
    b"\0",
    b"\r",
    b"\n",
    b",",
    b"\t",
    b'"',
    b";",
    b">",
    b"\xe9",
    b"\xef\xbb\xbf",
    b"nan",
    b"9" * 400,
    b"A" * 9999,
]


@st.composite
def mutated(draw: Callable, content: bytes) -> bytes:
    """A file with some bytes changed, cut out, inserted or repeated."""
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([0, 0, 1, 1, 4, 40, 10_000])))
        piece = draw(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)))
        content = content[:start] + piece * draw(st.integers(1, 2)) + content[end:]
    return content


def outcome(read: Callable[[], object]) -> str:
    """The text of a UserError, or "" for a result; any other exception passes."""
    try:
        read()
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutated_file_gives_a_dataset_or_a_printable_user_error(tmp_path, name, data):
    for other, content in FILES.items():
        (tmp_path / other).write_bytes(content)
    (tmp_path / name).write_bytes(data.draw(mutated(FILES[name])))
    is_pair = not name.startswith("proteins")
    examples = DataSettings(
        data=str(tmp_path / ("pairs.csv" if name == "s.fasta" else name)),
        sequences=str(tmp_path / "s.fasta") if is_pair else None,
        task="pair" if is_pair else data.draw(st.sampled_from(["symmetry", "protein"])),
    )
    for text in (
        outcome(lambda: read_dataset(examples, labelled=True)),
        outcome(lambda: read_dataset(examples, labelled=False)),
        outcome(lambda: read_proteins(str(tmp_path / name))),
    ):
        assert text.replace("\n", "").isprintable()
        assert len(text) < 20_000

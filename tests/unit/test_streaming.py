"""embed and predict in portions: what one portion would give, whatever interrupts it, in little memory."""

import gc
import io
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from rich.console import Console

import peftide
from conftest import limited_files, random_sequence, write_examples
from peftide.config import DataSettings, EmbedSettings, MachineSettings, PredictSettings, TrainSettings
from peftide.data.datasets import read_dataset
from peftide.data.findings import Findings
from peftide.data.member_file import member_file
from peftide.data.member_scan import scan_members
from peftide.data.portions import PortionSize, ProteinsInMemory
from peftide.data.protein_scan import ScanRules, scan_proteins
from peftide.data.proteins import find_proteins
from peftide.data.writers import write_table
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins, embed_residues
from peftide.inference.embed_file import embed_file
from peftide.inference.parts_folder import parts_folder
from peftide.inference.portion_encoder import embed_portion, load_embedder
from peftide.inference.portion_parts import MOST_CACHED, cached_vectors
from peftide.inference.predict_file import predict_file
from peftide.records import Proteins

CPU = {"device": "cpu", "precision": "fp32", "threads": 1, "cache_limit_gb": 0.0}
SMALL = PortionSize(rows=7, residues=300)
NUM_PROTEINS = 60


def protein(number: int) -> tuple[str, str]:
    return f"Q{number:04d}", random_sequence(4 + (17 * number) % 71, seed=number)


@pytest.fixture
def fasta(tmp_path) -> Path:
    path = tmp_path / "proteins.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in map(protein, range(NUM_PROTEINS))))
    return path


@pytest.fixture(scope="module")
def bundles(esm_folder, tmp_path_factory):
    """The bundle of a finished run by kind of examples; each is trained once."""
    done = {}

    def bundle_of(kind: str) -> str:
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            peftide.train(
                TrainSettings(
                    **write_examples(folder, kind), **CPU, out=str(folder / "bundle"), backbone=str(esm_folder),
                    method="head", epochs=1, batch_examples=8, head_width=16, baselines="none",
                )
            )  # fmt: skip
            done[kind] = str(folder / "bundle")
        return done[kind]

    return bundle_of


def embed(esm_folder, fasta, out, *, portion=SMALL, **options) -> str:
    """Embed in small portions; what was said."""
    said = io.StringIO()
    given = {"data": str(fasta), "out": str(out), "backbone": str(esm_folder)} | CPU | options
    embed_file(EmbedSettings(**given), Console(file=said, width=300), portion=portion)
    return said.getvalue()


def predict(bundle, data, out, *, portion=SMALL, rows_at_once=1 << 16, **options) -> str:
    """Predict in small portions; what was said."""
    said = io.StringIO()
    given = {"bundle": bundle, "data": str(data), "out": str(out)} | CPU | options
    predict_file(PredictSettings(**given), Console(file=said, width=300), portion=portion, rows_at_once=rows_at_once)
    return said.getvalue()


def hidden_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*"))


def by_position(out: Path) -> list[tuple[str, np.ndarray]]:
    with h5py.File(out) as file:
        ids = sorted(file, key=lambda name: file[name].attrs["position"])
        return [(name, file[name][()]) for name in ids]


def all_pieces(embedder):
    return embedder.cut(Proteins(*zip(*map(protein, range(NUM_PROTEINS)), strict=True)))


def embedder_of(esm_folder, **options):
    return load_embedder(EmbedSettings(data="", out="", backbone=str(esm_folder), **CPU, **options))


def test_vectors_made_in_portions_are_those_of_all_proteins_at_once_in_the_order_of_the_file(
    esm_folder, fasta, tmp_path
):
    """Batches are others, so that the sum over a protein's residues may differ in its last digits."""
    embed(esm_folder, fasta, tmp_path / "e.h5")
    embedder = embedder_of(esm_folder)
    expected_PD = embed_proteins(embedder.encoder, all_pieces(embedder), token_budget=2000)
    found = by_position(tmp_path / "e.h5")
    assert [name for name, _ in found] == [protein(number)[0] for number in range(NUM_PROTEINS)]
    assert np.array([vector for _, vector in found]) == pytest.approx(expected_PD, abs=1e-6)
    assert hidden_in(tmp_path) == []


def test_states_of_residues_made_in_portions_are_those_of_each_protein_alone_to_the_last_digit(
    esm_folder, fasta, tmp_path
):
    for name in ("e.h5", "e.parquet"):
        embed(esm_folder, fasta, tmp_path / name, per_residue=True, max_residues=40, long_proteins="window")
    embedder = embedder_of(esm_folder, max_residues=40, long_proteins="window")
    found = by_position(tmp_path / "e.h5")
    table = pd.read_parquet(tmp_path / "e.parquet")
    for (name, states_LD), piece in zip(found, all_pieces(embedder), strict=True):
        assert np.array_equal(states_LD, embed_residues(embedder.encoder, [piece], token_budget=1)[0])
        rows = table[table["id"] == name]
        assert np.array_equal(np.stack(rows["embedding"].to_numpy()), states_LD)
        assert rows["residue"].tolist() == list(range(1, len(states_LD) + 1))


def test_rows_of_many_proteins_share_a_row_group_of_parquet(esm_folder, fasta, tmp_path):
    embed(esm_folder, fasta, tmp_path / "e.parquet")
    assert pq.ParquetFile(tmp_path / "e.parquet").num_row_groups == 1
    assert pd.read_parquet(tmp_path / "e.parquet")["id"].tolist() == [protein(n)[0] for n in range(NUM_PROTEINS)]


@pytest.mark.parametrize("kind", ["binary", "multilabel", "pair"])
def test_predictions_made_in_portions_are_those_made_at_once(bundles, fasta, tmp_path, kind):
    names = {"sequences": str(fasta)} if kind == "pair" else {}
    data = pairs_of(tmp_path) if kind == "pair" else fasta
    for name, portion in (("whole.tsv", PortionSize(10**6, 10**9)), ("portions.tsv", SMALL)):
        predict(bundles(kind), data, tmp_path / name, portion=portion, **names)
    whole, portions = (pd.read_csv(tmp_path / name, sep="\t") for name in ("whole.tsv", "portions.tsv"))
    pd.testing.assert_frame_equal(whole, portions, atol=1e-6)
    assert hidden_in(tmp_path) == []


def pairs_of(folder: Path) -> Path:
    numbers = np.random.default_rng(5).choice(NUM_PROTEINS, (200, 2))
    rows = "".join(f"{protein(a)[0]},{protein(b)[0]}\n" for a, b in numbers if a != b)
    (folder / "pairs.csv").write_text("protein_a,protein_b\n" + rows)
    return folder / "pairs.csv"


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv.gz", "pairs.parquet", "ids.csv", "carried.tsv"])
def test_predictions_are_the_same_bytes_however_many_rows_are_read_at_once(bundles, fasta, tmp_path, name):
    columns = pd.read_csv(pairs_of(tmp_path)).to_dict("list")
    expected, options, kind = columns, {"sequences": str(fasta)}, "pair"
    if name == "ids.csv":
        columns, kind = {"id": columns["protein_a"]}, "binary"
        expected = columns
    if name == "carried.tsv":
        sequence_of, options = dict(map(protein, range(NUM_PROTEINS))), {}
        columns = columns | {f"sequence_{x}": [sequence_of[name] for name in columns[f"protein_{x}"]] for x in "ab"}
    write_table(tmp_path / name, columns)
    outs = {number: tmp_path / f"{number}.tsv" for number in (1, 7, 10**6)}
    for number, out in outs.items():
        predict(bundles(kind), tmp_path / name, out, rows_at_once=number, **options)
    assert len({out.read_bytes() for out in outs.values()}) == 1
    found = pd.read_csv(outs[1], sep="\t")
    assert {column: found[column].tolist() for column in expected} == expected
    assert hidden_in(tmp_path) == []


def test_ids_in_one_file_and_sequences_in_another_give_the_predictions_of_one_file(bundles, fasta, tmp_path):
    (tmp_path / "ids.csv").write_text("id\n" + "".join(f"{protein(number)[0]}\n" for number in (3, 8, 3, 1)))
    predict(bundles("binary"), tmp_path / "ids.csv", tmp_path / "joined.tsv", sequences=str(fasta))
    predict(bundles("binary"), fasta, tmp_path / "alone.tsv")
    joined, alone = (pd.read_csv(tmp_path / name, sep="\t") for name in ("joined.tsv", "alone.tsv"))
    assert joined["id"].tolist() == [protein(number)[0] for number in (3, 8, 3, 1)]
    expected = alone.set_index("id").loc[joined["id"], "probability"].tolist()
    assert joined["probability"].tolist() == pytest.approx(expected, abs=1e-6)


KILLER = """
import json, os, random, signal, sys, time
import torch
from rich.console import Console
from peftide.config import DataSettings, EmbedSettings, PredictSettings
from peftide.data.datasets import read_dataset
from peftide.data.findings import Findings
from peftide.data.protein_scan import ScanRules, scan_proteins
from peftide.data.proteins import find_proteins
from peftide.data.portions import PortionSize
from peftide.inference.embed_file import embed_file
from peftide.inference.predict_file import predict_file

torch.set_num_threads(1)
generator = random.Random(3)

def begin(settings):
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work, kind = (predict_file, PredictSettings) if "bundle" in settings else (embed_file, EmbedSettings)
            work(kind(**settings), Console(quiet=True), portion=PortionSize(rows=4, residues=200))
            code = 0
        finally:
            os._exit(code)
    return process

def ended(process, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)

seen = []
for settings in json.load(sys.stdin):
    started, out = time.monotonic(), settings.pop("killed_out")
    assert ended(begin(settings), 100) == 0
    seconds, code, parts = time.monotonic() - started, None, []
    while code is None and (len(parts) < 4 or not any(parts)):
        code = ended(begin(settings | {"out": out}), seconds * generator.uniform(0.2, 0.8))
        folder = os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.parts")
        if code is None:
            names = os.listdir(folder) if os.path.isdir(folder) else []
            parts.append(sum(name.endswith(".parquet") for name in names))
            seconds *= 1 if parts[-1] else 1.5  # slower than the one that was timed
        elif not any(parts):  # faster: once more from the beginning
            os.remove(out)
            seconds, code = seconds * 0.7, None
    seen.append(parts)
    assert code == 0 or ended(begin(settings | {"out": out}), 100) == 0
print(json.dumps(seen))
"""


def test_work_killed_at_random_moments_goes_on_and_ends_with_the_result_of_work_that_was_not(
    esm_folder, bundles, tmp_path
):
    fasta = tmp_path / "many.fasta"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in map(protein, range(200))))
    given = {"data": str(fasta), **CPU}
    jobs = {
        "vectors.h5": given | {"backbone": str(esm_folder)},
        "residues.parquet": given | {"backbone": str(esm_folder), "per_residue": True},
        "alone.tsv": given | {"bundle": bundles("binary")},
        "pairs.tsv": given | {"bundle": bundles("pair"), "data": str(pairs_of(tmp_path)), "sequences": str(fasta)},
    }
    listed = [
        job | {"out": str(tmp_path / f"whole-{name}"), "killed_out": str(tmp_path / f"killed-{name}")}
        for name, job in jobs.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", KILLER], input=json.dumps(listed), capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for parts in json.loads(done.stdout):
        assert max(parts) > 0, "nothing was kept by any of those killed"
    for name in jobs:
        whole, killed = (tmp_path / f"{which}-{name}" for which in ("whole", "killed"))
        if name.endswith(".h5"):
            for (one, expected), (other, found) in zip(by_position(whole), by_position(killed), strict=True):
                assert one == other
                assert np.array_equal(expected, found)
        else:
            assert whole.read_bytes() == killed.read_bytes()
    assert hidden_in(tmp_path) == []


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("embeddings-*.parquet"))


@pytest.fixture
def half_done(esm_folder, fasta, tmp_path):
    """The folder of an embedding of which the first half of the parts is there."""
    with limited_files(9000), pytest.raises(UserError, match="File too large"):
        embed(esm_folder, fasta, tmp_path / "e.h5")
    folder = tmp_path / ".e.h5.parts"
    parts = parts_in(folder)
    for path in parts[len(parts) // 2 :]:
        path.unlink()
    return folder


def test_what_is_done_is_not_done_again(esm_folder, fasta, tmp_path, half_done):
    parts = parts_in(half_done)
    assert f"going on: {len(parts)} of {len(scan_of(fasta).checked.outlines)} portions" in embed(
        esm_folder, fasta, tmp_path / "e.h5"
    )
    embed(esm_folder, fasta, tmp_path / "whole.h5")
    for (one, expected), (other, found) in zip(
        by_position(tmp_path / "whole.h5"), by_position(tmp_path / "e.h5"), strict=True
    ):
        assert one == other
        assert np.array_equal(expected, found)
    assert hidden_in(tmp_path) == []


def test_a_full_disk_ends_the_work_and_the_same_command_goes_on(esm_folder, fasta, tmp_path):
    with limited_files(1500), pytest.raises(UserError, match=r"embeddings-0000000.* the same command goes on"):
        embed(esm_folder, fasta, tmp_path / "e.h5")
    assert parts_in(tmp_path / ".e.h5.parts") == []
    assert not (tmp_path / "e.h5").exists()
    embed(esm_folder, fasta, tmp_path / "e.h5")
    assert hidden_in(tmp_path) == []


@pytest.mark.parametrize("name", ["e.h5", "e.parquet"])
def test_a_disk_that_is_full_at_the_end_leaves_the_earlier_result_and_the_parts(esm_folder, fasta, tmp_path, name):
    (tmp_path / name).write_bytes(b"earlier")
    with limited_files(9000), pytest.raises(UserError, match=r"cannot be written \(.*File too large"):
        embed(esm_folder, fasta, tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"earlier"
    num_parts = len(parts_in(tmp_path / f".{name}.parts"))
    assert f"going on: {num_parts} of {num_parts} portions" in embed(esm_folder, fasta, tmp_path / name)


def test_a_part_that_was_cut_off_is_made_again(esm_folder, fasta, tmp_path, half_done):
    first, *others = parts_in(half_done)
    first.write_bytes(first.read_bytes()[:-20])
    said = embed(esm_folder, fasta, tmp_path / "e.h5")
    assert f"going on: {len(others)} of" in said
    assert f"{first} is damaged" in said
    assert len(by_position(tmp_path / "e.h5")) == NUM_PROTEINS


def test_a_part_with_other_numbers_in_it_is_named_and_made_again_next_time(esm_folder, fasta, tmp_path, half_done):
    path = parts_in(half_done)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"embeddings-0000000\.parquet: was damaged .* the same command makes it again"):
        embed(esm_folder, fasta, tmp_path / "e.h5")
    embed(esm_folder, fasta, tmp_path / "e.h5")
    assert len(by_position(tmp_path / "e.h5")) == NUM_PROTEINS


def test_what_is_unfinished_is_not_mixed_with_other_proteins_or_settings(esm_folder, fasta, tmp_path, half_done):
    refused = r"holds another embedding, unfinished \({} .* there, .* here.*remove that folder"
    with pytest.raises(UserError, match=refused.format("pooling")):
        embed(esm_folder, fasta, tmp_path / "e.h5", pooling="cls")
    before = fasta.read_text()
    fasta.write_text(before.replace(">Q0059", ">Q0099"))
    with pytest.raises(UserError, match=refused.format("proteins")):
        embed(esm_folder, fasta, tmp_path / "e.h5")
    fasta.write_text(before)
    embed(esm_folder, fasta, tmp_path / "e.h5")


def test_what_is_unfinished_is_not_mixed_with_other_pairs(bundles, fasta, tmp_path):
    bundle, pairs, options = bundles("pair"), pairs_of(tmp_path), {"sequences": str(fasta)}
    with limited_files(3500), pytest.raises(UserError, match="cannot be written"):
        predict(bundle, pairs, tmp_path / "p.tsv", **options)
    before = pairs.read_text()
    header, first, second, *others = before.splitlines()
    pairs.write_text("\n".join([header, second, first, *others]))
    with pytest.raises(UserError, match=r"holds another prediction, unfinished \(examples .* there, .* here"):
        predict(bundle, pairs, tmp_path / "p.tsv", **options)
    pairs.write_text(before)
    predict(bundle, pairs, tmp_path / "p.tsv", **options)
    predict(bundle, pairs, tmp_path / "whole.tsv", **options)
    assert (tmp_path / "p.tsv").read_bytes() == (tmp_path / "whole.tsv").read_bytes()
    assert hidden_in(tmp_path) == []


def test_a_disk_that_has_no_room_for_the_numbers_of_pairs_is_told_and_nothing_is_left(bundles, fasta, tmp_path):
    bundle, pairs = bundles("pair"), pairs_of(tmp_path)
    with limited_files(500), pytest.raises(UserError, match=r"8 bytes for each example: cannot be written .*make room"):
        predict(bundle, pairs, tmp_path / "p.tsv", sequences=str(fasta))
    assert hidden_in(tmp_path) == []
    assert not (tmp_path / "p.tsv").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="what a process has mapped is read from Linux")
def test_nothing_holds_the_vectors_of_pairs_when_they_are_to_be_removed(bundles, fasta, tmp_path):
    """A network disk refuses to remove a folder with a file that is in use."""
    mapped = []
    settings = PredictSettings(
        bundle=bundles("pair"), data=str(pairs_of(tmp_path)), sequences=str(fasta), out=str(tmp_path / "p.tsv")
    )

    def look(columns: dict[str, list]) -> None:
        mapped.append("vectors.float32" in Path("/proc/self/maps").read_text())

    predict_file(settings, Console(quiet=True), each=look)
    assert mapped == [False]


def test_parts_that_outlived_their_manifest_are_not_taken_for_those_of_other_settings(
    esm_folder, fasta, tmp_path, half_done
):
    """As where the process was killed while it removed the folder."""
    (half_done / "manifest.json").unlink()
    said = embed(esm_folder, fasta, tmp_path / "e.h5", pooling="cls")
    assert "is damaged (it is of other work): it is made again" in said
    assert "going on" not in said
    embed(esm_folder, fasta, tmp_path / "cls.h5", pooling="cls")
    found, expected = (np.array([v for _, v in by_position(tmp_path / name)]) for name in ("e.h5", "cls.h5"))
    assert np.array_equal(found, expected)


def test_a_prediction_with_another_threshold_is_another(bundles, fasta, tmp_path):
    def stop(columns: dict[str, list]) -> None:
        raise KeyboardInterrupt

    settings = PredictSettings(bundle=bundles("multilabel"), data=str(fasta), out=str(tmp_path / "p.tsv"))
    with pytest.raises(KeyboardInterrupt):
        predict_file(settings, Console(quiet=True), each=stop)
    with pytest.raises(UserError, match=r"holds another prediction, unfinished \(threshold 0.5 there, 0.7 here"):
        predict_file(replace(settings, threshold=0.7), Console(quiet=True))


def test_a_second_process_on_the_same_output_is_refused(esm_folder, bundles, fasta, tmp_path):
    for name, work in (
        ("e.h5", lambda out: embed(esm_folder, fasta, out)),
        ("p.tsv", lambda out: predict(bundles("binary"), fasta, out)),
    ):
        with parts_folder(tmp_path / name, {}, what="work"), pytest.raises(UserError, match="another process is at"):
            work(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_a_file_that_changes_between_its_two_readings_is_refused(esm_folder, fasta, tmp_path):
    scan = scan_of(fasta)
    portions = scan.checked.portions()
    assert next(portions).ids[0] == "Q0000"
    fasta.write_text(fasta.read_text().replace(">Q0040", ">Q0099"))
    with pytest.raises(UserError, match="was changed while it was read"):
        list(scan.checked.portions())
    fasta.write_text(">Q0000\nMK\n")
    with pytest.raises(UserError, match="was changed while it was read"):
        list(scan.checked.portions())


def scan_of(fasta: Path):
    findings = Findings()
    return scan_proteins(find_proteins(str(fasta), findings=findings), ScanRules(SMALL, merges=True), findings=findings)


def test_a_portion_gives_the_same_table_whoever_encodes_it(esm_folder, fasta):
    """It, and the settings of the embedder, travel as plain values."""
    settings = EmbedSettings(data="", out="", backbone=str(esm_folder), **CPU)
    portions = list(scan_of(fasta).checked.portions())
    alone = [embed_portion(load_embedder(pickle.loads(pickle.dumps(settings))), portion) for portion in portions[::-1]]
    embedder = load_embedder(settings)
    for portion, table in zip(portions, alone[::-1], strict=True):
        assert embed_portion(embedder, pickle.loads(pickle.dumps(portion))).equals(table)


def test_rows_that_repeat_a_protein_are_merged_by_embed_and_kept_by_predict(esm_folder, bundles, fasta, tmp_path):
    fasta.write_text(fasta.read_text() * 2)
    assert f"note: {fasta}: 60 rows that repeat an id" in embed(esm_folder, fasta, tmp_path / "e.h5")
    assert len(by_position(tmp_path / "e.h5")) == NUM_PROTEINS
    predict(bundles("binary"), fasta, tmp_path / "p.tsv")
    table = pd.read_csv(tmp_path / "p.tsv", sep="\t")
    assert table["id"].tolist() == [protein(number)[0] for number in range(NUM_PROTEINS)] * 2
    first, second = np.split(table["probability"].to_numpy(), 2)
    assert second == pytest.approx(first, abs=1e-6)


def test_problems_of_examples_are_those_of_reading_them_whole(bundles, tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("id,sequence\na,MK\nb,M1\n,MK\na,ML\nc,\nd,MK,x\nb,M1\n")
    settings = DataSettings(data=str(path), task="protein")
    with pytest.raises(UserError) as expected:
        read_dataset(settings, labelled=False)
    with pytest.raises(UserError) as found:
        predict(bundles("binary"), path, tmp_path / "p.tsv")
    assert str(found.value) == str(expected.value)
    assert len(str(found.value).splitlines()) == 6


def test_memory_does_not_grow_with_the_number_of_proteins(esm_folder, bundles, tmp_path):
    """But for few bytes a protein, of which the digests take 16; a vector, an id and a sequence would take over 300."""
    peaks = {}
    for number in (400, 1600):
        fasta = tmp_path / f"{number}.fasta"
        fasta.write_text("".join(f">P{row}\n{random_sequence(8, seed=row % 50)}\n" for row in range(number)))
        for kind, work in (
            ("embed", lambda out, data: embed(esm_folder, data, out, portion=PortionSize(50, 1000))),
            ("predict", lambda out, data: predict(bundles("binary"), data, out, portion=PortionSize(50, 1000))),
        ):
            gc.collect()
            tracemalloc.start()
            work(tmp_path / f"{number}-{kind}.{'h5' if kind == 'embed' else 'tsv'}", fasta)
            peaks[kind, number] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    for kind in ("embed", "predict"):
        assert peaks[kind, 1600] - peaks[kind, 400] < 1200 * 150, peaks


@pytest.mark.parametrize("is_named", [True, False])
def test_memory_does_not_grow_with_the_number_of_pairs(fasta, tmp_path, is_named):
    cells = [name if is_named else f"{name},{sequence}" for name, sequence in map(protein, range(50))]
    header = "protein_a,protein_b" if is_named else "protein_a,sequence_a,protein_b,sequence_b"
    peaks = {}
    for number in (7000, 17_000):  # of a file that is smaller not all is read that would show what it is
        path = tmp_path / f"{number}.csv"
        rows = "".join(f"{cells[row % 20]},{cells[20 + row % 30]}\n" for row in range(number))
        path.write_text(f"{header}\n{rows}")
        settings = DataSettings(data=str(path), sequences=str(fasta) if is_named else None)
        with member_file(tmp_path, 2, rows_at_once=100) as file:
            gc.collect()
            tracemalloc.start()
            found, _ = scan_members(settings, file, classes=("no", "yes"), kind="binary")
            peaks[number] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert (len(file), len(found)) == (number, 50)
    assert peaks[17_000] - peaks[7000] < 10_000, "a byte for a row"


def test_very_many_problems_are_counted_and_the_first_of_them_told(fasta, tmp_path):
    (tmp_path / "p.csv").write_text("protein_a,protein_b\n" + "Q0001,Q0001\n" * 3000)
    settings = DataSettings(data=str(tmp_path / "p.csv"), sequences=str(fasta))
    with member_file(tmp_path, 2) as file, pytest.raises(UserError, match=r"3000 problems") as found:
        scan_members(settings, file, classes=("no", "yes"), kind="binary")
    lines = str(found.value).splitlines()
    assert "p.csv:51: 'Q0001' is paired with itself" in lines[50]
    assert lines[51:] == ["  ... and 2950 more of the same kinds"]


def test_the_cache_is_not_filled_with_the_vectors_of_a_very_large_set(esm_folder, tmp_path):
    many = MOST_CACHED + 1
    proteins = Proteins(("a",) * many, ("M",) * many)
    source = ProteinsInMemory.cut(proteins, PortionSize(10**6, 10**6), most_residues=None)
    settings, said = MachineSettings(cache_dir=str(tmp_path / "cache")), io.StringIO()
    with cached_vectors(
        embedder_of(esm_folder), source, settings, Console(file=said, width=200), is_published=True
    ) as store:
        assert store is None
    assert "cache not used: it is for sets of up to 50,000 proteins" in said.getvalue()
    assert not (tmp_path / "cache").exists()

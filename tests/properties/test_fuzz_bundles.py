"""Bundles and caches with anything in them: an answer, or one clear error; whatever their bytes, nothing else."""

import io
import json
import shutil
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from fuzz_cases import ODD_TEXTS, check_output, fuzzed, run_command, sources, texts, with_odd_bytes
from hypothesis import given
from hypothesis import strategies as st

from peftide.cli import main

MACHINE = ("--device", "cpu", "--precision", "fp32")
PARTS = {
    "head": ("run.json", "head.safetensors"),
    "lora": ("run.json", "head.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    "full": ("run.json", "backbone/config.json", "backbone/vocab.txt", "backbone/model.safetensors"),
}
ODD_VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**6,
    10**30,
    0.5,
    1e300,
    "",
    [],
    {},
    [[]],
    {"": ""},
    [None] * 3,
    *ODD_TEXTS,
)


@pytest.fixture(scope="module")
def trained(esm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Finished runs, one of each method, on the cut demo data."""
    folder = tmp_path_factory.mktemp("trained")
    for name in ("pairs.tsv", "sequences.fasta"):
        (folder / name).write_bytes(sources()[name])
    data = [str(folder / "pairs.tsv"), "--sequences", str(folder / "sequences.fasta")]
    for method in PARTS:
        words = [
            "--method",
            method,
            "--backbone",
            str(esm_folder),
            "--epochs",
            "1",
            "--head-width",
            "8",
            "--audit",
            "none",
        ]
        quiet = io.StringIO()
        with redirect_stdout(quiet):
            code = main(["train", *data, *words, "--out", str(folder / method), "--baselines", "none", *MACHINE])
        assert code == 0, quiet.getvalue()
    return {method: folder / method for method in PARTS}


def altered(draw: Callable, value: Any) -> Any:
    """A document of JSON in which one place, somewhere within, holds something else, or nothing."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        if draw(st.integers(0, 9)) == 0:
            return {name: item for name, item in value.items() if name != key}
        return value | {key: altered(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], altered(draw, value[place]), *value[place + 1 :]]
    return draw(st.one_of(st.sampled_from(ODD_VALUES), texts, st.floats(allow_nan=False)))


@st.composite
def odd_part(draw: Callable, path: Path) -> bytes:
    """A file of a bundle, its bytes or its values altered."""
    if path.suffix != ".json" or draw(st.integers(0, 4)) == 0:
        return draw(with_odd_bytes(path.read_bytes()))
    document = json.loads(path.read_text("utf-8"))
    if path.name == "run.json" and draw(st.integers(0, 1)):
        return json.dumps(document | {"model": altered(draw, document["model"])}).encode()
    return json.dumps(altered(draw, document)).encode()


def forged(folder: Path, bundle: Path, part: str, content: bytes) -> Path:
    """A copy of the bundle, in a folder of its own, with other content in one of its files."""
    copy = folder / f"bundle{len(list(folder.iterdir()))}"
    shutil.copytree(bundle, copy)
    (copy / part).write_bytes(content)
    return copy


@pytest.mark.parametrize("method", PARTS)
@given(data=st.data())
@fuzzed(8)
def test_predict_with_an_altered_bundle_answers_or_refuses(trained, tmp_path, method, data):
    part = data.draw(st.sampled_from(PARTS[method]))
    copy = forged(tmp_path, trained[method], part, data.draw(odd_part(trained[method] / part)))
    out = copy / "out"
    out.mkdir()
    table, fasta = (trained[method].parent / name for name in ("pairs.tsv", "sequences.fasta"))
    words = [copy, table, "--sequences", fasta, "--out", out / "scores.tsv", "--cache-limit-gb", "0", *MACHINE]
    check_output(out / "scores.tsv", run_command("predict", *words), former=None)


@given(data=st.data())
@fuzzed(12)
def test_the_report_of_an_altered_run_is_written_or_refused(trained, tmp_path, data):
    part = data.draw(st.sampled_from(("run.json", "run.json", "run.json", "predictions.tsv")))
    copy = forged(tmp_path, trained["head"], part, data.draw(odd_part(trained["head"] / part)))
    out = copy / "out"
    out.mkdir()
    ended = run_command("report", copy, "--out", out / "page.html")
    check_output(out / "page.html", ended, former=None)
    if ended.code == 0:
        page = (out / "page.html").read_text("utf-8")
        assert page.count("<script") == 0


@given(data=st.data())
@fuzzed(6)
def test_an_altered_cache_changes_no_vector(esm_folder, tmp_path, data):
    """Whatever is in it was written by a run that was killed, by a failing disk or by somebody else."""
    case = tmp_path / f"case{len(list(tmp_path.iterdir()))}"
    case.mkdir()
    (case / "s.fasta").write_bytes(sources()["sequences.fasta"])
    words = ["embed", case / "s.fasta", "--backbone", esm_folder, "--cache-dir", case / "cache", *MACHINE]
    assert run_command(*words, "--out", case / "first.parquet").code == 0
    path = data.draw(st.sampled_from(sorted(path for path in (case / "cache").rglob("*") if path.stat().st_size)))
    if path.is_file():
        path.write_bytes(data.draw(with_odd_bytes(path.read_bytes())))
    assert run_command(*words, "--out", case / "second.parquet").code == 0
    first, second = (pyarrow.parquet.read_table(case / f"{name}.parquet") for name in ("first", "second"))
    assert first["id"] == second["id"]
    vectors = [np.array(table["embedding"].to_pylist()) for table in (first, second)]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-5)  # what is computed anew is rounded anew

"""peftide screen: equal to predict, whatever the head and the selection, and whatever interrupts it."""

import contextlib
import itertools
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import torch
from rich.console import Console

import peftide
from conftest import random_sequence, write_examples
from peftide.config import PredictSettings, ScreenSettings, TrainSettings
from peftide.errors import UserError
from peftide.evaluation.calibration import Calibration
from peftide.inference.screen import run_screen
from peftide.inference.screen_bands import Scorer, estimating_scorer, one_by_one, score_bands
from peftide.inference.screen_estimate import has_fast_integers
from peftide.inference.screen_pairs import pair_space
from peftide.inference.screen_parts import open_parts
from peftide.inference.screen_result import Rescoring, probabilities_of, write_result
from peftide.inference.screen_selection import Pairs, Selection, concatenated
from peftide.inference.screen_tiles import tile_function
from peftide.models.bundle import load_bundle, read_run, save_bundle
from peftide.records import Proteins

CPU = {"device": "cpu", "precision": "fp32", "threads": 1}
NUM_PROTEINS = 40
needs_fast_integers = pytest.mark.skipif(not has_fast_integers(), reason="no fast products of bytes on this processor")


@pytest.fixture(scope="module")
def bundles(esm_folder, tmp_path_factory):
    """A trained bundle by kind of head, with a calibration; each is trained once."""
    done = {}

    def bundle_of(head: str) -> str:
        if head not in done:
            folder = tmp_path_factory.mktemp(head)
            data = write_examples(folder, "pair")
            out = folder / "bundle"
            peftide.train(
                TrainSettings(
                    **data, **CPU, out=str(out), backbone=str(esm_folder), method="head",
                    head="mlp" if head == "wide" else head, head_width=512 if head == "wide" else 16,
                    state_layers="spread" if head == "wide" else "last",
                    epochs=3, batch_examples=8, baselines="none", cache_dir=str(folder / "cache"),
                )
            )  # fmt: skip
            cool = Calibration("isotonic", "binary", scores=(0.0, 0.4, 1.0), probabilities=(0.01, 0.2, 0.97))
            model, run = load_bundle(out, dtype=torch.float32), read_run(out)
            save_bundle(out, replace(model, calibration=cool), {name: run[name] for name in ("settings", "data")})
            done[head] = str(out)
        return done[head]

    return bundle_of


def write_fasta(path: Path, numbers) -> str:
    lines = [f">Q{n:04d}\n{random_sequence(4 + (7 * n) % 29, seed=n)}\n" for n in numbers]
    path.write_text("".join(lines))
    return str(path)


@pytest.fixture
def proteome(tmp_path) -> str:
    return write_fasta(tmp_path / "proteome.fasta", range(NUM_PROTEINS))


def screen(bundle: str, proteome: str, *, estimate: bool = False, **options) -> pd.DataFrame:
    out = Path(proteome).with_name("scores.parquet")
    settings = ScreenSettings(**({"bundle": bundle, "data": proteome, "out": str(out)} | CPU | options))
    run_screen(settings, Console(), estimate_from_pairs=0 if estimate else 10**9)
    assert sorted(path.name for path in out.parent.glob(".*")) == []
    return pd.read_parquet(settings.out)


def predicted(bundle: str, proteome: str, pairs: list[tuple[str, str]]) -> pd.Series:
    """Probabilities of `peftide predict` by pair."""
    folder = Path(proteome).parent
    table = folder / "pairs.tsv"
    table.write_text("protein_a\tprotein_b\n" + "".join(f"{a}\t{b}\n" for a, b in pairs))
    sequences = folder / "all.fasta"
    sequences.write_text("".join(path.read_text() for path in sorted(folder.glob("pro*.fasta"))))
    columns = peftide.predict(
        PredictSettings(
            bundle=bundle, data=str(table), sequences=str(sequences), out=str(folder / "p.tsv"), allow_self_pairs=True,
            **CPU,
        )
    )  # fmt: skip
    index = pd.MultiIndex.from_arrays([columns["protein_a"], columns["protein_b"]])
    return pd.Series(columns["probability"], index=index)


def by_pair(table: pd.DataFrame) -> pd.Series:
    return table.set_index(["protein_a", "protein_b"])["probability"]


def names(numbers) -> list[str]:
    return [f"Q{n:04d}" for n in numbers]


def best_partners(expected: pd.Series, top_k: int) -> pd.DataFrame:
    """The lists that `--top-k` should give, from the probabilities of all pairs."""
    other = expected.copy()
    other.index = other.index.swaplevel()
    both = pd.concat([expected, other]).rename_axis(["protein_a", "protein_b"]).rename("probability").reset_index()
    both = both.sort_values(["protein_a", "probability", "protein_b"], ascending=[True, False, True])
    both["rank"] = both.groupby("protein_a").cumcount() + 1
    return both[both["rank"] <= top_k].reset_index(drop=True)


@pytest.mark.parametrize("head", ["mlp", "paper", "linear"])
def test_every_pair_is_scored_once_and_as_by_predict(bundles, proteome, head):
    found = by_pair(screen(bundles(head), proteome))
    pairs = list(itertools.combinations(names(range(NUM_PROTEINS)), 2))
    assert found.index.tolist() == pairs
    np.testing.assert_allclose(found, predicted(bundles(head), proteome, pairs), atol=1e-6)


@pytest.mark.parametrize("head", ["mlp", "paper", "linear"])
def test_the_best_partners_of_each_protein_are_those_of_predict(bundles, proteome, head):
    found = screen(bundles(head), proteome, top_k=5)
    everything = predicted(bundles(head), proteome, list(itertools.combinations(names(range(NUM_PROTEINS)), 2)))
    expected = best_partners(everything, 5)
    assert found["rank"].tolist() == [1, 2, 3, 4, 5] * NUM_PROTEINS
    assert found["protein_a"].tolist() == expected["protein_a"].tolist()
    np.testing.assert_allclose(found["probability"], expected["probability"], atol=1e-6)
    assert found["protein_b"].tolist() == expected["protein_b"].tolist()


@needs_fast_integers
@pytest.mark.parametrize("options", [{"top_k": 4}, {"min_probability": 0.2}, {"top_k": 6, "min_probability": 0.2}])
def test_fast_estimates_change_nothing_in_the_result(bundles, proteome, options):
    exact = screen(bundles("mlp"), proteome, exact=True, **options)
    estimated = screen(bundles("mlp"), proteome, estimate=True, **options)
    assert 10 < len(exact) < 780
    assert estimated.drop(columns="probability").equals(exact.drop(columns="probability"))
    np.testing.assert_allclose(estimated["probability"], exact["probability"], atol=1e-6)


def test_pairs_from_a_probability_up_are_all_of_those_and_no_other(bundles, proteome):
    everything = by_pair(screen(bundles("mlp"), proteome))
    cut = float(np.sort(everything.unique())[-101:-99].mean())
    found = by_pair(screen(bundles("mlp"), proteome, min_probability=cut))
    pd.testing.assert_series_equal(found, everything[everything >= cut])


def test_a_pair_has_one_probability_in_the_lists_of_both_proteins(bundles, proteome):
    found = by_pair(screen(bundles("mlp"), proteome, top_k=NUM_PROTEINS))
    known = found.to_dict()
    assert len(known) == len(found) == NUM_PROTEINS * (NUM_PROTEINS - 1)
    assert all(known[a, b] == known[b, a] for a, b in known)


def test_the_order_of_the_proteins_does_not_matter(bundles, proteome, tmp_path):
    (tmp_path / "other").mkdir()
    turned = write_fasta(tmp_path / "other" / "proteome.fasta", reversed(range(NUM_PROTEINS)))
    first, second = (by_pair(screen(bundles("mlp"), path)) for path in (proteome, turned))
    second.index = second.index.swaplevel()
    np.testing.assert_allclose(second.sort_index(), first.sort_index(), atol=1e-7)


def test_a_protein_meets_itself_only_when_asked(bundles, proteome):
    found = by_pair(screen(bundles("mlp"), proteome, self_pairs=True))
    pairs = list(itertools.combinations_with_replacement(names(range(NUM_PROTEINS)), 2))
    assert found.index.tolist() == pairs
    np.testing.assert_allclose(found, predicted(bundles("mlp"), proteome, pairs), atol=1e-6)
    lists = screen(bundles("mlp"), proteome, self_pairs=True, top_k=NUM_PROTEINS)
    assert lists.groupby("protein_a")["protein_b"].nunique().tolist() == [NUM_PROTEINS] * NUM_PROTEINS


@pytest.mark.parametrize("options", [{}, {"self_pairs": True}, {"top_k": 3}, {"top_k": 3, "self_pairs": True}])
def test_one_set_against_another_has_the_pairs_between_them(bundles, proteome, tmp_path, options):
    others = write_fasta(tmp_path / "proteins_b.fasta", range(30, 75))
    found = screen(bundles("mlp"), proteome, against=others, **options)
    rows, columns = names(range(NUM_PROTEINS)), names(range(30, 75))
    pairs = [(a, b) for a in rows for b in columns if a != b or options.get("self_pairs")]
    if "top_k" not in options:
        shared = set(rows) & set(columns)
        pairs = [(a, b) for a, b in pairs if not (a in shared and b in shared and a > b)]
        assert by_pair(found).index.tolist() == pairs
        np.testing.assert_allclose(found["probability"], predicted(bundles("mlp"), proteome, pairs), atol=1e-6)
    else:
        expected = predicted(bundles("mlp"), proteome, pairs).rename_axis(["a", "b"]).rename("p").reset_index()
        expected = expected.sort_values(["a", "p", "b"], ascending=[True, False, True]).groupby("a").head(3)
        assert list(by_pair(found).index) == list(zip(expected["a"], expected["b"], strict=True))


class EndedError(Exception):
    """Stands for whatever ends a process in the middle of a screen."""


@pytest.mark.parametrize(
    ("top_k", "estimate"), [(7, False), (None, False), pytest.param(7, True, marks=needs_fast_integers)]
)
def test_a_screen_interrupted_again_and_again_keeps_the_same_pairs(bundles, tmp_path, top_k, estimate):
    model = load_bundle(Path(bundles("mlp")), dtype=torch.float32)
    vectors_PD = 2 * torch.randn(1300, 48, generator=torch.Generator().manual_seed(2))
    ids = tuple(map(str, range(1300)))
    space, _ = pair_space(Proteins(ids, ids), None, self_pairs=False, both_orders=True)
    pool = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,))
    exact = tile_function(model.head, vectors_PD)
    scorer = Scorer(exact, None, vectors_PD.device)
    if estimate:
        scorer = estimating_scorer(model.head, vectors_PD, space, Rescoring(exact, pool))

    def kept(out: Path, *, pieces_at_most: int) -> Pairs:
        selection = Selection(
            num_proteins=1300, top_k=top_k, least=0.1, margin=scorer.margin or 0.0, is_symmetric=True,
            device=torch.device("cpu"),
        )  # fmt: skip
        told = itertools.count()

        def advance(_: float) -> None:
            if next(told) == pieces_at_most:
                raise EndedError

        with open_parts(out, {}) as parts:
            score_bands(space, selection, parts, one_by_one(space, scorer, selection, pool), advance=advance)
            return concatenated(map(selection.still_kept, parts.read_bands()))

    expected = kept(tmp_path / "whole", pieces_at_most=10**9)
    assert 1300 < len(expected) < space.num_pairs
    for pieces in (0, 5, 16, 16, 17, 5):
        with pytest.raises(EndedError):
            kept(tmp_path / "cut", pieces_at_most=pieces)
    found = kept(tmp_path / "cut", pieces_at_most=10**9)
    for name in ("rows", "columns", "logits"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.slow
def test_a_screen_goes_on_where_its_process_was_killed(bundles, tmp_path):
    proteome = write_fasta(tmp_path / "proteome.fasta", range(1400))
    options = {"top_k": 3, "exact": True}
    expected = screen(bundles("wide"), proteome, **options)
    words = [sys.executable, "-m", "peftide", "screen", bundles("wide"), proteome, "--out"]
    words += [str(tmp_path / "scores.parquet"), "--top-k", "3", "--exact", "--device", "cpu", "--precision", "fp32"]
    process = subprocess.Popen([*words, "--threads", "1"], stdout=subprocess.DEVNULL)
    try:
        while not (tmp_path / ".scores.parquet.parts" / "band-00000.parquet").is_file():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.02)
            assert process.returncode is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    done = run_screen(
        ScreenSettings(bundle=bundles("wide"), data=proteome, out=str(tmp_path / "scores.parquet"), **options, **CPU),
        Console(),
    )
    assert 0 < done.num_pairs_scored < done.num_pairs == 1400 * 1399 // 2
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "scores.parquet"), expected)


def test_an_unfinished_screen_is_not_mixed_with_another(bundles, proteome, tmp_path):
    out = tmp_path / "scores.parquet"
    with open_parts(out, {"format": 1, "top_k": 3}) as parts:
        parts.write_vectors(0, np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(UserError, match=r"another screen, unfinished .*top_k 3 there, 5 here.*remove that folder"):
        screen(bundles("mlp"), proteome, top_k=5)
    (tmp_path / ".scores.parquet.parts" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json: is damaged.*remove the folder"):
        screen(bundles("mlp"), proteome)


def test_a_screen_that_ended_before_anything_was_done_leaves_nothing_in_the_way(tmp_path):
    out = tmp_path / "scores.parquet"
    with pytest.raises(EndedError), open_parts(out, {"top_k": 3}):
        raise EndedError
    assert list(tmp_path.iterdir()) == []
    with open_parts(out, {"top_k": 3}):
        pass  # as where the process was killed here
    with open_parts(out, {"top_k": 5}) as parts:
        parts.write_vectors(0, np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(UserError, match="top_k 5 there, 3 here"), open_parts(out, {"top_k": 3}):
        pass
    with pytest.raises(EndedError), open_parts(out, {"top_k": 5}):
        raise EndedError
    assert (parts.folder / "vectors-00000.parquet").is_file()


def test_a_second_process_is_kept_from_the_same_screen(tmp_path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(open_parts(tmp_path / "scores.parquet", {}))
        with pytest.raises(UserError, match="another process is at work"):
            stack.enter_context(open_parts(tmp_path / "scores.parquet", {}))
    with open_parts(tmp_path / "scores.parquet", {}) as parts:
        assert parts.bands() == []


@pytest.mark.parametrize("damage", ["cut off", "altered", "empty"])
def test_a_damaged_part_is_told_and_made_again(tmp_path, damage):
    pairs = Pairs(np.arange(9, dtype=np.int32), np.arange(9, dtype=np.int32), np.arange(9, dtype=np.float32))
    vectors_PD = np.random.default_rng(0).random((9, 4), dtype=np.float32)
    with open_parts(tmp_path / "scores.parquet", {}) as parts:
        parts.write_vectors(0, vectors_PD)
        for number in range(3):
            parts.write_band(number, pairs)
        for name in ("vectors-00000.parquet", "band-00001.parquet"):
            path = parts.folder / name
            content = path.read_bytes()
            place = content.index((vectors_PD if "vectors" in name else pairs.logits)[3].tobytes())
            altered = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            path.write_bytes({"cut off": content[:-9], "altered": altered, "empty": b""}[damage])
        with pytest.raises(UserError, match=r"vectors-00000.parquet: was damaged .*the same command makes it again"):
            parts.read_vectors(0, shape=(9, 4))
        assert parts.read_vectors(0, shape=(9, 4)) is None
        with pytest.raises(UserError, match=r"band-00001.parquet: was damaged .*is removed; the same command makes"):
            list(parts.read_bands())
        assert parts.bands() == [0, 2]


def test_parts_whose_removal_was_cut_short_are_not_those_of_another_screen(tmp_path, monkeypatch):
    nothing = Pairs(np.empty(0, np.int32), np.empty(0, np.int32), np.empty(0, np.float32))
    out = tmp_path / "scores.parquet"
    with open_parts(out, {"top_k": 3}) as parts:
        parts.write_band(0, nothing)

    def killed_after_the_manifest(folder, **options):
        if not Path(folder).exists():
            return
        (Path(folder) / "manifest.json").unlink(missing_ok=True)
        raise EndedError

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", killed_after_the_manifest)
        with contextlib.suppress(EndedError):
            parts.remove()
    with open_parts(out, {"top_k": 5}) as parts:
        assert parts.bands() == []
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_not_a_number_ends_the_screen(bundles, proteome, tmp_path):
    model, run = load_bundle(Path(bundles("mlp")), dtype=torch.float32), read_run(Path(bundles("mlp")))
    model.head.layers[1].weight *= 1e30
    model.head.layers[-1].weight *= 1e30
    save_bundle(tmp_path / "broken", model, {name: run[name] for name in ("settings", "data")})
    for options in ({"top_k": 3}, {"min_probability": 0.2}, {}):
        with pytest.raises(UserError, match="a pair's score is not a number"):
            screen(str(tmp_path / "broken"), proteome, **options)
        shutil.rmtree(tmp_path / ".scores.parquet.parts")


def test_many_pairs_of_long_names_are_written_a_group_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr("peftide.inference.screen_result.ROWS_IN_GROUP", 1000)
    names, number = (f"{'x' * 1000}a", f"{'x' * 1000}b"), 2500
    pairs = Pairs(np.zeros(number, np.int32), np.ones(number, np.int32), np.linspace(-3, 3, number, dtype=np.float32))
    written = write_result(
        tmp_path / "scores.parquet", [(pairs, None)], ids=names, min_probability=0.5, with_rank=False, within=tmp_path,
        probabilities=lambda logits: probabilities_of(logits, None),
    )  # fmt: skip
    file = pyarrow.parquet.ParquetFile(tmp_path / "scores.parquet")
    assert written == 1250
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [750, 500]
    assert file.read()["protein_b"].unique().to_pylist() == [names[1]]


@needs_fast_integers
def test_a_protein_unlike_all_others_is_in_the_right_lists_too(bundles):
    head = load_bundle(Path(bundles("wide")), dtype=torch.float32).head
    generator = torch.Generator().manual_seed(5)
    vectors_PD = head.center_D + head.scale_D * torch.randn(900, len(head.center_D), generator=generator)
    unlike = torch.arange(0, 900, 180)
    place = unlike % len(head.center_D)
    vectors_PD[unlike, place] = head.center_D[place] + 60 * head.scale_D[place]
    space, _ = pair_space(Proteins((*map(str, range(900)),), ("M",) * 900), None, self_pairs=False, both_orders=True)
    everything = slice(0, 900)
    with ThreadPoolExecutor(1) as pool:
        exact = tile_function(head, vectors_PD)
        scorer = estimating_scorer(head, vectors_PD, space, Rescoring(exact, pool))
        found, expected = torch.empty(2, 900, 900)
        scorer.fill(everything, everything, found)
        exact(everything, everything, expected)
    assert float((found - expected).abs().triu(1).max()) < scorer.margin / 2 < float(expected.std()) / 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"out": "scores.tsv"}, "give a name that ends in .parquet"),
        ({"out": "nowhere/scores.parquet"}, "there is no folder nowhere"),
        ({"min_probability": 0.98}, "the calibrated probabilities of this bundle end at 0.97"),
    ],
)
def test_what_cannot_be_screened_is_refused(bundles, proteome, options, said):
    with pytest.raises(UserError, match=said):
        screen(bundles("mlp"), proteome, **options)


def test_two_sets_that_name_different_proteins_alike_are_refused(bundles, proteome, tmp_path):
    others = tmp_path / "others.fasta"
    others.write_text(">Q0003\nMKV\n>Q0001\nMKVL\n>Z\nMKV\n")
    with pytest.raises(UserError, match="2 problems"):
        screen(bundles("mlp"), proteome, against=str(others))


def test_one_protein_alone_is_refused(bundles, tmp_path):
    with pytest.raises(UserError, match="one protein makes no pair"):
        screen(bundles("mlp"), write_fasta(tmp_path / "proteome.fasta", [1]))


def test_a_bundle_that_is_not_of_pairs_is_refused(esm_folder, proteome, tmp_path):
    data = write_examples(tmp_path, "binary")
    out = str(tmp_path / "bundle")
    peftide.train(
        TrainSettings(
            **data, **CPU, out=out, backbone=str(esm_folder), method="head", epochs=1, batch_examples=8,
            baselines="none",
        )
    )  # fmt: skip
    with pytest.raises(UserError, match=r"was not trained to say whether two proteins interact \(task protein"):
        screen(out, proteome)

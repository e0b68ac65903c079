"""Several bundles together: the mean of what each says, whatever interrupts it, and never of different questions."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import peftide
from conftest import write_examples
from peftide.config import EvaluateSettings, PredictSettings, ScreenSettings, TrainSettings
from peftide.errors import UserError
from peftide.evaluation.metrics import measure
from peftide.inference import predict_file as predict_file_module
from peftide.inference import predict_together
from peftide.inference.predict_together import predict_by_bundles

CPU = {"device": "cpu", "precision": "fp32", "threads": 1, "cache_limit_gb": 0.0}
KINDS = ("pair", "binary", "multiclass", "multilabel", "regression", "symmetry")


@pytest.fixture(scope="module")
def trained(esm_folder, tmp_path_factory):
    """A folder of two bundles by kind of examples, a frozen one and a LoRA one, and their examples; trained once."""
    done = {}

    def of(kind: str) -> tuple[Path, dict]:
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            data = write_examples(folder, kind)
            for seed, method in enumerate(("head", "lora")):
                peftide.train(
                    TrainSettings(
                        **data, **CPU, out=str(folder / "bundles" / f"seed-{seed}"), backbone=str(esm_folder),
                        seed=seed, method=method, epochs=1, batch_examples=8, head_width=16, baselines="none",
                        audit="none",
                    )
                )  # fmt: skip
            done[kind] = folder / "bundles", data
        return done[kind]

    return of


def given(data: dict, bundle: Path, out: Path, **options) -> PredictSettings:
    files = {name: data[name] for name in ("data", "sequences") if name in data}
    return PredictSettings(**files, bundle=str(bundle), out=str(out), **CPU, **options)


def predict(settings: PredictSettings) -> tuple[pd.DataFrame, str]:
    said = io.StringIO()
    predict_by_bundles(settings, Console(file=said, width=300))
    return pd.read_parquet(settings.out), said.getvalue()


def interrupted_while_writing(monkeypatch, module, settings: PredictSettings) -> None:
    """A prediction that Ctrl-C ends where `module` begins to write its answers."""

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_answers", stop)
        with pytest.raises(KeyboardInterrupt):
            predict(settings)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_of_a_folder_of_bundles_are_the_mean_of_theirs(trained, tmp_path, kind):
    bundles, data = trained(kind)
    each = [predict(given(data, bundles / f"seed-{seed}", tmp_path / f"{seed}.parquet"))[0] for seed in (0, 1)]
    found, said = predict(given(data, bundles, tmp_path / "both.parquet"))
    assert "2 models together: seed-0, seed-1" in said
    assert f"{len(found)} predictions written to" in said
    assert list(found.columns) == list(each[0].columns)
    numbers = [name for name in found.columns if name.startswith(("probability", "group_"))]
    if kind == "regression":
        numbers = ["prediction"]
    classes = [name for name in numbers if not name.startswith("group_")]  # a group's is no mean: it follows from them
    assert not np.allclose(each[0][classes], each[1][classes])
    assert np.allclose(found[classes], (each[0][classes] + each[1][classes]) / 2, rtol=1e-6)
    ids = [name for name in found.columns if name not in [*numbers, "prediction"]]
    assert found[ids].equals(each[0][ids])
    if kind == "multiclass":
        assert list("probability_" + found.prediction) == list(found[numbers].idxmax(axis=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.parquet", "1.parquet", "both.parquet"]


def test_a_threshold_and_abstention_are_of_the_mean(trained, tmp_path):
    bundles, data = trained("pair")
    whole, _ = predict(given(data, bundles, tmp_path / "whole.parquet"))
    middle = float(whole.probability.median())
    found, _ = predict(given(data, bundles, tmp_path / "cut.parquet", threshold=middle))
    assert list(found.prediction) == ["1" if value >= middle else "0" for value in found.probability]
    sure = np.maximum(whole.probability, 1 - whole.probability)
    limit = float(sure.median())
    found, said = predict(given(data, bundles, tmp_path / "sure.parquet", min_confidence=limit))
    assert list(found.prediction == "") == list(sure < limit)
    assert f"({(sure < limit).sum()} without an answer)" in said


def test_evaluation_is_of_the_mean_scores(trained, tmp_path, capsys):
    bundles, data = trained("pair")
    files = {name: data[name] for name in ("data", "sequences")}
    found = peftide.evaluate(EvaluateSettings(**files, bundle=str(bundles), out=str(tmp_path / "out"), **CPU))
    each = [
        peftide.evaluate(EvaluateSettings(**files, bundle=str(bundles / f"seed-{seed}"), **CPU)).predictions
        for seed in (0, 1)
    ]
    mean = np.mean([one["probability"] for one in each], axis=0)
    assert np.allclose(found.predictions["probability"], mean, rtol=1e-6)
    targets = np.array(found.predictions["label"], dtype=np.float32)
    assert found.metrics["aupr"] == pytest.approx(measure("binary", targets, mean, classes=("0", "1"))["aupr"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"] == found.metrics
    assert f"{bundles / 'seed-1'}:" in capsys.readouterr().out


def test_every_row_of_the_training_table_is_warned_of(trained, capsys):
    bundles, data = trained("binary")
    peftide.evaluate(EvaluateSettings(data=data["data"], bundle=str(bundles), split="all", **CPU))
    said = capsys.readouterr().out.replace("\n", " ")
    for seed in (0, 1):
        bundle = bundles / f"seed-{seed}"
        assert f"is the table that {bundle} was trained on" in said
        assert f"{bundle / 'split.tsv'} says which rows are the test part" in said


@pytest.mark.parametrize("kind", ["pair", "multiclass"])
def test_what_one_model_has_scored_is_kept_when_the_next_is_interrupted(trained, tmp_path, monkeypatch, kind):
    bundles, data = trained(kind)
    whole, _ = predict(given(data, bundles, tmp_path / "whole.parquet"))
    settings = given(data, bundles, tmp_path / "scores.parquet")
    predict_file = predict_together.predict_file

    def interrupted(settings, *rest, **options):
        if settings.bundle.endswith("seed-1"):
            raise KeyboardInterrupt
        return predict_file(settings, *rest, **options)

    monkeypatch.setattr(predict_together, "predict_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict(settings)
    assert not Path(settings.out).exists()
    monkeypatch.undo()
    with pytest.raises(UserError, match="holds another prediction, unfinished"):
        predict(replace(settings, column_split="split"))
    found, said = predict(replace(settings, threshold=0.5 if kind == "multiclass" else 0.4))
    assert f"{bundles / 'seed-0'}: scored already" in said
    scores = [name for name in whole.columns if name.startswith("probability")]
    assert found[scores].equals(whole[scores])
    assert not list(tmp_path.glob(".*"))


def test_another_threshold_may_be_given_when_a_model_was_interrupted(trained, tmp_path, monkeypatch):
    bundles, data = trained("pair")
    settings = given(data, bundles, tmp_path / "scores.parquet")

    interrupted_while_writing(monkeypatch, predict_file_module, settings)
    assert (tmp_path / ".scores.parquet.parts" / ".1-seed-0.parquet.parts").is_dir()
    found, _ = predict(replace(settings, threshold=0.01))
    assert list(found.prediction) == ["1"] * len(found)


def test_scores_that_were_damaged_or_are_of_other_examples_are_found_out(trained, tmp_path, monkeypatch):
    bundles, data = trained("pair")
    settings = given(data, bundles, tmp_path / "scores.parquet")
    folder = tmp_path / ".scores.parquet.parts"

    interrupted_while_writing(monkeypatch, predict_together, settings)
    tables = sorted(folder.glob("*.parquet"))
    assert [path.name for path in tables] == ["1-seed-0.parquet", "2-seed-1.parquet"]
    kept = tables[1].read_bytes()
    tables[1].write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UserError, match=r"2-seed-1\.parquet: is damaged .*; remove it, and the same command makes it"):
        predict(settings)
    pd.read_parquet(tables[0]).iloc[:-1].to_parquet(tables[1], index=False)
    with pytest.raises(UserError, match=r"2-seed-1\.parquet: is damaged \(other examples than in 1-seed-0\.parquet\)"):
        predict(settings)
    tables[1].write_bytes(kept)
    whole = tables[0].read_bytes()
    pd.read_parquet(tables[0]).iloc[:0].to_parquet(tables[0], index=False)
    with pytest.raises(UserError, match=r"1-seed-0\.parquet: is damaged \(fewer examples than in 2-seed-1\.parquet\)"):
        predict(settings)
    tables[0].write_bytes(whole)
    tables[1].unlink()
    assert len(predict(settings)[0]) == len(pd.read_csv(data["data"], sep="\t"))


def test_bundles_that_answer_different_questions_are_refused(trained, tmp_path):
    mixed = tmp_path / "mixed"
    for kind in ("multiclass", "pair"):
        shutil.copytree(trained(kind)[0] / "seed-0", mixed / kind)
    data = trained("pair")[1]
    with pytest.raises(
        UserError, match=r"different questions(.|\n)*pair: task pair, binary of 0, 1, and .*multiclass: task"
    ):
        predict(given(data, mixed, tmp_path / "scores.parquet"))
    with pytest.raises(UserError, match="different questions"):
        peftide.evaluate(EvaluateSettings(data=data["data"], bundle=str(mixed), **CPU))


def test_a_name_that_writes_on_the_terminal_is_refused(trained, tmp_path):
    shutil.copytree(trained("pair")[0] / "seed-0", tmp_path / "bundles" / "seed\x1b[2J")
    with pytest.raises(UserError, match=r"'seed\\x1b\[2J' in it has control characters in its name; rename it"):
        predict(given(trained("pair")[1], tmp_path / "bundles", tmp_path / "scores.parquet"))


@pytest.mark.parametrize("name", ["data", "sequences"])
@pytest.mark.parametrize("place", ["nowhere.tsv", "."])
def test_files_that_are_not_there_are_refused_before_any_model_is_loaded(trained, tmp_path, monkeypatch, name, place):
    bundles, data = trained("pair")
    monkeypatch.setattr(predict_together, "predict_file", pytest.fail)
    with pytest.raises(UserError, match=r"no such file|is a folder"):
        predict(given(data | {name: str(tmp_path / place)}, bundles, tmp_path / "scores.parquet"))
    assert not list(tmp_path.iterdir())


def test_a_bundle_that_is_not_whole_is_refused_before_any_has_scored(trained, tmp_path, monkeypatch):
    bundles, data = trained("pair")
    shutil.copytree(bundles, tmp_path / "bundles")
    (tmp_path / "bundles" / "seed-1" / "head.safetensors").unlink()
    monkeypatch.setattr(predict_together, "predict_file", pytest.fail)
    with pytest.raises(UserError, match=r"seed-1: this bundle is incomplete: it has no head\.safetensors"):
        predict(given(data, tmp_path / "bundles", tmp_path / "scores.parquet"))


def test_an_unfinished_run_is_no_folder_of_bundles(trained, tmp_path):
    bundles, data = trained("pair")
    for place in ("checkpoints", ".bundle.77.new"):
        shutil.copytree(bundles / "seed-0", tmp_path / "run" / place)
    with pytest.raises(UserError, match=r"run: has no run\.json, so it is not a finished bundle"):
        predict(given(data, tmp_path / "run", tmp_path / "scores.parquet"))


def test_numbers_cannot_be_withheld_by_confidence(trained, tmp_path):
    bundles, data = trained("regression")
    with pytest.raises(UserError, match="--min-confidence: a regression prediction is not one answer"):
        predict(given(data, bundles, tmp_path / "scores.parquet", min_confidence=0.8))
    assert not list(tmp_path.iterdir())


def test_a_command_for_one_bundle_names_those_of_a_folder(trained, tmp_path):
    bundles, data = trained("pair")
    with pytest.raises(UserError, match=r"is a folder of bundles; give one of them: .*seed-0, .*seed-1"):
        peftide.screen(
            ScreenSettings(bundle=str(bundles), data=data["sequences"], out=str(tmp_path / "all.parquet"), **CPU)
        )
    with pytest.raises(UserError, match=r"has no run\.json"):
        predict(given(data, tmp_path, tmp_path / "scores.parquet"))

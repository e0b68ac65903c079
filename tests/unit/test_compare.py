"""Comparing methods: what is trained, what is not trained again, and whether the tables say what the bundles say."""

import io
import json
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from transformers import EsmConfig, EsmModel

import peftide
from conftest import write_examples
from peftide.cli import main
from peftide.config import CompareSettings, EvaluateSettings, TrainSettings, load_settings, to_toml
from peftide.data.datasets import read_dataset
from peftide.errors import UserError
from peftide.evaluation.compared import (
    Cost,
    MethodSummary,
    SeedRun,
    Variant,
    best_of,
    check_measurable,
    chosen_of,
    summarise,
    tell,
)
from peftide.evaluation.intervals import paired_difference
from peftide.evaluation.metrics import statistic
from peftide.models.bundle import load_bundle, read_run
from peftide.training import compare as compare_module
from peftide.training.compare import run_compare
from peftide.training.loop import Trainer
from peftide.training.run import run_training

COST = Cost(trained_parameters=10, peak_memory_bytes=2.0**30, seconds=3.0, weights_bytes=40, bundle_bytes=50)


def settings_for(folder: Path, esm_folder: Path, *, kind: str = "binary", **options) -> CompareSettings:
    given = {
        "out": str(folder / "compared"), "backbones": (str(esm_folder),), "methods": ("head", "lora"), "seeds": 2,
        "epochs": 2, "batch_examples": 8, "device": "cpu", "precision": "fp32", "token_budget": 150,
        "cache_dir": str(folder / "cache"), "baselines": "quick", "audit": "none",
    }  # fmt: skip
    return CompareSettings(**write_examples(folder, kind), **(given | options))


def run(settings: CompareSettings):
    """The comparison, and what it printed."""
    console = Console(file=io.StringIO(), width=300)
    return run_compare(settings, console), console.file.getvalue()


def bundle(settings: CompareSettings, method: str, seed: int) -> Path:
    return (
        Path(settings.out)
        / Path(settings.backbones[0]).as_posix().strip("/").replace("/", "-")
        / method
        / f"seed-{seed}"
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory, esm_folder):
    """A finished comparison of the binary examples, shared by the tests that only read it."""
    settings = settings_for(tmp_path_factory.mktemp("compared"), esm_folder)
    return settings, *run(settings)


def test_every_method_and_seed_is_an_ordinary_bundle(compared):
    settings, found, _ = compared
    assert [(run.variant.method, run.seed) for run in found.runs] == [
        ("head", 0), ("lora", 0), ("head", 1), ("lora", 1),
    ]  # fmt: skip
    for one in found.runs:
        folder = Path(one.folder)
        assert folder == bundle(settings, one.variant.method, one.seed)
        assert read_run(folder)["settings"]["seed"] == one.seed
        assert load_bundle(folder, dtype=torch.float32).method == one.variant.method


def test_the_table_has_the_numbers_of_the_bundles(compared):
    settings, found, _ = compared
    folder = Path(settings.out)
    table = pd.read_csv(folder / "compare.tsv", sep="\t", dtype={"seed": str}).set_index(["method", "seed"])
    document = json.loads((folder / "compare.json").read_text("utf-8"))
    assert document["metric"] == "aupr"
    assert document["settings"] == json.loads(json.dumps(asdict(settings)))
    for method in settings.methods:
        runs = {seed: read_run(bundle(settings, method, seed)) for seed in (0, 1)}
        for seed, facts in runs.items():
            row = table.loc[method, str(seed)]
            assert row.val_aupr == facts["metrics"]["val"]["aupr"]
            assert row.test_aupr == facts["metrics"]["test"]["aupr"]
            assert row.trained_parameters == facts["model"]["trained_parameters"]
            assert row.peak_memory_bytes == facts["training"]["peak_memory_bytes"]
            assert row.seconds == facts["training"]["seconds"]
            files = [path for path in bundle(settings, method, seed).rglob("*") if path.is_file()]
            assert row.bundle_bytes == sum(path.stat().st_size for path in files)
            assert 0 < row.weights_bytes < row.bundle_bytes
        tests = [facts["metrics"]["test"]["aupr"] for facts in runs.values()]
        summary = table.loc[method, "all"]
        assert summary.test_aupr == pytest.approx(np.mean(tests))
        assert summary.test_aupr_deviation == pytest.approx(np.std(tests, ddof=1))
        assert summary.peak_memory_bytes == max(facts["training"]["peak_memory_bytes"] for facts in runs.values())
    assert len(found.methods) == 2
    assert [row["variant"]["method"] for row in document["methods"]] == ["head", "lora"]


def test_the_averaged_scores_and_the_difference_are_those_of_the_predictions(compared):
    settings, found, _ = compared
    averages, part = {}, read_dataset(settings).part("test")
    for method in settings.methods:
        tables = [pd.read_csv(bundle(settings, method, seed) / "predictions.tsv", sep="\t") for seed in (0, 1)]
        averages[method] = np.mean([table[table.split == "test"].probability for table in tables], axis=0)
    statistics = {
        method: statistic("binary", part.targets, scores, classes=part.classes) for method, scores in averages.items()
    }
    for method in found.methods:
        assert method.averaged.estimate == pytest.approx(statistics[method.variant.method](None)["aupr"])
        assert method.averaged.low <= method.averaged.estimate <= method.averaged.high
    best = best_of(found.methods).variant.method
    (other,) = [method for method in found.methods if method.variant.method != best]
    expected = paired_difference(
        statistics[other.variant.method], statistics[best], part.members_NK, generator=np.random.default_rng(0)
    )["aupr"]
    assert other.difference == expected
    assert other.difference.estimate <= 0


def test_the_averaged_scores_of_a_method_are_those_of_its_bundles_together(compared):
    settings, found, said = compared
    chosen = chosen_of(found.methods, "aupr").variant
    folder = bundle(settings, chosen.method, 0).parent
    assert f"to predict with all seeds of {chosen}: peftide predict {folder} ..." in said
    for method in found.methods:
        folder = bundle(settings, method.variant.method, 0).parent
        machine = {"device": "cpu", "precision": "fp32", "cache_dir": settings.cache_dir}
        together = peftide.evaluate(EvaluateSettings(data=settings.data, bundle=str(folder), **machine))
        assert together.metrics["aupr"] == pytest.approx(method.averaged.estimate)


def test_every_run_is_compared_with_the_same_baselines_computed_once(compared):
    _, found, said = compared
    kept = [read_run(Path(run.folder))["assessment"]["baselines"] for run in found.runs]
    assert set(found.baselines) == {"majority", "composition", "kmers"}
    for baselines in kept:
        assert found.baselines == {name: row["metrics"]["test"]["aupr"] for name, row in baselines.items()}
    assert len({baselines["composition"]["seconds"] for baselines in kept}) == 1
    assert kept[0]["composition"]["seconds"] > 0
    assert "baseline composition" in said


def test_a_run_is_judged_as_it_would_be_alone(compared, tmp_path):
    settings, _, _ = compared
    inside = read_run(bundle(settings, "head", 1))
    alone = TrainSettings(**(inside["settings"] | {"out": str(tmp_path / "alone"), "baselines": settings.baselines}))
    run_training(alone, Console(quiet=True))

    def judged(document):
        for row in document["assessment"]["baselines"].values():
            row.pop("seconds")
        return document["assessment"]

    assert judged(read_run(tmp_path / "alone")) == judged(inside)


def test_the_page_names_every_method_and_says_how_to_repeat_it(compared):
    settings, _, said = compared
    page = (Path(settings.out) / "compare.html").read_text("utf-8")
    assert page.count("<svg") == 2
    page = re.sub(r"<[^>]+>", "", page)
    for text in ("head", "lora", "Amino-acid composition", "Best on the test part", "peftide compare "):
        assert text in page
    assert "Best on the test part: " in said


def test_the_split_is_the_same_for_all_seeds(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), baselines="none", epochs=1, split_by="protein")
    table = pd.read_csv(settings.data, sep="\t").drop(columns="split")
    table.to_csv(settings.data, sep="\t", index=False)
    settings = replace(settings, seed=3, val_fraction=0.25, test_fraction=0.25)
    run(settings)
    splits = [(bundle(settings, "head", seed) / "split.tsv").read_text("utf-8") for seed in (3, 4)]
    assert splits[0] == splits[1]
    weights = [(bundle(settings, "head", seed) / "head.safetensors").read_bytes() for seed in (3, 4)]
    assert weights[0] != weights[1]
    again = TrainSettings(**read_run(bundle(settings, "head", 4))["settings"])
    run_training(replace(again, out=str(tmp_path / "alone")), Console(quiet=True))
    assert (tmp_path / "alone" / "split.tsv").read_text("utf-8") == splits[0]
    assert (tmp_path / "alone" / "head.safetensors").read_bytes() == weights[1]


def test_what_is_finished_is_not_trained_again(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), baselines="none")
    first, _ = run(settings)
    stamps = {path: path.stat().st_mtime_ns for path in bundle(settings, "head", 0).rglob("*")}
    more = replace(settings, seeds=3)
    second, said = run(more)
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert said.count("finished earlier") == 2
    assert [one.seed for one in second.runs] == [0, 1, 2]
    assert second.runs[:2] == first.runs
    assert second.methods[0].seeds == (0, 1, 2)


def test_a_report_that_could_not_be_written_is_written_by_the_next_call(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), baselines="none", seeds=1)
    run(settings)
    path = bundle(settings, "head", 0) / "report.html"
    whole = path.read_bytes()
    path.unlink()
    assert "finished earlier" in run(settings)[1]
    assert path.read_bytes() == whole


def test_an_unfinished_bundle_is_trained_again(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), baselines="none", seeds=1)
    run(settings)
    path = bundle(settings, "head", 0) / "run.json"
    whole = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(whole | {"assessment": None}), "utf-8")
    assert "finished earlier" not in run(settings)[1]
    path.write_text(json.dumps(whole | {"training": whole["training"] | {"ended": "interrupted in epoch 2"}}), "utf-8")
    assert "finished earlier" not in run(settings)[1]
    assert "finished earlier" in run(settings)[1]


def test_a_changed_setting_or_file_is_refused_with_what_differs(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head", "lora"), seeds=1, baselines="none")
    run(settings)
    with pytest.raises(UserError) as refused:
        run(replace(settings, epochs=3, lora_matrices=("query",)))
    said = str(refused.value)
    assert "give another --out" in said
    assert said.count("epochs is 2 there and 3 here") == 2
    assert "lora_matrices is key+value there and query here" in said
    with open(settings.data, "a") as stream:
        stream.write("P99\tMKVLAAGIW\tmembrane\ttrain\n")
    with pytest.raises(UserError, match=r"the content of .*binary.tsv is another there"):
        run(settings)


def test_a_setting_that_a_method_ignores_may_change(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), seeds=1, baselines="none")
    run(settings)
    assert "finished earlier" in run(replace(settings, methods=("head", "lora"), lora_rank=2))[1]


def test_a_split_column_is_not_said_to_overrule_a_seed_that_nobody_gave(compared):
    assert "is ignored" not in compared[2]


def test_where_the_files_lie_does_not_matter(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), seeds=1, baselines="none")
    run(settings)
    monkeypatch.chdir(tmp_path)
    said = run(replace(settings, data=Path(settings.data).name, out="compared", cache_dir="elsewhere", audit="fast"))[1]
    assert "finished earlier" in said


def test_one_method_that_fails_is_told_and_the_others_go_on(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, lora_layers="9", seeds=1, baselines="none")
    found, said = run(settings)
    assert [method.variant.method for method in found.methods] == ["head"]
    assert "outside layers 1 to 4" in found.runs[1].reason
    assert "failed, and the others go on: " in said
    assert re.search(r"lora on\s.*\sfailed\s+seed 0", said)
    table = pd.read_csv(Path(settings.out) / "compare.tsv", sep="\t")
    assert "outside layers 1 to 4" in table[table.method == "lora"].reason.item()
    assert "outside layers 1 to 4" in (Path(settings.out) / "compare.html").read_text("utf-8")
    with pytest.raises(UserError, match=r"no run could be trained \(1 problem\)"):
        run(replace(settings, methods=("lora",), seeds=2))


def test_what_no_run_could_be_made_with_is_refused_before_anything_is_read(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, lora_layers="9", state_layers="3")
    settings = replace(
        settings, data=str(tmp_path / "not there.tsv"), backbones=(str(tmp_path / "nowhere"), str(esm_folder))
    )
    with pytest.raises(UserError, match="not there"):  # head could be trained
        run(settings)
    with pytest.raises(
        UserError, match=r"no run could be trained \(2 problems\)\n.*no such folder.*\n.*lora_layers = 9"
    ):
        run(replace(settings, methods=("lora",)))


def test_an_interrupted_comparison_goes_on_where_it_was(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), seeds=3, baselines="none")
    trained = []

    def interrupted_in_the_second(wanted, console, examples):
        trained.append(wanted.seed)
        if len(trained) == 2:
            signal.raise_signal(signal.SIGINT)
        return run_training(wanted, console, examples)

    monkeypatch.setattr(compare_module, "run_training", interrupted_in_the_second)
    console = Console(file=io.StringIO(), width=300)
    with pytest.raises(KeyboardInterrupt):
        run_compare(settings, console)
    assert "1 of 3 runs are finished; the same command goes on from there" in console.file.getvalue()
    run(settings)
    assert trained == [0, 1, 1, 2]


def test_a_run_that_is_interrupted_while_it_trains_ends_the_comparison(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), seeds=2, baselines="none")
    validations = []

    def interrupted(trainer):
        validations.append(trainer)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_compare(settings, Console(quiet=True))
    assert len(validations) == 1
    assert "finished earlier" not in run(settings)[1]


@pytest.mark.parametrize("kind", ["pair", "multiclass", "multilabel", "regression", "symmetry"])
def test_every_kind_of_target_is_compared(tmp_path, esm_folder, kind):
    settings = settings_for(tmp_path, esm_folder, kind=kind, methods=("head",), seeds=1, epochs=1, baselines="none")
    found, _ = run(settings)
    assert [method.averaged.estimate for method in found.methods] == pytest.approx(
        [one.metrics["test"][found.metric] for one in found.runs]
    )
    assert all(method.spreads["test"][found.metric].standard_deviation is None for method in found.methods)


def test_without_test_examples_nothing_is_trained(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder)
    path = Path(settings.data)
    path.write_text(path.read_text("utf-8").replace("\ttest", "\tval"), "utf-8")
    with pytest.raises(UserError, match="there are no test examples"):
        run(settings)
    assert list(Path(settings.out).iterdir()) == []


def test_a_metric_that_the_test_part_leaves_undefined_is_refused(tmp_path):
    dataset = read_dataset(TrainSettings(**write_examples(tmp_path, "binary"), out="o"))
    test = dataset.part("test")
    check_measurable(test, "aupr")
    with pytest.raises(UserError, match="metric aupr is not defined on the 2 test examples"):
        check_measurable(test.subset(test.targets == 1), "aupr")


def test_every_backbone_has_the_random_one_of_its_shape_beside_it(tmp_path, esm_folder):
    small, large = str(esm_folder), str(tmp_path / "large")
    config = EsmConfig.from_pretrained(small)
    config.hidden_size, config.intermediate_size = 2 * config.hidden_size, 2 * config.intermediate_size
    shutil.copytree(small, large)
    EsmModel(config).save_pretrained(large)
    settings = settings_for(
        tmp_path, esm_folder, backbones=(small, large), methods=("head",), seeds=1, epochs=1, baselines="all"
    )
    found, _ = run(settings)
    names = [f"random-backbone of {backbone}" for backbone in (small, large)]
    assert set(found.baselines) == {"majority", "composition", "kmers", "homology", *names}
    for name, one in zip(names, found.runs, strict=True):
        rows = read_run(Path(one.folder))["assessment"]["baselines"]
        assert found.baselines[name] == rows["random-backbone"]["metrics"]["test"]["aupr"]
    table = pd.read_csv(Path(settings.out, "compare.tsv"), sep="\t")
    assert {f"baseline {name}" for name in names} <= set(table["method"])
    page = Path(settings.out, "compare.html").read_text("utf-8")
    assert all(f"Random backbone of {backbone}" in page for backbone in (small, large))


def test_backbones_whose_folders_would_be_one_are_refused(tmp_path, esm_folder):
    with pytest.raises(UserError, match="two would share a folder"):
        run(settings_for(tmp_path, esm_folder, backbones=("a/b", "a-b")))


def summaries(scores_by_method, targets, **options) -> tuple[MethodSummary, ...]:
    """Summaries of binary scores (one seed each) over as many single proteins."""
    from peftide.records import Dataset, Proteins

    number = len(targets)
    proteins = Proteins(tuple(f"P{i}" for i in range(number)), ("MKV",) * number)
    test = Dataset(
        "protein", "binary", proteins, np.arange(number)[:, None], np.array(targets, np.float32), ("no", "yes")
    )
    runs, scores = [], {}
    for method, values in scores_by_method.items():
        variant = Variant("b", method)
        metrics = statistic("binary", test.targets, np.array(values), classes=test.classes)(None)
        runs.append(SeedRun(variant, 0, "f", metrics={"val": metrics, "test": metrics}, cost=COST))
        scores[variant, 0] = np.array(values)
    return summarise(test, runs, scores, metric=options.get("metric", "aupr"), groups_NK=test.members_NK, seed=0)


def test_a_method_does_not_differ_from_its_copy():
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 2, 60)
    scores = np.clip(0.3 * targets + 0.7 * generator.random(60), 0, 1)
    first, copy = summaries({"head": scores, "lora": scores}, targets)
    assert first.difference is None
    assert (copy.difference.estimate, copy.difference.low, copy.difference.high) == (0, 0, 0)
    assert copy.difference.probability_a_is_better == 0.5
    assert copy.averaged == first.averaged


def test_the_lowest_value_is_the_best_where_lower_is_better():
    targets = np.tile([0, 1], 20)
    sure, unsure = np.where(targets, 0.9, 0.1), np.where(targets, 0.6, 0.4)
    found = summaries({"unsure": unsure, "sure": sure}, targets, metric="log_loss")
    assert best_of(found).variant.method == "sure"
    assert chosen_of(found, "log_loss").variant.method == "sure"
    assert found[0].difference.estimate > 0


def test_the_verdict_tells_apart_what_the_interval_tells_apart():
    targets = np.tile([0, 1], 40)
    good, same = np.where(targets, 0.9, 0.1), np.where(targets, 0.9, 0.1)
    noise = np.random.default_rng(1).random(80)
    found = summaries({"good": good, "same": same, "noise": noise}, targets)
    said = tell(found, {"composition": 0.61, "majority": 0.5}, "aupr")
    assert said[0].startswith("Best on the test part: good on b, aupr 1.000")
    assert "same on b: +0.000 (97.5% interval +0.000 to +0.000), not to be told apart" in said[1]
    assert said[2].startswith("noise on b: -0.")
    assert said[2].endswith("behind it.")
    assert said[3] == "Validation alone would choose the same."
    assert said[4] == "The best predictor without a language model, composition, reaches aupr 0.610."


def test_the_command_compares(tmp_path, esm_folder, capsys):
    settings = settings_for(tmp_path, esm_folder, methods=("head",), seeds=1, epochs=1, baselines="none")
    path = tmp_path / "compare.toml"
    path.write_text(to_toml(settings), "utf-8")
    assert load_settings(CompareSettings, str(path), {}) == settings
    assert main(["compare", "--config", str(path)]) == 0
    assert "head on" in capsys.readouterr().out

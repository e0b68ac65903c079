"""Sweeps: every combination once, nothing twice, nothing from the test part, and settings that can be trained with."""

import html
import io
import json
import re
import shlex
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from conftest import limited_files, write_examples
from peftide.cli import main, parse
from peftide.config import SweepSettings, TrainSettings, load_settings, to_toml
from peftide.config.vary import read_variations
from peftide.data.datasets import read_dataset
from peftide.errors import UserError
from peftide.evaluation.robustness import Trial, conclude
from peftide.inference.predict import score_examples
from peftide.models.backbones import fingerprint, load_backbone
from peftide.models.bundle import load_bundle, read_run
from peftide.training import sweep as sweep_module
from peftide.training.build import build_model
from peftide.training.loop import Trainer
from peftide.training.run import run_training
from peftide.training.search import search_optuna
from peftide.training.shelf import BackboneShelf
from peftide.training.sweep import run_sweep, without_test
from peftide.training.trial import run_trial

VARY = ("lora_rank=1,4", "learning_rate=1e-3,1e-2")
SEARCH = {"search": "optuna", "vary": ("lora_rank=1..8", "lora_matrices=key+value,query", "learning_rate=1e-3..1e-1")}


def settings_for(folder: Path, esm_folder: Path, *, kind: str = "binary", **options) -> SweepSettings:
    given = {
        "out": str(folder / "swept"), "backbone": str(esm_folder), "epochs": 2, "batch_examples": 8, "device": "cpu",
        "precision": "fp32", "token_budget": 150, "cache_dir": str(folder / "cache"), "audit": "none", "vary": VARY,
    }  # fmt: skip
    return SweepSettings(**write_examples(folder, kind), **(given | options))


def run(settings: SweepSettings):
    """The result, and what was printed."""
    console = Console(file=io.StringIO(), width=300)
    return run_sweep(settings, console), console.file.getvalue()


def stamps(settings: SweepSettings) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in Path(settings.out).glob("trials/*/trial.json")}


def numbers(result) -> list[tuple[object, ...]]:
    return [(*trial.values.values(), trial.value, trial.best_epoch) for trial in result.trials]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, esm_folder):
    """A finished grid, shared by the tests that only read it."""
    settings = settings_for(tmp_path_factory.mktemp("swept"), esm_folder)
    return settings, *run(settings)


def test_a_grid_tries_every_combination_once(swept):
    settings, found, said = swept
    assert [tuple(trial.values.values()) for trial in found.trials] == [(1, 1e-3), (1, 1e-2), (4, 1e-3), (4, 1e-2)]
    assert len(stamps(settings)) == 4
    assert "trial 4 of 4: lora_rank=4, learning_rate=0.01: validation aupr" in said
    assert {trial.state for trial in found.trials} == {"finished"}


def test_a_trial_is_what_train_makes_of_its_settings(swept, tmp_path):
    settings, found, _ = swept
    table = pd.read_csv(Path(settings.out) / "sweep.tsv", sep="\t")
    for number in (0, 3):
        stored = json.loads((Path(table.folder[number]) / "trial.json").read_text("utf-8"))
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in stored["settings"].items()}
        out = tmp_path / str(number)
        run_training(TrainSettings(**(values | {"out": str(out), "baselines": "none"})), Console(quiet=True))
        training = read_run(out)["training"]
        assert found.trials[number].value == training["best_value"] == table.val_aupr[number]
        assert [row["loss"] for row in found.trials[number].history] == [row["loss"] for row in training["history"]]


def test_the_files_say_what_was_found(swept):
    settings, found, said = swept
    folder = Path(settings.out)
    document = json.loads((folder / "sweep.json").read_text("utf-8"))
    assert document["settings"] == json.loads(json.dumps(asdict(settings)))
    assert [trial["value"] for trial in document["trials"]] == [trial.value for trial in found.trials]
    assert document["best"] == found.best == int(np.argmax([trial.value for trial in found.trials]))
    assert document["data"]["examples"] == {"train": 10, "val": 4}
    table = pd.read_csv(folder / "sweep.tsv", sep="\t")
    assert table[table.is_best].index.tolist() == [found.best]
    page = (folder / "sweep.html").read_text("utf-8")
    assert page.count("<svg") == 1
    assert all(sentence in said for sentence in found.verdict)
    [command] = re.findall(r"peftide sweep .*", html.unescape(re.sub(r"<[^>]+>", "", page)))
    assert parse(shlex.split(command)[1:])[1] == settings
    assert f"peftide train --config {folder}/best.toml" in re.sub(r"<[^>]+>", "", page)


def test_the_best_settings_can_be_trained_with(swept):
    settings, found, _ = swept
    path = Path(settings.out) / "best.toml"
    best = parse(["train", "--config", str(path)])[1]
    assert best == load_settings(TrainSettings, str(path), {})
    trial = found.trials[found.best]
    assert (best.lora_rank, best.learning_rate) == tuple(trial.values.values())
    assert (best.epochs, best.data, best.out) == (2, settings.data, str(Path(settings.out) / "best"))
    assert main(["train", "--config", str(path), "--baselines", "none"]) == 0
    run_document = read_run(Path(best.out))
    assert run_document["training"]["best_value"] == trial.value
    assert "test" in run_document["metrics"]


def test_what_is_finished_is_not_tried_again(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",))
    first, _ = run(settings)
    before = stamps(settings)
    second, said = run(replace(settings, vary=("lora_rank=1,2,4",)))
    assert said.count("known already") == 2
    assert stamps(settings).items() >= before.items()
    assert numbers(second) == [numbers(first)[0], numbers(second)[1], numbers(first)[1]]
    third, _ = run(replace(settings, vary=("lora_rank=2,4", "lora_layers=last-quarter,all")))
    assert third.trials[0].values == {"lora_rank": 2, "lora_layers": "last-quarter"}
    assert third.trials[0].value == second.trials[1].value


def test_an_interrupted_sweep_goes_on_without_repeating(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder)
    tried = []

    def interrupted_in_the_third(bench, wanted, values, **options):
        tried.append(tuple(values.values()))
        if len(tried) == 3:
            signal.raise_signal(signal.SIGINT)
        return run_trial(bench, wanted, values, **options)

    monkeypatch.setattr(sweep_module, "run_trial", interrupted_in_the_third)
    console = Console(file=io.StringIO(), width=300)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(settings, console)
    assert "2 trials are finished; the same command goes on from there" in console.file.getvalue()
    run(settings)
    assert tried == [(1, 1e-3), (1, 1e-2), (4, 1e-3), (4, 1e-3), (4, 1e-2)]


def test_a_trial_that_is_interrupted_while_it_trains_is_not_kept(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", lambda trainer: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    assert stamps(settings) == {}


def test_other_settings_than_the_varied_ones_must_stay(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",))
    run(settings)
    with pytest.raises(UserError, match="epochs is 2 there and 3 here"):
        run(replace(settings, epochs=3))
    with pytest.raises(UserError, match=r"\(1 problem\)\n  lora_rank is . there and 8 here"):
        run(replace(settings, vary=("learning_rate=1e-3,1e-2",)))
    with open(settings.data, "a") as stream:
        stream.write("P99\tMKVLAAGIW\tmembrane\ttrain\n")
    with pytest.raises(UserError, match="is another there"):
        run(settings)


@pytest.mark.parametrize("kind", ["pair", "multiclass", "multilabel", "regression"])
def test_nothing_of_the_test_part_reaches_a_sweep(tmp_path, esm_folder, kind):
    dataset = read_dataset(TrainSettings(**write_examples(tmp_path, kind), out="o"))
    kept = without_test(dataset)
    test_ids = {dataset.proteins.ids[row] for row in np.unique(dataset.part("test").members_NK)}
    assert test_ids
    assert not test_ids & set(kept.proteins.ids)
    assert len(kept.part("test")) == 0
    for split in ("train", "val"):
        before, after = dataset.part(split), kept.part(split)
        assert np.array_equal(before.targets, after.targets)
        for old, new in zip(before.members_NK.ravel(), after.members_NK.ravel(), strict=True):
            assert dataset.proteins.sequences[old] == kept.proteins.sequences[new]


def test_another_test_part_changes_no_number_of_a_sweep(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",))
    first, _ = run(settings)
    table = pd.read_csv(settings.data, sep="\t")
    is_test = table.split == "test"
    table.loc[is_test, "label"] = table.label[is_test].map({"membrane": "soluble", "soluble": "membrane"})
    table.loc[is_test, "sequence"] = ["MKVLAAGIW" * number for number in range(1, 1 + is_test.sum())]
    table.to_csv(tmp_path / "other.tsv", sep="\t", index=False)
    second, _ = run(replace(settings, data=str(tmp_path / "other.tsv"), out=str(tmp_path / "other")))
    assert numbers(first) == numbers(second)


def test_a_trial_that_fails_is_told_and_tried_again(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("learning_rate=0.001,1e38",))
    found, said = run(settings)
    assert [trial.state for trial in found.trials] == ["finished", "failed"]
    assert "lower --learning-rate" in found.trials[1].reason
    assert "1 of 2 trials failed." in said
    again = run(settings)[1]
    assert again.count("known already") == 1
    with pytest.raises(UserError, match="no trial could be trained"):
        run(replace(settings, vary=("learning_rate=1e37,1e38",), out=str(tmp_path / "none")))


def test_layers_that_the_backbone_lacks_are_refused_before_anything_is_read(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_layers=all,9,last:7", "lora_rank=1,2"))
    with pytest.raises(UserError) as caught:
        run(replace(settings, data=str(tmp_path / "not there.tsv")))
    said = str(caught.value)
    assert said.startswith("cannot sweep (2 problems)")
    assert "9 is outside layers 1 to 4" in said
    assert "last:7" in said


def test_a_backbone_out_of_reach_is_refused_before_anything_is_read(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, backbone=str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="nowhere: no such folder"):
        run(replace(settings, data=str(tmp_path / "not there.tsv")))


def test_bundles_are_kept_only_where_they_are_wanted(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",))
    run(settings)
    assert {path.name for path in Path(settings.out).glob("trials/*/*")} == {"trial.json"}
    kept = replace(settings, keep_bundles=True)
    found, said = run(kept)
    assert "known already" not in said
    folders = pd.read_csv(Path(settings.out) / "sweep.tsv", sep="\t").folder
    for folder, trial in zip(folders, found.trials, strict=True):
        model = load_bundle(Path(folder), dtype=torch.float32)
        assert model.num_trained == 0
        assert read_run(Path(folder))["metrics"] == {"val": {"aupr": trial.value}}
        assert len(score_examples(model, np.zeros((1, 48), np.float32), np.array([[0]]))) == 1
    assert run(kept)[1].count("known already") == 2


def test_the_cache_is_shared_by_all_trials(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",))
    run(settings)
    sizes = {path: path.stat().st_size for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert sum(sizes.values()) > 0
    run(replace(settings, vary=("lora_rank=2,8",), out=str(tmp_path / "more")))
    assert {path: path.stat().st_size for path in sizes} == sizes


def test_a_backbone_from_the_shelf_is_as_it_was_read(esm_folder, tmp_path):
    settings = TrainSettings(**write_examples(tmp_path, "binary"), backbone=str(esm_folder), out="o")
    dataset, shelf = read_dataset(settings), BackboneShelf()
    fresh = load_backbone(str(esm_folder), dtype=torch.float32)
    for method in ("lora", "head"):
        taken = shelf.take(str(esm_folder), torch.float32)
        names = sorted(taken.model.state_dict())
        model = build_model(replace(settings, method=method), dataset, taken)
        shelf.put_back(model, torch.float32)
        again = shelf.take(str(esm_folder), torch.float32)
        assert again is taken
        assert sorted(again.model.state_dict()) == names == sorted(fresh.model.state_dict())
        assert not any(weight.requires_grad for weight in again.model.parameters())
        assert fingerprint(again.model, again.vocabulary) == fresh.fingerprint
        shelf.put_back(build_model(replace(settings, method="head"), dataset, again), torch.float32)
    assert shelf.take(str(esm_folder), torch.bfloat16) is not taken


def test_a_backbone_whose_weights_were_trained_is_not_kept(esm_folder, tmp_path):
    settings = TrainSettings(**write_examples(tmp_path, "binary"), backbone=str(esm_folder), out="o", method="full")
    shelf = BackboneShelf()
    taken = shelf.take(str(esm_folder), torch.float32)
    shelf.put_back(build_model(settings, read_dataset(settings), taken), torch.float32)
    assert shelf.take(str(esm_folder), torch.float32) is not taken


def test_methods_can_be_varied_too(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, kind="pair", vary=("method=head,lora,full", "seed=0,1"))
    found, _ = run(settings)
    trained = [trial.trained_parameters for trial in found.trials]
    assert trained[0] == trained[1] < trained[2] == trained[3] < trained[4]


def test_optuna_searches_ranges_and_lists_and_goes_on_from_its_study(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder, **SEARCH, trials=3)
    found, said = run(settings)
    assert len(found.trials) == 3
    assert "trial 3 of 3" in said
    for trial in found.trials:
        rank, matrices, rate = trial.values.values()
        assert isinstance(rank, int)
        assert 1 <= rank <= 8
        assert matrices in ("key+value", "query")
        assert 1e-3 <= rate <= 1e-1
    before = stamps(settings)
    more, said = run(replace(settings, trials=5))
    assert said.count("known already") == 3
    assert numbers(more)[:3] == numbers(found)
    assert len(set(numbers(more))) == 5
    assert stamps(settings).items() >= before.items()
    best = load_settings(TrainSettings, str(Path(settings.out) / "best.toml"), {})
    assert best.learning_rate == more.trials[more.best].values["learning_rate"]
    lines = (Path(settings.out) / "study.log").read_text("utf-8").splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    with pytest.raises(UserError, match="varied other settings or values"):
        run(replace(settings, vary=("lora_rank=1..16", *settings.vary[1:])))


@pytest.mark.parametrize("most_bytes", [0, 300, 900, 1000])
def test_a_full_disk_stops_a_search_with_the_name_of_its_study(tmp_path, most_bytes):
    variations, _ = read_variations(SEARCH["vary"])
    done = Trial(values={}, state="finished", value=0.5, best_epoch=1, history=({"epoch": 1, "aupr": 0.5},))
    search = {"folder": tmp_path, "num_trials": 3, "metric": "aupr", "seed": 0}
    with limited_files(most_bytes), pytest.raises(UserError, match=r"study.log: cannot be written .*same command goes"):
        search_optuna(variations, lambda values, judge, what: done, **search)
    tried = []
    search_optuna(variations, lambda values, judge, what: tried.append(values) or done, **search)
    assert len(tried) == 3


def test_a_full_disk_ends_a_sweep_and_no_trial_has_failed(tmp_path, esm_folder):
    settings = settings_for(tmp_path, esm_folder)
    with limited_files(500), pytest.raises(UserError, match=r"trial.json: cannot be written \(File too large\)"):
        run(settings)
    assert stamps(settings) == {}
    with limited_files(4000), pytest.raises(UserError, match=r"the bundle: cannot be written \(File too large\)"):
        run(replace(settings, keep_bundles=True))
    assert stamps(settings) == {}


def test_a_trial_of_optuna_that_was_cut_off_is_made_again(tmp_path, esm_folder, monkeypatch):
    settings = settings_for(tmp_path, esm_folder, **SEARCH, trials=3)
    tried = []

    def killed_in_the_second(bench, wanted, values, **options):
        tried.append(dict(values))
        if len(tried) == 2:
            raise KeyboardInterrupt
        return run_trial(bench, wanted, values, **options)

    monkeypatch.setattr(sweep_module, "run_trial", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(settings)
    found, _ = run(settings)
    assert len(found.trials) == 3
    assert tried[2] == tried[1]
    assert [dict(trial.values) for trial in found.trials] == [tried[0], *tried[2:]]


def test_trials_that_fall_behind_are_ended_early(tmp_path, esm_folder):
    settings = settings_for(
        tmp_path, esm_folder, method="head", search="optuna", trials=12, epochs=6, patience=6, metric="log_loss",
        vary=("learning_rate=1e-6,1e-1",),
    )  # fmt: skip
    found, said = run(replace(settings, vary=("learning_rate=1e-6,1e-1", "seed=0,1,2,3,4,5,6,7")))
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    assert all(2 <= len(trial.history) < 6 for trial in pruned)
    assert all(len(trial.history) == 6 for trial in found.trials if trial.state == "finished")
    assert found.trials[found.best].state == "finished"
    assert "were ended early, as they fell behind" in said


def test_the_command_sweeps(tmp_path, esm_folder, capsys):
    settings = settings_for(tmp_path, esm_folder, vary=("lora_rank=1,4",), epochs=1)
    path = tmp_path / "sweep.toml"
    path.write_text(to_toml(settings), "utf-8")
    assert main(["sweep", "--config", str(path)]) == 0
    assert "Best validation aupr" in capsys.readouterr().out


def test_the_best_settings_are_those_with_the_best_mean_over_seeds():
    values = {("a", 0): 0.70, ("a", 1): 0.71, ("b", 0): 0.60, ("b", 1): 0.75, ("c", 0): 0.9}
    trials = [Trial({"head": head, "seed": seed}, "finished", value) for (head, seed), value in values.items()]
    found = conclude(trials, {"head": "listed", "seed": "listed"}, "aupr")
    assert found.best == 0
    assert found.verdict[0] == "Best validation aupr: 0.7050, the mean of 2 seeds, with head=a."


def test_one_trial_of_each_value_explains_nothing():
    trials = [Trial({"head_dropout": value}, "finished", 0.6 + value) for value in (0.0, 0.3)]
    assert not any("explains" in line for line in conclude(trials, {"head_dropout": "listed"}, "aupr").verdict)


def test_settings_that_differ_in_a_late_digit_are_not_seeds_of_one():
    rates = {0.000123456: 0.5, 0.000123457: 0.6, 0.01: 0.9}
    trials = [Trial({"learning_rate": rate}, "finished", value) for rate, value in rates.items()]
    assert conclude(trials, {"learning_rate": "logarithmic"}, "aupr").best == 2

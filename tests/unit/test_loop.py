"""The loop: the best weights are kept, early stopping, Ctrl-C, and what stops a run with a word to the user."""

import io
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from conftest import write_examples
from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset
from peftide.errors import UserError
from peftide.inference.encoder import Encoder
from peftide.models.backbones import load_backbone
from peftide.models.bundle import load_bundle, read_run
from peftide.models.machine import Machine, choose_machine
from peftide.training.batches import encoding_cost, plain_batches
from peftide.training.build import build_model, standardize
from peftide.training.loop import Trainer
from peftide.training.progress import TrainingProgress
from peftide.training.run import prepare, run_training
from peftide.training.schedule import Schedule
from peftide.training.state import restore, snapshot

SCHEDULE = Schedule(
    epochs=6, batch_examples=5, learning_rate=1e-2, weight_decay=0.01, warmup_fraction=0.1, clip_norm=1.0, patience=6,
    metric="aupr", seed=0,
)  # fmt: skip


def settings_for(folder, esm_folder, *, kind="binary", **options):
    given = {
        "baselines": "none",
        "method": "lora", "backbone": str(esm_folder), "out": str(folder / "bundle"), "epochs": 3, "batch_examples": 8,
        "device": "cpu", "precision": "fp32", "token_budget": 150, "cache_dir": str(folder / "cache"),
    }  # fmt: skip
    return TrainSettings(**write_examples(folder, kind), **(given | options))


class Run:
    """A trainer on the binary examples, and what it printed."""

    def __init__(self, folder, esm_folder, *, method="lora", **changes):
        settings = settings_for(folder, esm_folder, method=method)
        dataset = read_dataset(settings)
        backbone = load_backbone(str(esm_folder), dtype=torch.float32)
        self.model = build_model(settings, dataset, backbone)
        encoder = Encoder(backbone, self.model.model, Machine(torch.device("cpu"), torch.float32))
        pieces = self.model.pieces(dataset.proteins)
        standardize(self.model, encoder, dataset, pieces, token_budget=1024, seed=0)
        schedule = replace(SCHEDULE, **changes)
        self.trainer = Trainer(self.model, encoder, dataset, pieces, schedule, token_budget=150, vectors_PD=None)
        self.console = Console(file=io.StringIO(), width=200)
        self.show = TrainingProgress(
            self.console, num_steps=self.trainer.num_steps, metric="aupr", device=torch.device("cpu")
        )

    def fit(self):
        with self.show:
            return self.trainer.fit(self.show)

    def interrupt_at_step(self, number):
        """Ctrl-C while the head runs for the `number`-th time in training."""
        seen = []

        def hook(head, inputs):
            seen.append(head.training)
            if head.training and sum(seen) == number:
                signal.raise_signal(signal.SIGINT)

        self.model.head.register_forward_pre_hook(hook)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_model_ends_with_the_weights_of_its_best_epoch(esm_folder, tmp_path, method):
    rate = {"lora": 0.01, "full": 0.003}[method]
    run = Run(tmp_path, esm_folder, method=method, metric="log_loss", learning_rate=rate)
    result = run.fit()
    values = [row["log_loss"] for row in result.history]
    assert result.best_epoch == 1 + int(np.argmin(values)) < len(values)
    assert run.trainer.validate() == pytest.approx(result.best_value, rel=1e-6)
    assert result.best_value == min(values)


def test_training_stops_when_the_metric_has_not_improved_for_so_many_epochs(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder, metric="log_loss", epochs=30, patience=2)
    result = run.fit()
    assert len(result.history) == result.best_epoch + 2 < 30
    assert result.ended == "no better log_loss for 2 epochs"


def test_every_training_example_is_in_one_step_of_every_epoch(esm_folder, tmp_path):
    for kind_of_run in (Run(tmp_path, esm_folder), Run(tmp_path, esm_folder, batch_examples=3)):
        trainer = kind_of_run.trainer
        epochs = [trainer.epoch_batches(epoch) for epoch in (1, 2)]
        for batches in epochs:
            assert sorted(np.concatenate(batches)) == list(range(len(trainer.train)))
            assert len(batches) * trainer.schedule.epochs == trainer.num_steps
        assert [list(batch) for batch in epochs[0]] != [list(batch) for batch in epochs[1]]


def test_pairs_are_drawn_at_random_where_asked(esm_folder, tmp_path):
    def epoch_of(**asked):
        settings = settings_for(tmp_path, esm_folder, kind="pair", **asked)
        dataset = read_dataset(settings)
        trainer = prepare(settings, dataset, choose_machine("cpu", "fp32", None)).trainer(dataset, None)
        batches = trainer.epoch_batches(1)
        cost = encoding_cost(batches, trainer.train.members_NK, trainer.tokens_P)
        return [list(batch) for batch in batches], cost.encoded_tokens

    shared, cost_of_shared = epoch_of()
    shuffled, cost_of_shuffled = epoch_of(pair_steps="shuffled")
    num_pairs = sum(map(len, shared))
    expected = plain_batches(num_pairs, batch_examples=8, generator=np.random.default_rng([0, 1]))
    assert shuffled == [list(batch) for batch in expected]
    assert cost_of_shared < cost_of_shuffled


def test_ctrl_c_in_the_first_epoch_ends_the_run_for_there_is_nothing_to_keep(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder)
    run.interrupt_at_step(2)
    with pytest.raises(KeyboardInterrupt):
        run.fit()


def test_ctrl_c_in_a_later_epoch_leaves_the_best_weights_so_far(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder)
    run.interrupt_at_step(2 * 2 + 1)  # two steps an epoch
    result = run.fit()
    assert result.ended == "interrupted in epoch 3"
    assert len(result.history) == 2
    assert run.trainer.validate() == pytest.approx(result.best_value, rel=1e-6)


class InterruptingStream(io.StringIO):
    """A terminal whose user presses Ctrl-C, once, on reading some words."""

    def __init__(self, words):
        super().__init__()
        self.words = words

    def write(self, text):
        written = super().write(text)
        if self.words and self.words in text:
            self.words = ""
            signal.raise_signal(signal.SIGINT)
        return written


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_an_interrupted_run_writes_a_bundle_that_works(esm_folder, tmp_path, method):
    settings = settings_for(tmp_path, esm_folder, method=method, epochs=50, patience=50)
    run = run_training(settings, Console(file=InterruptingStream("epoch   2"), width=200))
    assert run.metrics["test"]["num_examples"] == 4
    facts = read_run(Path(settings.out))["training"]
    assert facts["ended"].startswith("interrupted in epoch")
    assert len(facts["history"]) <= 2
    assert load_bundle(Path(settings.out), dtype=torch.float32).method == method


def test_a_loss_that_is_no_number_ends_the_run_with_the_step_and_a_mend(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder, learning_rate=1e30, warmup_fraction=0.0)
    with pytest.raises(UserError, match=r"the loss of step \d+ \(epoch \d\) is (nan|inf): lower --learning-rate"):
        run.fit()


def test_a_gradient_that_is_no_number_ends_the_run_with_the_step_and_its_proteins(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder)
    run.trainer.parameters[0].register_hook(lambda gradient: gradient * float("inf"))
    message = r"the gradient of step 1 \(epoch 1\) is (nan|inf): lower --learning-rate .* first proteins: P0\d, P0"
    with pytest.raises(UserError, match=message):
        run.fit()


def test_weights_that_explode_in_the_last_step_of_an_epoch_end_the_run(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder, learning_rate=1e38, warmup_fraction=0.0, batch_examples=64)
    with pytest.raises(UserError, match="the validation scores of an epoch are no numbers: lower --learning-rate"):
        run.fit()


def test_a_metric_of_another_kind_of_target_is_refused_before_training(esm_folder, tmp_path):
    settings = settings_for(tmp_path, esm_folder, kind="regression", metric="aupr")
    with pytest.raises(UserError, match=r"--metric aupr: not a metric of regression targets; choose one of spearman"):
        run_training(settings, Console(file=io.StringIO()))
    assert not Path(settings.out).exists()


def test_a_place_where_no_bundle_can_be_is_refused_before_training(esm_folder, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in ("file", "file/below"):
        settings = settings_for(tmp_path, esm_folder, out=str(tmp_path / out))
        stream = io.StringIO()
        with pytest.raises(UserError, match=f"--out .*{out}: cannot be written"):
            run_training(settings, Console(file=stream))
        assert "epoch" not in stream.getvalue()
    assert (tmp_path / "file").read_text() == "mine"


def test_a_backbone_inside_the_bundle_is_not_overwritten(esm_folder, tmp_path):
    settings = settings_for(tmp_path, esm_folder, method="full", epochs=1)
    run_training(settings, Console(file=io.StringIO()))
    tuned = f"{settings.out}/backbone"
    with pytest.raises(UserError, match=r"backbone .*/backbone lies in this folder"):
        run_training(replace(settings, backbone=tuned), Console(file=io.StringIO()))
    run_training(replace(settings, backbone=tuned, out=str(tmp_path / "other")), Console(file=io.StringIO()))


def test_a_snapshot_put_back_restores_every_trained_tensor(esm_folder, tmp_path):
    run = Run(tmp_path, esm_folder)
    initial = snapshot(run.model)
    assert {name.split(".")[0] for name in initial} == {"model", "head"}
    assert any("center_D" in name for name in initial)
    run.fit()
    run.model.head.center_D.add_(1.0)
    assert not all(torch.equal(tensor, initial[name]) for name, tensor in snapshot(run.model).items())
    restore(run.model, initial)
    assert all(torch.equal(tensor, initial[name]) for name, tensor in snapshot(run.model).items())


def test_the_loss_falls_on_examples_that_can_be_learned(esm_folder, tmp_path):
    """Overfitting ten proteins: the whole chain from sequence to gradient must point downhill."""
    for method, rate in (("lora", 1e-2), ("full", 1e-3)):
        run = Run(tmp_path, esm_folder, method=method, learning_rate=rate, epochs=8, patience=8)
        losses = [row["loss"] for row in run.fit().history]
        assert losses[-1] < 0.6 * losses[0], method


def test_training_neither_overwrites_its_table_nor_what_is_no_bundle(esm_folder, tmp_path):
    settings = settings_for(tmp_path, esm_folder, method="head", epochs=1)
    folder = tmp_path / "mine"
    folder.mkdir()
    table = folder / "split.tsv"
    table.write_bytes(Path(settings.data).read_bytes())
    before = table.read_bytes()
    with pytest.raises(UserError, match=r"split\.tsv: is a file to be read"):
        run_training(replace(settings, data=str(table), out=str(folder)), Console(quiet=True))
    with pytest.raises(UserError, match=r"split\.tsv in it would be overwritten"):
        run_training(replace(settings, out=str(folder)), Console(quiet=True))
    assert table.read_bytes() == before
    run_training(settings, Console(quiet=True))
    again = Console(file=io.StringIO(), width=200)
    run_training(settings, again)
    assert "will be replaced when this run is done" in again.file.getvalue()

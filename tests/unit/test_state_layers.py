"""Vectors made of the states of several layers: from training to every use of the bundle, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import peftide
from conftest import random_sequence, write_examples
from peftide.cli import main
from peftide.config import (
    EmbedSettings,
    EvaluateSettings,
    PredictSettings,
    TrainSettings,
)
from peftide.errors import UserError
from peftide.models.bundle import load_bundle, read_run

CPU = {"device": "cpu", "precision": "fp32"}
WIDTH = 48


def train(folder, esm_folder, **options):
    data = write_examples(folder, "pair")
    given = {
        "out": str(folder / "bundle"), "baselines": "none", "backbone": str(esm_folder), "epochs": 2,
        "batch_examples": 8, "head_width": 16, "state_layers": "2,4",
    }  # fmt: skip
    return data, peftide.train(TrainSettings(**(data | CPU | given | options)))


@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_a_bundle_scores_by_the_layers_that_it_was_trained_on(tmp_path, esm_folder, method):
    data, run = train(tmp_path, esm_folder, method=method)
    assert read_run(run.folder)["model"]["state_layers"] == [2, 4]
    assert "(states of its layers 2 and 4)" in (run.folder / "report.html").read_text("utf-8")
    files = {name: data[name] for name in ("data", "sequences") if name in data} | CPU
    again = peftide.evaluate(EvaluateSettings(**files, bundle=str(run.folder)))
    assert again.metrics == pytest.approx(run.metrics["test"], rel=1e-4)
    columns = peftide.predict(PredictSettings(**files, bundle=str(run.folder), out=str(tmp_path / "scores.tsv")))
    told = pd.read_csv(run.folder / "predictions.tsv", sep="\t")
    assert np.isin(told["probability"].round(4), np.round(np.array(columns["probability"]), 4)).all()


@pytest.mark.parametrize("method", ["head", "lora"])
def test_embeddings_of_a_bundle_have_the_states_of_its_layers(tmp_path, esm_folder, method):
    _, run = train(tmp_path, esm_folder, method=method)
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text("".join(f">P{n}\n{random_sequence(20 + n, seed=n)}\n" for n in range(3)))

    def embedded(name, **options):
        out = tmp_path / f"{name}.parquet"
        peftide.embed(EmbedSettings(data=str(fasta), out=str(out), **CPU, **options))
        return np.stack(pd.read_parquet(out)["embedding"].tolist())

    vectors_PD = embedded("bundle", bundle=str(run.folder))
    assert vectors_PD.shape == (3, 2 * WIDTH)
    lower_PD = embedded("lower", backbone=str(esm_folder), state_layers="2")
    upper_PD = embedded("upper", backbone=str(esm_folder))
    assert np.allclose(vectors_PD[:, :WIDTH], lower_PD, atol=1e-6)
    assert np.allclose(vectors_PD[:, WIDTH:], upper_PD, atol=1e-6) == (method == "head")
    residues_LD = embedded("residues", backbone=str(esm_folder), state_layers="2,4", per_residue=True)
    assert residues_LD.shape == (20 + 21 + 22, 2 * WIDTH)
    assert np.allclose(residues_LD[:20].mean(axis=0), np.concatenate([lower_PD[0], upper_PD[0]]), atol=1e-5)


def test_doctor_finds_such_a_bundle_sound(tmp_path, esm_folder, capsys):
    _, run = train(tmp_path, esm_folder, method="lora")
    assert main(["doctor", "--bundle", str(run.folder), "--device", "cpu", "--precision", "fp32"]) == 0
    assert "stock transformers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state_layers": "2,5"}, "state_layers = 2,5: 5 is outside layers 1 to 4"),
        ({"state_layers": "first"}, "state_layers = first: write last, last-quarter"),
        ({"state_layers": "2", "method": "lora"}, "method lora trains up to layer 4, and what comes after layer 2"),
        ({"state_layers": "1-3", "method": "full"}, "add layer 4 to state_layers$"),
    ],
)
def test_layers_that_cannot_serve_are_refused_before_anything_is_read(tmp_path, esm_folder, options, message):
    with pytest.raises(UserError, match=message):
        train(tmp_path, esm_folder, data=str(tmp_path / "not there.tsv"), **options)
    assert not (tmp_path / "bundle" / "run.json").exists()


def test_lower_states_may_serve_adapters_of_lower_layers(tmp_path, esm_folder):
    _, run = train(tmp_path, esm_folder, method="lora", state_layers="2", lora_layers="1,2", epochs=1)
    model = load_bundle(run.folder, dtype=torch.float32)
    assert model.state_layers == (2,)


def test_of_lower_layers_vectors_are_kept_and_of_the_highest_frozen_one_states(tmp_path, esm_folder):
    """So that no frozen layer is computed again, whatever the lowest state layer; from a warm cache nothing changes."""
    options = {"method": "lora", "state_layers": "1,4", "lora_layers": "3,4", "cache_dir": str(tmp_path / "cache")}
    losses = []
    for name in ("cold", "warm"):
        _, run = train(tmp_path, esm_folder, out=str(tmp_path / name), **options)
        losses.append([row["loss"] for row in read_run(run.folder)["training"]["history"]])
    kept = sorted(path.name.split("-")[0::2][:2] for path in (tmp_path / "cache").iterdir() if path.is_dir())
    assert kept == [["mean", "layer1"], ["states", "layer2"]]
    assert losses[0] == losses[1]
    lower = load_bundle(tmp_path / "warm", dtype=torch.float32).head.scale_D[:WIDTH]
    assert (lower > 1e-3).all()

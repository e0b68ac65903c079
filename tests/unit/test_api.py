"""evaluate, predict and embed through the public functions, on tiny data."""

import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

import peftide
from conftest import EXAMPLES, NUM_PROTEINS, random_sequence, write_examples
from peftide.config import (
    AuditSettings,
    EmbedSettings,
    EvaluateSettings,
    MachineSettings,
    PredictSettings,
    ScreenSettings,
    SplitSettings,
    TrainSettings,
)
from peftide.data.datasets import read_dataset
from peftide.data.symmetry import GROUP_COLUMNS, SYMMETRY_CLASSES
from peftide.errors import UserError
from peftide.inference.embed import embed_proteins, embed_residues
from peftide.inference.encoder import Encoder
from peftide.inference.score import load_for_inference, score_dataset
from peftide.models.backbones import load_backbone
from peftide.models.machine import Machine
from peftide.models.tokens import cut_pieces

CPU = {"device": "cpu", "precision": "fp32"}
CLASSES = {
    "multiclass": ("cytoplasm", "membrane", "nucleus"),
    "multilabel": ("binder", "kinase", "motor"),
    "symmetry": SYMMETRY_CLASSES,
}


@pytest.fixture(scope="module")
def trained(esm_folder, tmp_path_factory):
    """The data and the bundle of a finished run by kind of examples; each is trained once."""
    done = {}

    def run_of(kind):
        if kind not in done:
            folder = tmp_path_factory.mktemp(kind)
            data = write_examples(folder, kind)
            run = peftide.train(
                TrainSettings(
                    **data,
                    **CPU,
                    out=str(folder / "bundle"),
                    baselines="none",
                    backbone=str(esm_folder),
                    method="head",
                    epochs=3,
                    batch_examples=8,
                    head_width=16,
                    cache_dir=str(folder / "cache"),
                )
            )
            done[kind] = data, run
        return done[kind]

    return run_of


def evaluate(trained, kind, **options):
    data, run = trained(kind)
    files = {name: data[name] for name in ("data", "sequences") if name in data}
    return peftide.evaluate(EvaluateSettings(**(files | CPU | {"bundle": str(run.folder)} | options)))


def predict(trained, kind, out, **options):
    data, run = trained(kind)
    files = {name: data[name] for name in ("data", "sequences") if name in data}
    return peftide.predict(PredictSettings(**(files | CPU | {"bundle": str(run.folder), "out": str(out)} | options)))


def table_of(path):
    return pd.read_csv(path, sep="\t", keep_default_na=False)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_evaluating_a_bundle_gives_the_test_metrics_of_its_training(trained, kind):
    _, run = trained(kind)
    assert evaluate(trained, kind).metrics == pytest.approx(run.metrics["test"], rel=1e-4)
    assert evaluate(trained, kind, split="val").metrics == pytest.approx(run.metrics["val"], rel=1e-4)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_predictions_of_evaluate_are_those_of_the_bundle(trained, kind, tmp_path):
    _, run = trained(kind)
    result = evaluate(trained, kind, out=str(tmp_path / "out"))
    table = table_of(run.folder / "predictions.tsv")
    expected = table[table["split"] == "test"].drop(columns="split").reset_index(drop=True)
    pd.testing.assert_frame_equal(table_of(tmp_path / "out" / "predictions.tsv"), expected, rtol=1e-4, atol=1e-5)
    assert list(result.predictions) == list(expected.columns)
    written = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written["metrics"] == result.metrics
    assert written["settings"]["bundle"] == str(run.folder)


def test_metrics_are_scikit_learns_on_the_predictions(trained):
    result = evaluate(trained, "pair", split="train")
    truths = np.array([label == "1" for label in result.predictions["label"]])
    scores = result.predictions["probability"]
    assert len(truths) == 22
    assert result.metrics["aupr"] == pytest.approx(average_precision_score(truths, scores))
    assert result.metrics["auroc"] == pytest.approx(roc_auc_score(truths, scores))


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "symmetry"])
def test_evaluate_has_a_row_for_every_class(trained, kind):
    classes = evaluate(trained, kind, split="all").classes
    assert tuple(classes) == CLASSES[kind]
    assert all(0 <= row["auroc"] <= 1 for row in classes.values() if 0 < row["support"] < NUM_PROTEINS)


def test_a_table_without_split_is_evaluated_whole(trained, tmp_path):
    data, _ = trained("binary")
    table = table_of(data["data"]).drop(columns="split")
    table.to_csv(tmp_path / "all.csv", index=False)
    result = evaluate(trained, "binary", data=str(tmp_path / "all.csv"))
    assert result.metrics == pytest.approx(evaluate(trained, "binary", split="all").metrics, rel=1e-6)
    assert result.predictions["id"] == table["id"].tolist()


def test_a_family_of_copies_counts_once_in_the_metrics_per_cluster(trained, tmp_path, capsys):
    """Weighted by one over the size of the cluster, as scikit-learn computes it from the predictions."""
    data, _ = trained("binary")
    table = table_of(data["data"]).drop(columns="split")
    table["cluster"] = ["family"] * 6 + [f"single {row}" for row in range(NUM_PROTEINS - 6)]
    table.to_csv(tmp_path / "families.csv", index=False)
    result = evaluate(trained, "binary", data=str(tmp_path / "families.csv"), out=str(tmp_path / "out"))
    truths = np.array([label == "soluble" for label in result.predictions["label"]])
    weights = [1 / 6] * 6 + [1.0] * (NUM_PROTEINS - 6)
    expected = average_precision_score(truths, result.predictions["probability"], sample_weight=weights)
    assert result.per_cluster["aupr"] == pytest.approx(expected)
    assert result.per_cluster["aupr"] != pytest.approx(result.metrics["aupr"])
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["per_cluster"] == result.per_cluster
    assert f"each cluster of similar proteins counted once: aupr {expected:.4f}" in capsys.readouterr().out
    assert evaluate(trained, "binary").per_cluster == {}


def test_a_split_without_examples_is_an_error(trained, tmp_path):
    data, _ = trained("binary")
    table = table_of(data["data"])
    table[table["split"] != "test"].to_csv(tmp_path / "no_test.tsv", sep="\t", index=False)
    with pytest.raises(UserError, match="no examples"):
        evaluate(trained, "binary", data=str(tmp_path / "no_test.tsv"))


def test_a_label_that_the_model_does_not_know_is_an_error(trained, tmp_path):
    data, _ = trained("multiclass")
    text = Path(data["data"]).read_text().replace("nucleus", "nukleus")
    (tmp_path / "other.tsv").write_text(text)
    with pytest.raises(UserError, match=r"'nukleus' is not a known class.*nearest: 'nucleus'"):
        evaluate(trained, "multiclass", data=str(tmp_path / "other.tsv"))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_predictions_keep_the_order_the_ids_and_the_duplicates_of_the_input(trained, kind, tmp_path):
    data, _ = trained(kind)
    table = table_of(data["data"]).drop(columns=["label", "split"])
    shuffled = pd.concat([table, table.iloc[[3, 3, 0]]]).sample(frac=1, random_state=0)
    shuffled.to_csv(tmp_path / "new.tsv", sep="\t", index=False)
    columns = predict(trained, kind, tmp_path / "scores.tsv", data=str(tmp_path / "new.tsv"))
    names = ["protein_a", "protein_b"] if kind == "pair" else ["id"]
    written = table_of(tmp_path / "scores.tsv")
    assert list(columns) == list(written.columns)
    assert len(written) == len(table) + 3
    for name in names:
        assert written[name].tolist() == shuffled[name].tolist() == columns[name]
    assert "label" not in columns
    numbers = written.select_dtypes("number").to_numpy()
    first_of = {}
    for row, key in enumerate(zip(*(written[name] for name in names), strict=True)):
        first = first_of.setdefault(key, row)
        assert numbers[row] == pytest.approx(numbers[first], abs=1e-6)
    assert max(Counter(zip(*(written[name] for name in names), strict=True)).values()) == 3


@pytest.mark.parametrize("kind", EXAMPLES)
def test_predictions_are_those_of_evaluate(trained, kind, tmp_path):
    evaluated = evaluate(trained, kind, split="all").predictions
    predicted = predict(trained, kind, tmp_path / "scores.tsv")
    assert {"label", *predicted} == set(evaluated)
    for name, values in predicted.items():
        if isinstance(values[0], float):
            assert values == pytest.approx(evaluated[name], abs=1e-5)
        else:
            assert values == evaluated[name]


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "symmetry"])
def test_there_is_a_probability_for_every_class(trained, kind, tmp_path):
    columns = predict(trained, kind, tmp_path / "scores.tsv")
    probabilities_NC = np.array([columns[f"probability_{name}"] for name in CLASSES[kind]]).T
    groups = [f"group_{name}" for name in GROUP_COLUMNS] if kind == "symmetry" else []
    assert list(columns) == ["id", "prediction", *(f"probability_{name}" for name in CLASSES[kind]), *groups]
    assert ((probabilities_NC >= 0) & (probabilities_NC <= 1)).all()
    if kind == "symmetry":
        cyclic = 1 - np.prod(1 - probabilities_NC[:, 1:8], axis=1)
        assert columns["group_cyclic"] == pytest.approx(cyclic)
    if kind == "multiclass":
        assert probabilities_NC.sum(axis=1) == pytest.approx(np.ones(NUM_PROTEINS), abs=1e-6)
        likeliest = [CLASSES[kind][c] for c in probabilities_NC.argmax(axis=1)]
        assert columns["prediction"] == likeliest
    else:
        chosen = [" ".join(np.array(CLASSES[kind])[row >= 0.5]) for row in probabilities_NC]
        assert columns["prediction"] == chosen


@pytest.mark.parametrize(("kind", "classes"), [("pair", ("0", "1")), ("binary", ("membrane", "soluble"))])
def test_a_binary_prediction_is_the_class_of_its_probability(trained, kind, classes, tmp_path):
    columns = predict(trained, kind, tmp_path / "scores.tsv")
    assert all(0 <= value <= 1 for value in columns["probability"])
    assert columns["prediction"] == [classes[value >= 0.5] for value in columns["probability"]]


def test_the_order_within_a_pair_does_not_change_its_probability(trained, tmp_path):
    data, _ = trained("pair")
    table = table_of(data["data"])[["protein_a", "protein_b"]]
    table.columns = ["protein_b", "protein_a"]
    table.to_csv(tmp_path / "turned.tsv", sep="\t", index=False)
    turned = predict(trained, "pair", tmp_path / "turned_scores.tsv", data=str(tmp_path / "turned.tsv"))
    assert turned["probability"] == predict(trained, "pair", tmp_path / "scores.tsv")["probability"]


@pytest.mark.parametrize("name", ["scores.csv", "scores.parquet", "scores.tsv.gz"])
def test_predictions_are_the_same_in_every_format(trained, name, tmp_path):
    columns = predict(trained, "multiclass", tmp_path / name)
    table = (
        pd.read_parquet(tmp_path / name)
        if "parquet" in name
        else pd.read_csv(tmp_path / name, sep=None, engine="python")
    )
    assert list(table.columns) == list(columns)
    for column, values in columns.items():
        assert table[column].tolist() == values


def test_predicting_twice_gives_the_same_file(trained, tmp_path):
    for name in ("first.tsv", "second.tsv"):
        predict(trained, "pair", tmp_path / name)
    assert (tmp_path / "first.tsv").read_bytes() == (tmp_path / "second.tsv").read_bytes()


def test_an_answer_is_withheld_where_it_is_less_sure_than_wanted(trained, tmp_path):
    for kind in ("binary", "multiclass"):
        every = predict(trained, kind, tmp_path / "every.tsv")
        probabilities = np.array([every[name] for name in every if name.startswith("probability")])
        sure = np.maximum(probabilities, 1 - probabilities)[0] if kind == "binary" else probabilities.max(axis=0)
        wanted = float(np.median(sure))
        some = predict(trained, kind, tmp_path / "some.tsv", min_confidence=wanted)
        expected = [said if p >= wanted else "" for said, p in zip(every["prediction"], sure, strict=True)]
        assert some["prediction"] == expected
        assert "" in expected
        assert expected.count("") < len(expected)


def test_a_threshold_moves_the_answers(trained, tmp_path):
    columns = predict(trained, "binary", tmp_path / "all.tsv", threshold=0.001)
    lowest = min(columns["probability"])
    assert lowest > 0.001
    assert set(columns["prediction"]) == {"soluble"} or set(columns["prediction"]) == {"membrane"}


def test_numbers_and_several_labels_cannot_be_withheld(trained, tmp_path):
    for kind in ("regression", "multilabel"):
        with pytest.raises(UserError, match=r"--min-confidence: a .* prediction is not one answer"):
            predict(trained, kind, tmp_path / "none.tsv", min_confidence=0.9)


def test_only_the_proteins_of_the_scored_examples_are_encoded(trained, tmp_path):
    data, run = trained("binary")
    model, encoder, _ = load_for_inference(str(run.folder), MachineSettings(**CPU))
    dataset = read_dataset(TrainSettings(**data, out="unused")).part("test")
    assert len(dataset) < len(dataset.proteins)
    sizes = []
    encoder.layer_function = recording(encoder.layer_function, sizes)
    settings = MachineSettings(cache_limit_gb=0, **CPU)
    score_dataset(model, encoder, dataset, token_budget=10_000, settings=settings, console=Console(quiet=True))
    assert set(sizes) == {sum(len(dataset.proteins.sequences[row]) + 2 for row in dataset.members_NK[:, 0])}


def test_vectors_of_a_frozen_backbone_are_computed_once_and_read_afterwards(trained, tmp_path):
    data, run = trained("binary")
    settings = MachineSettings(cache_dir=str(tmp_path / "cache"), **CPU)
    dataset = read_dataset(TrainSettings(**data, out="unused")).part("test")
    scores, sizes = [], []
    for _ in range(2):
        model, encoder, _ = load_for_inference(str(run.folder), settings)
        assert model.method == "head"
        encoder.layer_function = recording(encoder.layer_function, sizes)
        sizes.clear()
        scores.append(
            score_dataset(
                model, encoder, dataset, token_budget=10_000, settings=settings, console=Console(quiet=True)
            ).tolist()
        )
    assert not sizes
    assert scores[0] == scores[1]


def recording(layer_function, sizes):
    """The same layer; keeps the number of tokens of each call."""

    def recorded(layer, hidden_TD, *rest):
        sizes.append(len(hidden_TD))
        return layer_function(layer, hidden_TD, *rest)

    return recorded


LENGTHS = (30, 7, 120, 55, 7)


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "proteins.fasta"
    sequences = [random_sequence(length, seed=number) for number, length in enumerate(LENGTHS)]
    path.write_text("".join(f">Q{number}\n{sequence}\n" for number, sequence in enumerate(sequences)))
    return path, sequences


def embed(esm_folder, fasta, out, **options):
    given = {"data": str(fasta), "out": str(out), "backbone": str(esm_folder)} | CPU
    return peftide.embed(EmbedSettings(**(given | options)))


def encoder_and_pieces(esm_folder, sequences, *, pooling="mean", max_residues=1022, long_proteins="crop"):
    backbone = load_backbone(str(esm_folder), dtype=torch.float32)
    encoder = Encoder(backbone, backbone.model, Machine(torch.device("cpu"), torch.float32), pooling=pooling)
    rules = {"max_residues": max_residues, "long_proteins": long_proteins}
    return encoder, [cut_pieces(sequence, backbone.vocabulary, **rules) for sequence in sequences]


def read_embeddings(path):
    """Ids in the file's order, and values by id."""
    if path.suffix == ".parquet":
        table = pd.read_parquet(path)
        values = {name: np.stack(rows) for name, rows in table.groupby("id", sort=False)["embedding"]}
        if table["residue"].isna().all():
            values = {name: rows[0] for name, rows in values.items()}
        return list(values), values
    with h5py.File(path) as file:
        return sorted(file, key=lambda name: file[name].attrs["position"]), {name: file[name][()] for name in file}


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".parquet"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_in_a_file_are_the_vectors_of_the_encoder(esm_folder, fasta, tmp_path, suffix, pooling):
    path, sequences = fasta
    out = embed(esm_folder, path, tmp_path / f"embeddings{suffix}", pooling=pooling)
    encoder, pieces = encoder_and_pieces(esm_folder, sequences, pooling=pooling)
    expected_PD = embed_proteins(encoder, pieces, token_budget=8192)
    ids, vectors = read_embeddings(out)
    assert ids == [f"Q{number}" for number in range(len(LENGTHS))]
    for name, expected in zip(ids, expected_PD, strict=True):
        assert vectors[name].dtype == np.float32
        assert np.array_equal(vectors[name], expected)


@pytest.mark.parametrize("suffix", [".h5", ".parquet"])
@pytest.mark.parametrize("rule", ["crop", "window"])
def test_embeddings_per_residue_have_a_row_for_every_residue(esm_folder, fasta, tmp_path, suffix, rule):
    path, sequences = fasta
    rules = {"max_residues": 50, "long_proteins": rule}
    out = embed(esm_folder, path, tmp_path / f"residues{suffix}", per_residue=True, **rules)
    encoder, pieces = encoder_and_pieces(esm_folder, sequences, **rules)
    ids, states = read_embeddings(out)
    assert [len(states[name]) for name in ids] == [min(n, 50) if rule == "crop" else n for n in LENGTHS]
    for name, protein in zip(ids, pieces, strict=True):
        assert np.array_equal(states[name], embed_residues(encoder, [protein], token_budget=500)[0])


def test_residues_in_parquet_are_counted_from_one(esm_folder, fasta, tmp_path):
    table = pd.read_parquet(embed(esm_folder, fasta[0], tmp_path / "residues.parquet", per_residue=True))
    assert table["residue"].tolist() == [number for length in LENGTHS for number in range(1, length + 1)]


def test_embeddings_of_a_bundle_are_those_of_its_adapted_backbone(esm_folder, fasta, tmp_path):
    data = write_examples(tmp_path, "binary")
    run = peftide.train(
        TrainSettings(
            **data,
            **CPU,
            out=str(tmp_path / "bundle"),
            baselines="none",
            backbone=str(esm_folder),
            method="lora",
            epochs=1,
            learning_rate=0.01,
        )
    )
    path, sequences = fasta
    _, adapted = read_embeddings(embed(esm_folder, path, tmp_path / "adapted.h5", bundle=str(run.folder)))
    _, plain = read_embeddings(embed(esm_folder, path, tmp_path / "plain.h5"))
    _, encoder, token_budget = load_for_inference(str(run.folder), MachineSettings(**CPU))
    expected_PD = embed_proteins(encoder, encoder_and_pieces(esm_folder, sequences)[1], token_budget=token_budget)
    for number, name in enumerate(adapted):
        assert np.array_equal(adapted[name], expected_PD[number])
        assert not np.allclose(adapted[name], plain[name], atol=1e-3)


def test_embeddings_say_what_made_them(esm_folder, fasta, tmp_path):
    with h5py.File(embed(esm_folder, fasta[0], tmp_path / "embeddings.h5", pooling="cls")) as file:
        assert dict(file.attrs) == {"backbone": str(esm_folder), "bundle": "", "pooling": "cls", "state_layers": "4"}


def test_ids_with_a_slash_are_refused_for_hdf5_and_kept_in_parquet(esm_folder, tmp_path):
    """In HDF5 they would become groups."""
    (tmp_path / "slashed.fasta").write_text(">a/1\nMKT\n>b\nMKV\n>c/2\nMAA\n")
    out = tmp_path / "embeddings.h5"
    with pytest.raises(UserError, match=r"cannot hold a dataset named 'a/1' \(2 such ids\); write \.parquet instead"):
        embed(esm_folder, tmp_path / "slashed.fasta", out)
    assert not out.exists()
    ids, _ = read_embeddings(embed(esm_folder, tmp_path / "slashed.fasta", out.with_suffix(".parquet")))
    assert ids == ["a/1", "b", "c/2"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("embeddings.npy", r"written as \.h5 or \.parquet"),
        ("no/embeddings.h5", "there is no folder"),
        ("a.h5", "is a folder; name a file"),
    ],
)
def test_a_place_for_embeddings_that_cannot_be_is_refused_at_once(esm_folder, fasta, tmp_path, out, message):
    (tmp_path / "a.h5").mkdir()
    with pytest.raises(UserError, match=message):
        embed(esm_folder, fasta[0], tmp_path / out)


def test_a_protein_beyond_the_limit_is_refused_where_that_was_asked(esm_folder, fasta, tmp_path):
    message = r"more than max_residues = 50: .* \(2 problems\)\n  Q2: 120 residues\n  Q3: 55 residues"
    with pytest.raises(UserError, match=message):
        embed(esm_folder, fasta[0], tmp_path / "embeddings.h5", max_residues=50, long_proteins="error")
    assert not (tmp_path / "embeddings.h5").exists()


def test_an_embedding_that_fails_leaves_an_earlier_file_as_it_was(esm_folder, fasta, tmp_path):
    out = embed(esm_folder, fasta[0], tmp_path / "embeddings.h5", cache_limit_gb=0)
    before = out.read_bytes()
    with pytest.raises(UserError):
        embed(esm_folder, fasta[0], out, max_residues=60, long_proteins="error", cache_limit_gb=0)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["embeddings.h5", "proteins.fasta"]


def test_no_command_overwrites_what_it_reads(trained, tmp_path):
    table, sequences = tmp_path / "pairs.csv", tmp_path / "proteins.csv"
    table.write_text("protein_a,protein_b,label\np,q,1\nr,s,0\n")
    sequences.write_text("id,sequence\np,MKV\nq,MLV\nr,MAV\ns,MWV\n")
    before = table.read_bytes(), sequences.read_bytes()
    files = {"data": str(table), "sequences": str(sequences)}
    calls = [
        (peftide.predict, PredictSettings(bundle=str(trained("pair")[1].folder), **files, out=str(table), **CPU)),
        (peftide.split, SplitSettings(**files, out=str(sequences))),
        (peftide.audit, AuditSettings(**files, json=str(table))),
    ]
    parquet = tmp_path / "p.parquet"
    parquet.write_bytes(b"PAR1")
    calls += [
        (peftide.embed, EmbedSettings(data=str(parquet), out=str(parquet))),
        (peftide.screen, ScreenSettings(bundle="", data=str(parquet), out=str(parquet))),
    ]
    for command, settings in calls:
        with pytest.raises(UserError, match="would be overwritten"):
            command(settings)
    assert (table.read_bytes(), sequences.read_bytes(), parquet.read_bytes()) == (*before, b"PAR1")


@pytest.mark.parametrize("target", ["multiclass", "regression"])
def test_pairs_may_have_any_label(esm_folder, tmp_path, target):
    data = write_examples(tmp_path, "pair")
    table = pd.read_csv(data["data"], sep="\t")
    table["label"] = [f"c{number % 3}" if target == "multiclass" else 7 + number / 10 for number in range(len(table))]
    table.to_csv(data["data"], sep="\t", index=False)
    run = peftide.train(
        TrainSettings(
            **data, target=target, out=str(tmp_path / "bundle"), backbone=str(esm_folder), method="head", epochs=1,
            head_width=8, device="cpu", precision="fp32",
        )
    )  # fmt: skip
    assert set(run.assessment.baselines) == {"majority", "composition", "kmers", "random-backbone"}
    page = (run.folder / "report.html").read_text("utf-8")
    assert "Do two proteins interact?" not in page
    assert "a pair of proteins" in page

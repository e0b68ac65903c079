"""The report of a run: what it shows of a bundle, and what it does where parts are absent or damaged."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from peftide.cli import main
from peftide.config import TrainSettings
from peftide.errors import UserError
from peftide.evaluation.metrics import main_metric, measure, measure_classes
from peftide.evaluation.prevalence import rare_positives_table
from peftide.evaluation.reliability import calibration_error, reliability_curve
from peftide.report.run_report import write_report
from peftide.report.wording import interval_words, number, percent, signed

HOSTILE = "<script>alert('x')</script>&\"P1"
KINDS = ("binary", "multiclass", "multilabel", "regression")
CLASSES = {
    "binary": ("0", "1"),
    "multiclass": ("cytosol", "membrane", "nucleus <b>", "secreted"),
    "multilabel": ("C1", "C2", "C3", "D2", "other"),
    "regression": (),
}
VOID = {"meta", "br", "hr", "img", "input", "link", "source", "col", "base"}
NUM_TRAIN, NUM_VAL, NUM_TEST = 2400, 300, 420


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed in its place."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> in a wrong place"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All text with single spaces."""
        return re.sub(r"\s+", " ", " ".join(self.texts))


def truths_and_scores(kind: str, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Targets as in a dataset and plausible, imperfect scores."""
    if kind == "regression":
        truths = 55 + 9 * generator.standard_normal(size)
        return truths, truths + 6 * generator.standard_normal(size)
    if kind == "binary":
        truths = (generator.random(size) < 0.4).astype(float)
        return truths, 1 / (1 + np.exp(-(2.2 * truths - 1.2 + 1.5 * generator.standard_normal(size))))
    num_classes = len(CLASSES[kind])
    logits = 1.2 * generator.standard_normal((size, num_classes))
    if kind == "multiclass":
        truths = generator.choice(num_classes, size, p=[0.5, 0.3, 0.15, 0.05])
        logits[np.arange(size), truths] += 1.8
        powers = np.exp(logits)
        return truths, powers / powers.sum(axis=1, keepdims=True)
    truths = (generator.random((size, num_classes)) < [0.4, 0.5, 0.1, 0.2, 0.05]).astype(float)
    return truths, 1 / (1 + np.exp(-(logits + 3 * truths - 1.5)))


def label_of(kind: str, value: Any) -> str:
    if kind == "regression":
        return str(float(value))
    if kind == "multilabel":
        return " ".join(name for name, there in zip(CLASSES[kind], value, strict=True) if there > 0.5)
    return CLASSES[kind][int(value)]


def prediction_rows(kind: str, split: str, truths: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for row, (truth, score) in enumerate(zip(truths, scores, strict=True)):
        name = f"{HOSTILE}{row}" if row % 2 else f"Q{split[0].upper()}{row:04d}"
        ids = {"protein_a": name, "protein_b": f"P{row:04d}"} if kind == "binary" else {"id": name}
        said = (
            score if kind in ("regression", "multilabel") else score.argmax() if kind == "multiclass" else score >= 0.5
        )
        columns = {"split": split, **ids, "label": label_of(kind, truth), "prediction": label_of(kind, said)}
        if kind == "binary":
            columns["probability"] = float(score)
        elif kind != "regression":
            columns |= {f"probability_{c}": float(s) for c, s in zip(CLASSES[kind], score, strict=True)}
        rows.append(columns)
    return rows


def an_interval(value: float, width: float = 0.03) -> dict[str, float]:
    return {
        "estimate": value, "low": value - width, "high": value + 1.2 * width, "confidence": 0.95,
        "num_replicates": 1000,
    }  # fmt: skip


def assessment_of(kind: Any, held_out: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    metric, judged = main_metric(kind), "test" if "test" in held_out else "val"
    metrics = {split: measure(kind, *both, classes=CLASSES[kind]) for split, both in held_out.items()}
    names = ["majority", "composition", "kmers", "homology", "random-backbone"] + ["label-rate"] * (kind == "binary")
    baselines = {}
    for rank, name in enumerate(names):
        theirs = {
            s: {n: v - 0.03 * (rank + 1) if isinstance(v, float) else v for n, v in m.items()}
            for s, m in metrics.items()
        }
        baselines[name] = {
            "note": f"what {name} knows", "metrics": theirs, "seconds": 1.5 * rank + 0.2,
            "difference": an_interval(0.03 * (rank + 1), 0.02) | {"probability_a_is_better": 0.9 + 0.01 * rank},
        }  # fmt: skip
    document: dict[str, Any] = {
        "main_metric": metric,
        "intervals": {
            split: {name: an_interval(value) for name, value in values.items() if isinstance(value, float)}
            for split, values in metrics.items()
        },
        "classes": {},
        "baselines": baselines,
        "verdict": f"The language model adds to what simple predictors know: {metric}.",
        "calibration": None,
        "rare_positives": [],
        "thresholds": [],
        "confusion": None,
    }
    if kind in ("multiclass", "multilabel"):
        document["classes"] = {s: measure_classes(kind, *both, classes=CLASSES[kind]) for s, both in held_out.items()}
    truths, scores = held_out[judged]
    if kind == "multiclass":
        counts = np.zeros((len(CLASSES[kind]),) * 2, dtype=int)
        np.add.at(counts, (truths, scores.argmax(axis=1)), 1)
        document["confusion"] = {"classes": list(CLASSES[kind]), "counts": counts.tolist()}
    if kind == "binary":
        document |= binary_parts(truths, scores, judged)
    return document


def binary_parts(truths: np.ndarray, scores: np.ndarray, judged: str) -> dict[str, Any]:
    said = scores >= 0.5
    counts = [[int(((truths == t) & (said == s)).sum()) for s in (False, True)] for t in (0, 1)]
    raw = scores**2 / (scores**2 + (1 - scores) ** 2)
    curves = {"before": raw, "after": scores}
    return {
        "confusion": {"classes": ["0", "1"], "counts": counts},
        "rare_positives": [asdict(row) for row in rare_positives_table(truths, scores, threshold=0.5)],
        "thresholds": [
            {"wanted_precision": 0.75, "threshold": 0.61234, "recall": 0.51234},
            {"wanted_precision": 0.9, "threshold": 0.8123, "recall": 0.3012},
        ],
        "calibration": {
            "kind": "temperature", "target": "binary", "temperature": 2.03, "scores": [], "probabilities": [],
            "log_losses": {"none": 0.6, "temperature": 0.55},
            "ece": {judged: {name: calibration_error(truths, curve) for name, curve in curves.items()}},
            "reliability": {
                judged: {name: [asdict(b) for b in reliability_curve(truths, curve)] for name, curve in curves.items()}
            },
        },
    }  # fmt: skip


def an_audit(kind: str) -> dict[str, Any]:
    histogram = {"below 40%": 210, "40% to 50%": 12, "50% to 60%": 5, "60% to 70%": 2, "90% to 100%": 0, "identical": 1}
    classes = CLASSES[kind]
    return {
        "task": "pair" if kind == "binary" else "protein", "kind": kind, "num_examples": 3120, "num_unused": 311,
        "num_proteins": 1405, "max_residues": 1022,
        "splits": [
            {"name": name, "num_examples": size, "num_proteins": size // 3, "num_long_proteins": 7,
             "class_counts": {c: size // (2 + place) for place, c in enumerate(classes)}}
            for name, size in (("train", NUM_TRAIN), ("val", NUM_VAL), ("test", NUM_TEST))
        ],
        "overlaps": [
            {"of": of, "within": within, "num_proteins": 230, "num_shared": 0, "num_identical": 1, "num_similar": 19,
             "leaked_fraction": 0.087, "identity_histogram": histogram, "num_examples": 420,
             "num_repeated_examples": 0}
            for of, within in (("test", "train"), ("val", "train"), ("test", "val"))
        ],
        "homology_tool": "builtin", "num_repeated": 3, "num_contradictory": 2, "one_sided": [], "refused": [],
        "shortcuts": [
            {"predictor": "label rate", "auroc": 0.5123, "auroc_error": 0.02, "aupr": 0.4321, "positive_fraction": 0.4,
             "seen_fraction": 0.0},
        ] if kind == "binary" else [],
        "flags": ["8.7% of the 230 test proteins are in train, or a close relative is (0 the same)"],
        "remarks": ["class '1' makes up 50.0% of train but 33.0% of test"],
        "verdict": "FLAGGED: a score on these splits would mislead: 8.7% of the 230 test proteins are in train",
    }  # fmt: skip


def bundle_document(kind: Any, held_out: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    settings = TrainSettings(
        data="data/my table.tsv", sequences="proteins.fasta.gz", out="runs/first", target=kind, seed=7, lora_rank=4,
        task="pair" if kind == "binary" else "protein", lora_matrices=("query", "value"), epochs=6,
    )  # fmt: skip
    metric = main_metric(kind)
    history = [
        {
            "epoch": epoch,
            "loss": 0.7 * 0.9**epoch,
            metric: 0.4 + 0.05 * min(epoch, 4) - 0.01 * max(0, epoch - 4),
            "seconds": 12.5,
        }
        for epoch in range(1, 7)
    ]
    return {
        "format": 1,
        "model": {
            "task": settings.task, "method": "lora", "backbone": "swissprot-10m", "backbone_hub_name": None,
            "pooling": "mean", "max_residues": 1022, "long_proteins": "crop", "head": {"kind": "mlp"},
            "target": {"kind": kind, "classes": list(CLASSES[kind]), "center": 0.0}, "trained_parameters": 513025,
        },
        "settings": json.loads(json.dumps(asdict(settings))),
        "data": {
            "sha256": {settings.data: "ab" * 32, "proteins.fasta.gz": "cd" * 32},
            "examples": {"train": NUM_TRAIN, "val": NUM_VAL, "test": NUM_TEST},
            "proteins": 1405,
            "notes": [f"data/my table.tsv: 3 rows repeat {HOSTILE}"],
        },
        "audit": an_audit(kind),
        "training": {
            "history": history, "best_epoch": 4, "best_value": 0.6, "ended": "all epochs done", "seconds": 75.2,
            "peak_memory_bytes": 1234567890,
        },
        "metrics": {split: measure(kind, *both, classes=CLASSES[kind]) for split, both in held_out.items()},
        "assessment": assessment_of(kind, held_out) if held_out else None,
        "machine": {"device": "cpu", "device_name": "AMD EPYC", "precision": "fp32", "threads": 2, "torch": "2.13.0"},
    }  # fmt: skip


def write_bundle(
    folder: Path, kind: str, *, splits: tuple[str, ...] = ("val", "test"), change: Callable[[dict], None] | None = None
) -> dict[str, Any]:
    """Write run.json and predictions.tsv as a training run would; the document of run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(5)
    sizes = {"val": NUM_VAL, "test": NUM_TEST}
    held_out = {split: truths_and_scores(kind, sizes[split], generator) for split in splits}
    document = bundle_document(kind, held_out)
    if change is not None:
        change(document)
    (folder / "run.json").write_text(json.dumps(document, allow_nan=False), "utf-8")
    rows = [row for split, both in held_out.items() for row in prediction_rows(kind, split, *both)]
    if rows:
        with (folder / "predictions.tsv").open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, rows[0].keys(), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    return document


def report(folder: Path) -> Page:
    return Page(write_report(folder).read_text("utf-8"))


@dataclass(frozen=True)
class Reported:
    """A bundle with its page."""

    kind: str
    folder: Path
    document: dict[str, Any]
    html: str
    page: Page


@pytest.fixture(scope="module", params=KINDS)
def reported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reported:
    folder = tmp_path_factory.mktemp(request.param)
    document = write_bundle(folder, request.param)
    html = write_report(folder).read_text("utf-8")
    return Reported(request.param, folder, document, html, Page(html))


def test_the_page_is_whole_and_shows_the_numbers_of_run_json(reported: Reported) -> None:
    document, text = reported.document, reported.page.text
    for split in ("val", "test"):
        for name, value in document["metrics"][split].items():
            assert f" {number(value)} " in text, (split, name)
    metric = document["assessment"]["main_metric"]
    interval = document["assessment"]["intervals"]["test"][metric]
    assert interval_words(interval["low"], interval["high"]) in text
    for name, found in document["assessment"]["baselines"].items():
        assert found["note"] in text
        assert number(found["metrics"]["test"][metric]) in text, name
        assert signed(found["difference"]["estimate"]) in text, name
    for sentence in (document["audit"]["verdict"], document["assessment"]["verdict"], *document["audit"]["flags"]):
        assert sentence in text
    assert "513,025" in text
    assert "ab" * 32 in text


def test_the_tables_of_classes_show_the_numbers_of_run_json(reported: Reported) -> None:
    assessment, text = reported.document["assessment"], reported.page.text
    for name, values in assessment["classes"].get("test", {}).items():
        shown = [name, f"{values['support']:,}", percent(values["prevalence"])]
        shown += [number(values[metric]) for metric in ("aupr", "auroc", "f1", "precision", "recall")]
        assert f" {' '.join(shown)} " in text
    for name, counts in zip(*(assessment["confusion"] or {"classes": (), "counts": ()}).values(), strict=True):
        shown = [f"{100 * count / sum(counts):.0f} % {count}" for count in counts]
        assert f" {name} {' '.join(shown)} {sum(counts)} " in text


def test_the_page_loads_nothing_and_runs_nothing(reported: Reported) -> None:
    tags = reported.page.tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base"})
    for tag, attributes in tags:
        assert attributes.keys().isdisjoint({"src", "xlink:href", "onload", "onclick"}), tag
        assert (attributes.get("href") or "#").startswith("#"), tag
    for loading in ("@import", "http://", "https://"):
        assert loading not in reported.html
    assert set(re.findall(r"url\((.)", reported.html)) <= {"#"}


def test_every_reference_within_the_page_finds_one_element(reported: Reported) -> None:
    ids = [attributes["id"] for _, attributes in reported.page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', reported.html)) <= set(ids)


def test_names_from_strangers_are_shown_and_never_become_markup(reported: Reported) -> None:
    assert "<script" not in reported.html
    assert "<b>" not in reported.html
    assert HOSTILE in reported.page.text
    if reported.kind == "multiclass":
        assert "nucleus <b>" in reported.page.text


def test_equal_bundles_give_equal_bytes(reported: Reported, tmp_path: Path) -> None:
    write_bundle(tmp_path, reported.kind)
    assert write_report(tmp_path).read_text("utf-8") == reported.html
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.tsv", "report.html", "run.json"]


def test_the_command_to_repeat_the_run_names_what_is_not_the_default(reported: Reported) -> None:
    task = "" if reported.kind == "binary" else "--task protein "
    command = (
        f"peftide train 'data/my table.tsv' --out runs/first --sequences proteins.fasta.gz {task}--target "
        f"{reported.kind} --lora-rank 4 --lora-matrices query,value --epochs 6 --seed 7"
    )
    assert command in reported.page.text


def leave_out(*path: str) -> Callable[[dict], None]:
    """A change of run.json that removes one entry."""

    def change(document: dict) -> None:
        for name in path[:-1]:
            document = document[name]
        del document[path[-1]]

    return change


def set_to(value: object, *path: str) -> Callable[[dict], None]:
    """A change of run.json that replaces one entry."""

    def change(document: dict) -> None:
        for name in path[:-1]:
            document = document[name]
        document[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("kind", "change", "sentence"),
    [
        ("binary", set_to(None, "audit"), "The splits were not audited"),
        ("multiclass", leave_out("audit"), "it is not known what they share"),
        ("binary", set_to(None, "assessment"), "The model was not compared with baselines."),
        ("multiclass", leave_out("assessment"), "The run has no baselines and no intervals"),
        ("multilabel", leave_out("assessment"), "The run has no table of classes."),
        ("regression", set_to({}, "assessment", "baselines"), "The run has no baselines to compare with."),
        ("multilabel", set_to([], "training", "history"), "there is no learning curve"),
        ("regression", leave_out("training"), "there is no learning curve"),
        ("binary", leave_out("settings"), "settings were not recorded"),
        ("multiclass", leave_out("machine"), "How to repeat it"),
        ("multilabel", leave_out("data"), "Data and audit"),
        ("regression", leave_out("metrics"), "Nothing was held out"),
        ("binary", leave_out("metrics", "test"), "There is no test part"),
        ("binary", leave_out("assessment", "calibration"), "The probabilities were not calibrated"),
        ("binary", leave_out("assessment", "confusion"), "Worst errors"),
        ("binary", leave_out("assessment", "rare_positives"), "Thresholds"),
        ("binary", leave_out("assessment", "intervals"), "Beside simple predictors"),
    ],
)
def test_an_absent_part_is_left_out_with_a_sentence(
    tmp_path: Path, kind: str, change: Callable[[dict], None], sentence: str
) -> None:
    write_bundle(tmp_path, kind, change=change)
    assert sentence in report(tmp_path).text


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_held_nothing_out_has_a_page(tmp_path: Path, kind: str) -> None:
    write_bundle(tmp_path, kind, splits=())
    text = report(tmp_path).text
    assert "Nothing was held out, so it is not known how good the model is." in text
    assert "no held-out predictions to look at" in text


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_without_a_test_part_validation_is_shown_and_said_to_flatter(tmp_path: Path, kind: str) -> None:
    document = write_bundle(tmp_path, kind, splits=("val",))
    text = report(tmp_path).text
    assert "Results on validation" in text
    assert "flatter" in text
    assert number(document["metrics"]["val"][document["assessment"]["main_metric"]]) in text


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_bundle_without_predictions_has_a_page(tmp_path: Path, kind: str) -> None:
    write_bundle(tmp_path, kind)
    (tmp_path / "predictions.tsv").unlink()
    assert "The bundle has no held-out predictions to look at." in report(tmp_path).text


def write_model_alone(folder: Path) -> None:
    """A run.json with nothing but what every bundle has."""
    folder.mkdir(exist_ok=True)
    model = bundle_document("regression", {})["model"]
    (folder / "run.json").write_text(json.dumps({"format": 1, "model": model}), "utf-8")


def test_a_model_alone_has_a_page(tmp_path: Path) -> None:
    write_model_alone(tmp_path)
    text = report(tmp_path).text
    assert "513,025" in text
    assert "settings were not recorded" in text


def test_the_worst_errors_are_the_surest_wrong_answers(reported: Reported) -> None:
    with (reported.folder / "predictions.tsv").open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="\t") if row["split"] == "test"]

    def badness(row: dict[str, str]) -> float:
        scores = {name.removeprefix("probability_"): float(text) for name, text in row.items() if "probability" in name}
        if reported.kind == "regression":
            return abs(float(row["prediction"]) - float(row["label"]))
        if row["label"] == row["prediction"]:
            return -1
        if reported.kind == "multilabel":
            labels = row["label"].split()
            return max(abs(p - 0.5) for name, p in scores.items() if (p >= 0.5) != (name in labels))
        return scores[row["prediction"]] if reported.kind == "multiclass" else abs(scores["probability"] - 0.5)

    rows.sort(key=badness, reverse=True)
    id_column = "protein_a" if reported.kind == "binary" else "id"
    table = reported.page.text.split(" Worst errors ")[-1].split(" Data and audit ")[0]
    places = [table.find(f" {row[id_column]} ") for row in rows[:21]]
    assert min(places[:20]) > 0
    assert places[:20] == sorted(places[:20])
    assert places[20] == -1


def test_a_model_without_errors_is_said_to_have_none(tmp_path: Path) -> None:
    write_bundle(tmp_path, "multiclass")
    path = tmp_path / "predictions.tsv"
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], "test\tQ1\tcytosol\tcytosol\t0.9\t0.1\t0.0\t0.0"]) + "\n", "utf-8")
    assert "No prediction on the test part is wrong." in report(tmp_path).text


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (leave_out("model"), ["model is missing"]),
        (
            lambda document: document["model"].update(task="pears", trained_parameters="many"),
            ["(2 problems)", "model.task must be 'pair' or 'protein'", "parameters must be a whole number, not 'many'"],
        ),
        (set_to([{"epoch": 1, "loss": "low"}], "training", "history"), ["training.history[0].loss must be a number"]),
        (set_to([[1, 2]], "assessment", "confusion", "counts"), ["a row and a column for each class"]),
        (set_to(["1"], "model", "target", "classes"), ["model.target.classes must be two, not 1"]),
        (set_to([], "metrics"), ["metrics must be an object with names"]),
    ],
)  # fmt: skip
def test_a_damaged_run_json_is_refused_with_every_problem(
    tmp_path: Path, change: Callable[[dict], None], problems: list[str]
) -> None:
    write_bundle(tmp_path, "binary", change=change)
    with pytest.raises(UserError) as caught:
        write_report(tmp_path)
    for problem in (str(tmp_path / "run.json"), *problems):
        assert problem in str(caught.value)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"model": NaN}', "3", '{"format": 1}'])
def test_what_is_no_run_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"run\.json: not "):
        write_report(tmp_path)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no run\.json, so it is not a finished bundle"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="is not a folder"):
        write_report(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    [
        "split\tprotein_a\tprotein_b\tlabel\tprediction\n" + "test\ta\tb\t1\t0\n",
        "split\tprotein_a\tprotein_b\tlabel\tprediction\tprobability\n" + "test\ta\tb\t1\t0\tmany\n",
        "split\tprotein_a\tprotein_b\tlabel\tprediction\tprobability\n" + "test\ta\tb\t1\t0\tnan\n",
        "split\tprotein_a\tprotein_b\tlabel\tprediction\tprobability\n" + "test\ta\tb\tyes\t0\t0.5\n",
        "split\tprotein_a\tprotein_b\tlabel\tprediction\tprobability\n" + "test\ta\n",
    ],
)
def test_damaged_predictions_are_refused(tmp_path: Path, text: str) -> None:
    write_bundle(tmp_path, "binary")
    (tmp_path / "predictions.tsv").write_text(text, "utf-8")
    with pytest.raises(UserError, match=r"predictions\.tsv: not the predictions of a bundle, or damaged"):
        write_report(tmp_path)


def test_a_place_that_cannot_be_written_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    write_model_alone(tmp_path / "bundle")
    with pytest.raises(UserError, match="there is no folder"):
        write_report(tmp_path / "bundle", out=tmp_path / "nowhere" / "page.html")
    with pytest.raises(UserError, match="is a folder"):
        write_report(tmp_path / "bundle", out=tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_command_writes_the_page_where_it_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_model_alone(tmp_path / "bundle")
    assert main(["report", str(tmp_path / "bundle"), "--out", str(tmp_path / "page.html")]) == 0
    assert f"report written to {tmp_path / 'page.html'}" in capsys.readouterr().out
    assert not (tmp_path / "bundle" / "report.html").exists()
    assert main(["report", str(tmp_path / "bundle")]) == 0
    assert (tmp_path / "bundle" / "report.html").read_bytes() == (tmp_path / "page.html").read_bytes()
    assert main(["report", str(tmp_path / "nowhere")]) == 2

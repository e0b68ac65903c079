"""What came of training: calibrated scores of the held-out parts, their metrics, and how these are to be judged."""

from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console

from peftide.data.symmetry import GROUP_COLUMNS
from peftide.evaluation.assessment import Assessment, assess, correct
from peftide.evaluation.baselines import held_out
from peftide.evaluation.calibration import fit_calibration
from peftide.evaluation.metrics import measure
from peftide.inference.predict import prediction_columns, score_examples
from peftide.models.property_model import PropertyModel
from peftide.records import Dataset, SplitName
from peftide.training.baselines import baselines_of
from peftide.training.examples import Examples
from peftide.training.subject import Subject

HEADLINES = ("auroc", "macro_auroc", "accuracy", "macro_f1", "mcc", "pearson", "rmse", "ece")


@dataclass(frozen=True)
class Outcome:
    """The model with its calibration, and what it says of the held-out parts.

    raw: scores before calibration; metrics and predictions (columns of a table) are of the corrected ones.
    """

    model: PropertyModel
    raw: dict[SplitName, np.ndarray]
    metrics: dict[str, dict[str, float]]
    predictions: dict[str, list]


def score_held_out(model: PropertyModel, dataset: Dataset, vectors_PD: np.ndarray, *, seed: int) -> Outcome:
    """Score validation and test, and learn on validation how to correct the probabilities."""
    parts = {split: dataset.part(split) for split in held_out(dataset)}
    raw = {split: score_examples(model, vectors_PD, part.members_NK) for split, part in parts.items()}
    if dataset.kind != "regression":
        targets = parts["val"].targets
        assert targets is not None
        generator = np.random.default_rng(seed)
        calibration = fit_calibration(
            dataset.kind, targets, raw["val"], groups_NK=parts["val"].member_groups(), generator=generator
        )
        model = replace(model, calibration=calibration)
    metrics: dict[str, dict[str, float]] = {}
    columns: dict[str, list] = {}
    for split, part in parts.items():
        scores = correct(raw[split], model.calibration)
        assert part.targets is not None
        metrics[split] = measure(part.kind, part.targets, scores, classes=part.classes)
        fresh = {"split": [split] * len(part)} | prediction_columns(part, scores, model.target)
        columns = {name: [*columns.get(name, []), *values] for name, values in fresh.items()}
    return Outcome(model, raw, metrics, columns)


def judge(
    subject: Subject, outcome: Outcome, examples: Examples, console: Console, *, is_interrupted: bool
) -> Assessment:
    """Intervals, baselines, calibration and a verdict, which is printed; see `assess`.

    is_interrupted: leaves out the baselines, since whoever presses Ctrl-C wants an end.
    """
    wanted = "none" if is_interrupted else subject.settings.baselines
    baselines = baselines_of(subject, wanted, examples.baseline_scores, console)
    if baselines:
        console.print(f"comparing with {', '.join(baselines)} on the same examples ...", highlight=False)
    found = assess(
        subject.dataset,
        outcome.raw,
        outcome.model.calibration,
        groups=GROUP_COLUMNS if subject.dataset.task == "symmetry" else {},
        baselines=baselines,
        generator=np.random.default_rng(subject.settings.seed),
    )
    for line in _lines(found, outcome.metrics):
        console.print(line, highlight=False)
    return found


def headline(metrics: dict[str, dict[str, float]], chosen: str) -> str:
    """The main metrics of each held-out part, the one that the model was chosen by first."""
    lines = []
    for split, values in metrics.items():
        found = [f"{name} {values[name]:.4f}" for name in dict.fromkeys((chosen, *HEADLINES)) if name in values]
        lines.append(f"{'validation' if split == 'val' else split}: {', '.join(found)}")
    return "\n".join(lines)


def _lines(found: Assessment, metrics: dict[str, dict[str, float]]) -> list[str]:
    """The judged part beside its baselines, and the verdict."""
    if found.judged is None:
        return []
    name = found.main_metric
    told = _told(name, metrics[found.judged], {who: row.metrics[found.judged] for who, row in found.baselines.items()})
    lines = [f"{found.judged} {name}: {told}"] if told else []
    if interval := found.intervals[found.judged].get(name):
        lines[0] += f" (this model's {interval.confidence:.0%} interval: {interval.low:.3f} to {interval.high:.3f})"
    if found.per_cluster:
        baselines = {who: row.per_cluster[found.judged] for who, row in found.baselines.items()}
        told = _told(name, found.per_cluster[found.judged], baselines)
        lines += [f"the same, each cluster of similar proteins counted once: {told}"] if told else []
    for group, values in found.groups.get(found.judged, {}).items():
        if "aupr" in values:
            lines.append(f"{found.judged} {group}: AUPR {values['aupr']:.3f} (share {values['prevalence']:.3f})")
    return [*lines, found.verdict]


def _told(name: str, model: dict[str, float], baselines: dict[str, dict[str, float]]) -> str:
    rows = {"this model": model} | baselines
    return ", ".join(f"{who} {values[name]:.3f}" for who, values in rows.items() if name in values)

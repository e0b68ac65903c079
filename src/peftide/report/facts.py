"""What a bundle's run.json tells, as records: the parts that a report shows, all but the model optional."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from peftide.data.audit import Audit
from peftide.errors import UserError, raise_problems
from peftide.evaluation.assessment import Comparison, Threshold
from peftide.evaluation.intervals import Interval
from peftide.evaluation.prevalence import RarePositives
from peftide.evaluation.reliability import ReliabilityBin
from peftide.records import TargetKind, Task
from peftide.report.reading import read_as

HeldOut = Literal["val", "test"]


@dataclass(frozen=True)
class TargetFacts:
    """What the label is. classes: as in `records.Dataset`."""

    kind: TargetKind
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ModelFacts:
    """The trained model."""

    task: Task
    method: Literal["head", "lora", "full"]
    backbone: str
    target: TargetFacts
    trained_parameters: int
    max_residues: int | None = None
    long_proteins: str | None = None
    state_layers: tuple[int, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """sha256 by file; examples by split; notes: what was cleaned or assumed on reading."""

    sha256: dict[str, str] = field(default_factory=dict)
    examples: dict[str, int] = field(default_factory=dict)
    proteins: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainingFacts:
    """history: epoch, loss, the metric that epochs were chosen by and seconds, for each epoch."""

    history: tuple[dict[str, float], ...] = ()
    best_epoch: int = 0
    best_value: float | None = None
    ended: str = ""
    seconds: float | None = None
    peak_memory_bytes: float | None = None


@dataclass(frozen=True)
class CalibrationFacts:
    """How probabilities were corrected. log_losses: of the ways that were tried, none where examples were too few.
    ece, reliability: by split, then "before" and "after".
    """

    kind: Literal["none", "temperature", "isotonic"]
    temperature: float | None = None
    log_losses: dict[str, float] = field(default_factory=dict)
    ece: dict[str, dict[str, float]] = field(default_factory=dict)
    reliability: dict[str, dict[str, tuple[ReliabilityBin, ...]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfusionFacts:
    """counts: true classes in rows, predicted ones in columns."""

    classes: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class AssessmentFacts:
    """What held-out scores are worth; the parts of `evaluation.assessment.Assessment` that a report shows."""

    main_metric: str
    verdict: str
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)
    per_cluster: dict[str, dict[str, float]] = field(default_factory=dict)
    groups: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    classes: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    baselines: dict[str, Comparison] = field(default_factory=dict)
    calibration: CalibrationFacts | None = None
    rare_positives: tuple[RarePositives, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    confusion: ConfusionFacts | None = None


@dataclass(frozen=True)
class RunFacts:
    """A finished run. settings: every field of `TrainSettings`; trained_from: fingerprint of the backbone before it was
    trained; machine: hardware and versions by name.
    """

    model: ModelFacts
    settings: Mapping[str, object] = field(default_factory=dict)
    trained_from: str | None = None
    data: DataFacts = field(default_factory=DataFacts)
    audit: Audit | None = None
    training: TrainingFacts = field(default_factory=TrainingFacts)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    assessment: AssessmentFacts | None = None
    machine: Mapping[str, object] = field(default_factory=dict)

    @property
    def judged(self) -> HeldOut | None:
        """The part whose numbers count: the test, else validation; None where nothing was held out."""
        return next((split for split in ("test", "val") if self.metrics.get(split)), None)


def read_facts(folder: Path) -> RunFacts:
    """Read a bundle's run.json; UserError where the folder has none or it is damaged, with every problem in it."""
    path = folder / "run.json"
    if not path.is_file():
        what = "has no run.json, so it is not a finished bundle" if folder.is_dir() else "is not a folder"
        raise UserError(f"{folder}: {what}; give the folder that `peftide train --out` wrote")
    try:
        document = json.loads(path.read_text("utf-8"), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}); the bundle is damaged, train it again") from error
    title = f"{path}: not the run.json of a finished bundle, or damaged; train it again"
    facts = read_as(RunFacts, document, title=title)
    raise_problems(title, _contradictions(facts))
    return facts


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _contradictions(facts: RunFacts) -> list[str]:
    """What no single value shows to be wrong."""
    problems = []
    if facts.model.target.kind == "binary" and len(facts.model.target.classes) != 2:
        problems.append(f"model.target.classes must be two, not {len(facts.model.target.classes)}")
    confusion = facts.assessment.confusion if facts.assessment else None
    if confusion is not None:
        sizes = {len(confusion.classes), len(confusion.counts), *map(len, confusion.counts)}
        if len(sizes) > 1:
            problems.append("assessment.confusion.counts must have a row and a column for each class")
    return problems

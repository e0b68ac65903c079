"""What run.json says of a trained model, checked: every value of its type and range, and all of them fit each other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Literal, get_args

from peftide.config import LongProteins, Method
from peftide.config.setting import FRACTION_OR_ZERO, POSITIVE, Interval
from peftide.data.findings import has_controls
from peftide.data.labels import MOST_CLASSES
from peftide.data.symmetry import SYMMETRY_CLASSES
from peftide.errors import raise_problems
from peftide.evaluation.calibration import TEMPERATURES, Calibration, CalibrationKind
from peftide.models.property_model import HeadShape
from peftide.models.target import Target
from peftide.models.untrusted import number_problem, shown
from peftide.records import TargetKind, Task

Pooling = Literal["mean", "cls"]

WORDS: dict[str, tuple[str, ...]] = {
    "task": get_args(Task),
    "method": get_args(Method),
    "pooling": get_args(Pooling),
    "long_proteins": get_args(LongProteins),
}
HEAD_SIZES = {  # far beyond any use, and too small for sizes that no number counts
    "width": Interval(1, 1 << 20),
    "arity": Interval(1, 3),
    "num_outputs": Interval(1, MOST_CLASSES + 1),
    "hidden_width": Interval(1, 1 << 17),
}
LONGEST_PATH = 4096
MOST_LAYERS = 1 << 10
FEWEST_CLASSES = {"binary": 2, "multiclass": 2, "multilabel": 1, "regression": 0}
MOST_OF_KIND = {"binary": 2, "multiclass": MOST_CLASSES, "multilabel": MOST_CLASSES, "regression": 0}
MISSING = "is missing"


@dataclass(frozen=True)
class BundleFacts:
    """All that is needed to build the model of a bundle, but its weights."""

    task: Task
    method: Method
    backbone: str
    backbone_fingerprint: str
    pooling: Pooling
    state_layers: tuple[int, ...]
    max_residues: int
    long_proteins: LongProteins
    head: HeadShape
    target: Target
    calibration: Calibration | None


def read_model_facts(folder: Path, document: Mapping[str, Any]) -> BundleFacts:
    """The facts in the document of a bundle's run.json; UserError with everything that is wrong with them."""
    facts = _object(document.get("model"))
    title = f"{folder}: its run.json is damaged, or of another program"
    raise_problems(title, list(_problems(facts)))
    head, target = HeadShape(**facts["head"]), _target(facts["target"])
    stored = facts["calibration"]
    read = BundleFacts(
        **{name: facts[name] for name in (*WORDS, "backbone", "backbone_fingerprint", "max_residues")},
        state_layers=tuple(facts["state_layers"]),
        head=head,
        target=target,
        calibration=None if stored is None else Calibration.from_json(stored),
    )
    raise_problems(f"{folder}: the parts of its run.json do not fit together", list(_contradictions(read)))
    return read


def names_other_place(name: str) -> bool:
    """Whether a backbone's name would be looked for relative to wherever the command runs, or on another machine."""
    is_network = name.startswith(("//", "\\\\"))
    return is_network or ".." in Path(name).parts or ".." in PureWindowsPath(name).parts


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _problems(facts: Mapping[str, Any]) -> Iterator[str]:
    for name, words in WORDS.items():
        if facts.get(name) not in words:
            yield f"{name} must be one of {', '.join(words)}, not {shown(facts.get(name))}"
    for name in ("backbone", "backbone_fingerprint"):
        if not _is_name(facts.get(name)) or len(facts[name]) > LONGEST_PATH:
            yield f"{name} must be a text that can be printed, not {shown(facts.get(name))}"
    yield from _number(facts, "max_residues", Interval(1, 1 << 40), whole=True)
    if not _are_layers(facts.get("state_layers")):
        yield f"state_layers must be rising numbers of layers, not {shown(facts.get('state_layers'))}"
    yield from (f"head: {problem}" for problem in _head_problems(_object(facts.get("head"))))
    yield from (f"target: {problem}" for problem in _target_problems(_object(facts.get("target"))))
    if "calibration" not in facts:
        yield f"calibration {MISSING}"
    elif facts["calibration"] is not None:
        yield from (f"calibration: {problem}" for problem in _calibration_problems(_object(facts["calibration"])))


def _number(facts: Mapping[str, Any], name: str, within: Interval, *, whole: bool = False) -> Iterator[str]:
    if (problem := number_problem(facts.get(name), within, whole=whole)) is not None:
        yield f"{name} {problem}"


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != "" and not has_controls(value)


def _head_problems(head: Mapping[str, Any]) -> Iterator[str]:
    if unknown := head.keys() - HeadShape.__dataclass_fields__.keys():
        yield f"{', '.join(sorted(map(repr, unknown)))} is unknown"
    if head.get("kind") not in ("mlp", "paper", "linear"):
        yield f"kind must be mlp, paper or linear, not {shown(head.get('kind'))}"
    for name, within in HEAD_SIZES.items():
        yield from _number(head, name, within, whole=True)
    yield from _number(head, "dropout", FRACTION_OR_ZERO)


def _target_problems(target: Mapping[str, Any]) -> Iterator[str]:
    kind, classes, weights = target.get("kind"), target.get("classes"), target.get("class_weights")
    if not isinstance(kind, str) or kind not in get_args(TargetKind):
        yield f"kind must be one of {', '.join(get_args(TargetKind))}, not {shown(kind)}"
        return
    if not isinstance(classes, list) or not all(map(_is_name, classes)) or len(set(classes)) < len(classes):
        yield "classes must be different texts that can be printed"
    elif not FEWEST_CLASSES[kind] <= len(classes) <= MOST_OF_KIND[kind]:
        yield f"{len(classes):,} classes do not fit a {kind} target"
    elif weights is not None:
        is_list = isinstance(weights, list) and len(weights) == len(classes)
        if not is_list or any(number_problem(weight, POSITIVE, whole=False) for weight in weights):
            yield f"class_weights must be {len(classes)} positive numbers"
    yield from _number(target, "center", Interval(-1e300, 1e300))
    yield from _number(target, "scale", POSITIVE)


def _calibration_problems(stored: Mapping[str, Any]) -> Iterator[str]:
    kind = stored.get("kind")
    if kind not in get_args(CalibrationKind):
        yield f"kind must be one of {', '.join(get_args(CalibrationKind))}, not {shown(kind)}"
    if not isinstance(stored.get("log_losses"), dict):
        yield f"log_losses {MISSING}"
    if (target := stored.get("target")) not in get_args(TargetKind):
        yield f"target must be one of {', '.join(get_args(TargetKind))}, not {shown(target)}"
    knots = [stored.get(name) for name in ("scores", "probabilities")]
    if not all(isinstance(numbers, list) and _is_rising(numbers) for numbers in knots):
        yield "scores and probabilities must be rising numbers from 0 to 1"
    elif len(knots[0] or ()) != len(knots[1] or ()) or (kind == "isotonic" and not knots[0]):
        yield "scores and probabilities must be as many as each other"
    if kind == "temperature" or "temperature" not in stored:
        yield from _number(stored, "temperature", Interval(TEMPERATURES[0] / 2, TEMPERATURES[1] * 2))


def _are_layers(value: object) -> bool:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_LAYERS:
        return False
    within = Interval(1, MOST_LAYERS)
    return not any(number_problem(number, within, whole=True) for number in value) and value == sorted(set(value))


def _is_rising(numbers: list[Any]) -> bool:
    return not any(number_problem(number, Interval(0, 1 + 1e-9), whole=False) for number in numbers) and (
        numbers == sorted(numbers)
    )


def _target(facts: Mapping[str, Any]) -> Target:
    weights = facts.get("class_weights")
    return Target(
        kind=facts["kind"],
        classes=tuple(facts["classes"]),
        class_weights=None if weights is None else tuple(weights),
        center=facts["center"],
        scale=facts["scale"],
    )


def _contradictions(facts: BundleFacts) -> Iterator[str]:
    head, target = facts.head, facts.target
    num_members = 2 if facts.task == "pair" else 1
    if head.arity != num_members:
        yield f"the head compares {head.arity} protein(s), and the task {facts.task} has {num_members}"
    if head.num_outputs != target.num_outputs:
        yield (
            f"the head has {head.num_outputs:,} output(s), and a {target.kind} target of {len(target.classes):,} "
            f"classes needs {target.num_outputs:,}"
        )
    if facts.task == "symmetry" and (target.kind, target.classes) != ("multilabel", SYMMETRY_CLASSES):
        yield "the classes are not those of the task symmetry"
    if facts.calibration is not None and facts.calibration.target != target.kind:
        yield f"the calibration is that of a {facts.calibration.target} target, not of a {target.kind} one"
    if facts.method != "full" and names_other_place(facts.backbone):
        yield f"the backbone {facts.backbone!r} is no name and no full path of a folder on this machine"

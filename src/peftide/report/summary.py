"""The top of a run's report: what was asked, two verdicts, the numbers at a glance."""

from pathlib import Path

from peftide.config import gibibytes
from peftide.evaluation.assessment import ADDS, IS_WORSE, NOT_SHOWN, TOO_FEW
from peftide.report.blocks import Section, Text, Tile, Tiles, Tone, Verdict, Verdicts
from peftide.report.facts import RunFacts
from peftide.report.quality import ranked_baselines
from peftide.report.wording import (
    SPLIT_WORDS,
    capital,
    count_of,
    duration,
    interval_words,
    metric_words,
    number,
    predictor_words,
)

METHOD_WORDS = {"head": "Trained head on a frozen backbone", "lora": "LoRA adapters", "full": "Full fine-tuning"}


def title_of(facts: RunFacts) -> str:
    """The question as a heading."""
    kind = facts.model.target.kind
    if facts.model.task == "protein" and kind in ("multiclass", "multilabel"):
        return "Which class does a protein belong to?" if kind == "multiclass" else "Which labels does a protein have?"
    return question_of(facts)


def subtitle_of(facts: RunFacts) -> str:
    """Method, backbone, data, seed."""
    backbone = Path(facts.model.backbone)
    parts = [f"{METHOD_WORDS[facts.model.method]}, {backbone.name if backbone.is_absolute() else backbone}"]
    if "data" in facts.settings:
        parts.append(Path(str(facts.settings["data"])).name)
    if "seed" in facts.settings:
        parts.append(f"seed {facts.settings['seed']}")
    return " · ".join(parts)


def question_of(facts: RunFacts) -> str:
    """What the model answers."""
    target = facts.model.target
    if facts.model.task == "pair" and target.kind == "binary":
        return "Do two proteins interact?"
    if facts.model.task == "symmetry":
        return "Which symmetry does a homo-oligomer have?"
    if target.kind == "binary":
        return f"Is a protein {target.classes[1]} or {target.classes[0]}?"
    what = "a pair of proteins" if facts.model.task == "pair" else "a protein"
    if target.kind == "regression":
        label = facts.settings.get("column_label")
        return f"What is the {label} of {what}?" if label else f"What value does {what} have?"
    shown = ", ".join(target.classes[:6]) + (", ..." if len(target.classes) > 6 else "")
    which = f"classes does {what} belong to" if target.kind == "multiclass" else f"labels does {what} have"
    return f"Which of {len(target.classes)} {which} ({shown})?"


def summary(facts: RunFacts) -> Section:
    """The section without a heading that opens the report."""
    return Section("", (Text(_asked(facts)), _verdicts(facts), _tiles(facts)))


def _asked(facts: RunFacts) -> str:
    """One paragraph: the question, how it was learnt, on what, and what the numbers are from."""
    examples = facts.data.examples
    noun = "pair" if facts.model.task == "pair" else "protein"
    sentences = [question_of(facts), f"To answer this from the sequence, {_method(facts)}"]
    if examples.get("train"):
        sentences[-1] += f" on {count_of(examples['train'], noun)}"
        if facts.data.proteins and facts.model.task == "pair":
            sentences[-1] += f" (the table has {facts.data.proteins:,} proteins)"
    sentences[-1] += "."
    history = facts.training.history
    if history and facts.training.best_epoch:
        validation = f"{count_of(examples['val'], noun)} for validation" if examples.get("val") else "validation"
        sentences.append(
            f"Of {count_of(len(history), 'epoch')}, number {facts.training.best_epoch} was best on {validation}, and "
            "its weights were kept."
        )
    if facts.judged == "test":
        sentences.append(f"The results are of {count_of(examples['test'], noun)} held out as a test."
                         if examples.get("test") else "The results are of the test part.")  # fmt: skip
    elif facts.judged == "val":
        sentences.append(
            "There is no test part: the results are of validation, by which the epoch was chosen, and so flatter."
        )
    else:
        sentences.append("Nothing was held out, so it is not known how good the model is.")
    return " ".join(sentences)


def _method(facts: RunFacts) -> str:
    backbone = f"the protein language model {facts.model.backbone}"
    if len(facts.model.state_layers) > 1:
        *layers, last = facts.model.state_layers
        backbone += f" (states of its layers {', '.join(map(str, layers))} and {last})"
    if facts.model.method == "head":
        return f"a small head was trained on vectors of {backbone}, which stayed as it was,"
    if facts.model.method == "full":
        return f"every weight of {backbone} and a head were trained"
    settings = facts.settings
    matrices = settings.get("lora_matrices")
    if not isinstance(matrices, list) or "lora_rank" not in settings or "lora_layers" not in settings:
        return f"LoRA adapters in {backbone} and a head were trained"
    where = f"{' and '.join(map(str, matrices))} matrices, layers {settings['lora_layers']}"
    return f"LoRA adapters of rank {settings['lora_rank']} ({where}) in {backbone} and a head were trained"


def _verdicts(facts: RunFacts) -> Verdicts:
    audited = "Can these splits be believed?"
    if facts.audit is None:
        first = Verdict(audited, "The splits were not audited.", "plain")
    else:
        tones: dict[str, Tone] = {"FLAGGED": "bad", "PASSED": "good"}
        first = Verdict(audited, facts.audit.verdict, tones.get(facts.audit.verdict.split(":")[0], "plain"))
    compared = "Does the language model add anything?"
    if facts.assessment is None:
        second = Verdict(compared, "The model was not compared with baselines.", "plain")
    else:
        second = Verdict(compared, facts.assessment.verdict, _tone(facts.assessment.verdict))
    return Verdicts((first, second))


def _tone(verdict: str) -> Tone:
    """By the first words of the sentence on the baselines."""
    tones: dict[str, Tone] = {ADDS: "good", IS_WORSE: "bad", NOT_SHOWN: "caution"}
    found = next((tone for words, tone in tones.items() if verdict.startswith(words)), None)
    return found or ("caution" if TOO_FEW in verdict else "plain")


def _tiles(facts: RunFacts) -> Tiles:
    tiles = [*_quality_tiles(facts)]
    tiles.append(Tile("Trained parameters", f"{facts.model.trained_parameters:,}"))
    if facts.training.seconds is not None:
        tiles.append(Tile("Training time", duration(facts.training.seconds), str(facts.machine.get("device_name", ""))))
    if facts.training.peak_memory_bytes is not None:
        tiles.append(Tile("Peak memory", gibibytes(facts.training.peak_memory_bytes)))
    return Tiles(tuple(tiles))


def _quality_tiles(facts: RunFacts) -> list[Tile]:
    assessment, judged = facts.assessment, facts.judged
    if assessment is None or judged is None or assessment.main_metric not in facts.metrics[judged]:
        return []
    metric = assessment.main_metric
    interval = assessment.intervals.get(judged, {}).get(metric)
    detail = (
        "" if interval is None else f"{interval_words(interval.low, interval.high)} ({100 * interval.confidence:.0f} %)"
    )
    what = capital(f"{SPLIT_WORDS[judged]} {metric_words(metric)}")
    tiles = [Tile(what, number(facts.metrics[judged][metric]), detail)]
    if ranked := ranked_baselines(facts):
        best = assessment.baselines[ranked[0]]
        tiles.append(Tile("Best baseline", number(best.metrics[judged][metric]), predictor_words(ranked[0])))
    return tiles

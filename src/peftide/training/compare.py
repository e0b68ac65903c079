"""The comparison: every method with several seeds on one split, each run a bundle; what is done is not done again."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from peftide.config import CompareSettings, JudgeSettings, RecipeSettings, TrainSettings
from peftide.data.files import data_digests
from peftide.data.writers import check_names_free, write_json, write_table
from peftide.errors import UnwritableError, UserError, raise_problems
from peftide.evaluation.compared import (
    Cost,
    MethodComparison,
    SeedRun,
    Variant,
    check_measurable,
    chosen_of,
    remark_on_groups,
    summarise,
    tell,
)
from peftide.evaluation.intervals import num_independent
from peftide.inference.predict import example_columns
from peftide.models.backbones import load_backbone
from peftide.models.bundle import bundles_in
from peftide.models.machine import Machine, choose_machine, describe
from peftide.records import SPLITS, Dataset
from peftide.report.compare_page import compare_page
from peftide.report.facts import RunFacts, read_facts
from peftide.report.page import write_page
from peftide.report.predictions import read_predictions
from peftide.report.run_report import write_report
from peftide.training.baselines import full_name
from peftide.training.checkpoint import alone_in, remove_checkpoints, remove_leftovers
from peftide.training.compare_table import comparison_columns, cost_table, quality_table
from peftide.training.examples import Examples, read_examples
from peftide.training.plan_table import TABLE_WIDTH
from peftide.training.resident import give_back, keep_freed, quick_collections
from peftide.training.resume import backbone_difference, differences
from peftide.training.run import make_run_folder, run_training
from peftide.training.state import INTERRUPTED
from peftide.training.subject import backbone_problem, schedule_of

WRITTEN = ("compare.json", "compare.tsv", "compare.html")  # into the folder


def run_compare(settings: CompareSettings, console: Console) -> MethodComparison:
    """Train what is not yet there, print the table, write compare.json, compare.tsv and compare.html.

    Ctrl-C ends it; the same settings go on with what is missing. Raises UserError for data that no method could be
    measured on, for runs in the folder that were made otherwise, and where every run fails.
    """
    planned = _planned(settings)
    folder = Path(settings.out)
    check_names_free(folder, WRITTEN, settings.data, settings.sequences)
    for backbone in settings.backbones:
        make_run_folder(settings.out, backbone)
    with alone_in(folder, what="comparison"):
        return _compare(settings, planned, folder, console)


def _compare(
    settings: CompareSettings, planned: Sequence[TrainSettings], folder: Path, console: Console
) -> MethodComparison:
    _check_backbones(planned)
    examples = read_examples(planned[0], console)
    metric = schedule_of(planned[0], examples.dataset).metric
    check_measurable(examples.dataset.part("test"), metric)
    digests = data_digests(settings)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    _check_earlier(planned, digests, machine.dtype)
    with quick_collections():
        failures = _train_missing(planned, examples, machine, console)
    comparison = _read_results(planned, failures, examples, metric=metric, seed=settings.seed)
    document = asdict(comparison) | {
        "settings": asdict(settings),
        "data": {
            "sha256": digests,
            "examples": {split: len(examples.dataset.part(split)) for split in SPLITS},
            "proteins": len(examples.dataset.proteins),
            "notes": list(examples.dataset.notes),
        },
        "machine": describe(machine),
    }
    write_json(folder / "compare.json", document)
    write_table(folder / "compare.tsv", comparison_columns(comparison))
    write_page(folder / "compare.html", compare_page(comparison, document))
    options = {"width": TABLE_WIDTH, "quiet": console.quiet, "markup": False, "emoji": False}
    wide = console if console.is_terminal else Console(file=console.file, **options)
    wide.print(quality_table(comparison), cost_table(comparison))
    for sentence in comparison.verdict:
        console.print(sentence, highlight=False)
    console.print(f"bundles, compare.json, compare.tsv and compare.html are in {folder}", highlight=False)
    if len((chosen := chosen_of(comparison.methods, metric)).seeds) > 1:
        bundles = next(Path(one.folder).parent for one in comparison.runs if one.variant == chosen.variant)
        others = sorted({path.name for path in bundles_in(bundles)} - {f"seed-{seed}" for seed in chosen.seeds})
        more = f" (and with {', '.join(others)}, which are there too)" if others else ""
        console.print(
            f"to predict with all seeds of {chosen.variant}{more}: peftide predict {bundles} ...", highlight=False
        )
    return comparison


def _planned(settings: CompareSettings) -> list[TrainSettings]:
    """The settings of every run: all methods with the first seed, then with the next, so that what an interrupted
    comparison has is a comparison.
    """
    names = {backbone: re.sub(r"[^\w.-]+", "-", backbone).strip("-.") for backbone in settings.backbones}
    if len(set(names.values())) < len(names):
        raise UserError(f"--backbones {', '.join(names)}: two would share a folder; compare them with an --out each")
    shared = {
        item.name: getattr(settings, item.name) for kind in (RecipeSettings, JudgeSettings) for item in fields(kind)
    }

    def split_seed(seed: int) -> int | None:
        return settings.seed if settings.split_seed is None and seed != settings.seed else settings.split_seed

    return [
        TrainSettings(
            **(shared | {"seed": seed, "split_seed": split_seed(seed)}),
            backbone=backbone,
            method=method,
            out=str(Path(settings.out) / names[backbone] / method / f"seed-{seed}"),
        )
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for backbone in settings.backbones
        for method in settings.methods
    ]


def _check_backbones(planned: Sequence[TrainSettings]) -> None:
    """Refuse, before any data are read, what no run could be made with; where some can be made, the others fail."""
    problems = {}
    for settings in planned:
        variant = settings.backbone, settings.method
        if variant not in problems and _finished(Path(settings.out)) is None:
            problems[variant] = backbone_problem(settings)
    if all(problems.values()):
        raise_problems("no run could be trained", list(dict.fromkeys(filter(None, problems.values()))))


def _finished(folder: Path) -> RunFacts | None:
    """The facts of a bundle that was trained and judged to the end; None for anything less."""
    if not (folder / "run.json").is_file() or not (folder / "predictions.tsv").is_file():
        return None
    facts = read_facts(folder)
    is_whole = facts.assessment is not None and not facts.training.ended.startswith(INTERRUPTED)
    return facts if is_whole else None


def _check_earlier(planned: Sequence[TrainSettings], digests: Mapping[str, str], dtype: torch.dtype) -> None:
    """Raise one UserError that says how the finished runs in the folder differ from those that would be made."""
    problems = []
    fingerprints: dict[str, str] = {}
    for settings in planned:
        if (facts := _finished(Path(settings.out))) is None:
            continue
        found = differences(facts.settings, facts.data.sha256, settings, digests)
        if not found:
            name = settings.backbone
            if name not in fingerprints:
                fingerprints[name] = load_backbone(name, dtype=dtype).fingerprint
            found = backbone_difference(name, facts.trained_from, fingerprints[name])
        problems += [f"{settings.out}: {difference}" for difference in found.values()]
    raise_problems("earlier runs in this folder were made otherwise; give another --out, or remove them", problems)


def _train_missing(
    planned: Sequence[TrainSettings], examples: Examples, machine: Machine, console: Console
) -> dict[str, str]:
    """Train what is not finished; the reasons of the runs that failed, by folder."""
    failures: dict[str, str] = {}
    num_done = 0
    for number, settings in enumerate(planned, start=1):
        what = f"{settings.method} on {settings.backbone}, seed {settings.seed} ({number} of {len(planned)})"
        if _finished(Path(settings.out)) is not None:
            console.print(f"{what}: finished earlier, in {settings.out}", highlight=False)
            remove_checkpoints(Path(settings.out))  # where the process was killed at its very end
            remove_leftovers(Path(settings.out))
            if not (Path(settings.out) / "report.html").is_file():  # or the disk was full
                write_report(Path(settings.out))
            num_done += 1
            continue
        console.rule(what)
        try:
            run_training(settings, console, examples)
        except UnwritableError:
            _say_how_to_go_on(num_done, len(planned), console)
            raise
        except (UserError, torch.OutOfMemoryError) as error:
            failures[settings.out] = str(error)
            console.print(f"failed, and the others go on: {error}", style="yellow", highlight=False)
        except KeyboardInterrupt:
            _say_how_to_go_on(num_done, len(planned), console)
            raise
        finally:
            keep_freed(machine.device)
            give_back(machine.device)  # so that the peak of the next run is its own
        if settings.out not in failures:
            if _finished(Path(settings.out)) is None:  # Ctrl-C during training, which keeps what it has
                _say_how_to_go_on(num_done, len(planned), console)
                raise KeyboardInterrupt
            num_done += 1
    if not num_done:
        raise_problems("no run could be trained", list(dict.fromkeys(failures.values())))
    return failures


def _say_how_to_go_on(num_done: int, num_planned: int, console: Console) -> None:
    console.print(
        f"{num_done} of {num_planned} runs are finished; the same command goes on from there", highlight=False
    )


def _read_results(
    planned: Sequence[TrainSettings], failures: Mapping[str, str], examples: Examples, *, metric: str, seed: int
) -> MethodComparison:
    """Runs and scores as their bundles have them, and what follows."""
    test = examples.dataset.part("test")
    runs, scores, baselines = [], {}, {}
    has_several = len({settings.backbone for settings in planned}) > 1
    for settings in planned:
        variant, folder = Variant(settings.backbone, settings.method), Path(settings.out)
        facts = _finished(folder)
        if facts is None:
            runs.append(SeedRun(variant, settings.seed, settings.out, reason=failures[settings.out]))
            continue
        runs.append(SeedRun(variant, settings.seed, settings.out, metrics=facts.metrics, cost=_cost(folder, facts)))
        scores[variant, settings.seed] = _test_scores(folder, facts, test)
        for name, row in _baselines(facts).items():
            if metric in row:
                baselines.setdefault(full_name(name, settings.backbone) if has_several else name, row[metric])
    methods = summarise(test, runs, scores, metric=metric, groups_NK=test.member_groups(), seed=seed)
    said = (*tell(methods, baselines, metric), *remark_on_groups(num_independent(test.member_groups())))
    return MethodComparison(metric, tuple(runs), methods, baselines, said)


def _baselines(facts: RunFacts) -> dict[str, dict[str, float]]:
    """Test metrics of the baselines that a run was compared with."""
    assert facts.assessment is not None
    return {name: row.metrics["test"] for name, row in facts.assessment.baselines.items() if "test" in row.metrics}


def _test_scores(folder: Path, facts: RunFacts, test: Dataset) -> np.ndarray:
    path = folder / "predictions.tsv"
    found = read_predictions(path, facts.model.target).get("test")
    if found is None or found.ids != tuple(zip(*example_columns(test).values(), strict=True)):
        raise UserError(
            f"{path}: its test examples are not those of this comparison; remove the folder, or give another --out"
        )
    return found.scores


def _cost(folder: Path, facts: RunFacts) -> Cost:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert facts.training.peak_memory_bytes is not None
    assert facts.training.seconds is not None
    return Cost(
        trained_parameters=facts.model.trained_parameters,
        peak_memory_bytes=facts.training.peak_memory_bytes,
        seconds=facts.training.seconds,
        weights_bytes=sum(path.stat().st_size for path in files if path.suffix == ".safetensors"),
        bundle_bytes=sum(path.stat().st_size for path in files),
    )

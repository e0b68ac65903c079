"""The sweep: one model for each combination of settings, by validation alone; what is done is not done again."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from peftide.config import SweepSettings, TrainSettings, load_settings, settings_of, to_toml
from peftide.config.vary import Range, Variation, combinations, read_variations, text_of, trial_settings, varied
from peftide.data.files import data_digests
from peftide.data.writers import check_names_free, write_json, write_table, write_text
from peftide.errors import raise_problems
from peftide.evaluation.robustness import Scale, SweepResult, Trial, conclude
from peftide.models.backbones import load_backbone
from peftide.models.machine import choose_machine, describe
from peftide.records import SPLITS, UNUSED, Dataset, Proteins
from peftide.report.page import write_page
from peftide.report.sweep_page import sweep_page
from peftide.training.checkpoint import alone_in
from peftide.training.examples import read_examples
from peftide.training.plan_table import duration
from peftide.training.resident import quick_collections
from peftide.training.resume import backbone_difference, differences
from peftide.training.run import make_run_folder
from peftide.training.search import search_grid, search_optuna
from peftide.training.subject import backbone_problem, schedule_of
from peftide.training.trial import Bench, Judge, StoredTrial, read_trials, run_trial, trial_folder

WRITTEN = ("sweep.json", "sweep.tsv", "sweep.html", "best.toml")  # into the folder


@dataclass
class Progress:
    """A sweep on its way. earlier: trials of earlier calls; tried: those of this one in their order; both by folder."""

    settings: SweepSettings
    bench: Bench
    metric: str
    console: Console
    earlier: dict[Path, StoredTrial]
    tried: dict[Path, StoredTrial] = field(default_factory=dict)

    def attempt(self, values: Mapping[str, Any], judge: Judge, what: str) -> Trial:
        """The trial of these values, made now where it is not there; said in one line."""
        wanted = trial_settings(self.settings, values, out=self.settings.out)
        path = trial_folder(self.bench.folder, wanted)
        told = {name: text_of(value) if isinstance(value, tuple) else value for name, value in values.items()}
        stored = self.tried.get(path) or self.earlier.get(path)
        if stored is not None and self._is_done(path, stored):
            # an earlier call may have varied other settings
            self.tried[path] = stored = replace(stored, trial=replace(stored.trial, values=told))
            self.console.print(f"{what}: {self._line(stored.trial)}, known already", highlight=False)
            return stored.trial
        with self.console.status(what) as status:
            stored = run_trial(
                self.bench, wanted, told, judge=judge,
                after_epoch=lambda epoch, value: status.update(f"{what}, epoch {epoch}: {self.metric} {value:.4f}"),
            )  # fmt: skip
        self.tried[path] = stored
        self.console.print(f"{what}: {self._line(stored.trial)}", highlight=False)
        return stored.trial

    def _is_done(self, path: Path, stored: StoredTrial) -> bool:
        lacks_bundle = self.bench.keeps_bundles and not (path / "run.json").is_file()
        is_whole = stored.trial.state == "finished" or (
            stored.trial.state == "pruned" and self.settings.search == "optuna"  # which a grid would lack
        )
        return is_whole and not lacks_bundle

    def _line(self, trial: Trial) -> str:
        if trial.value is None or trial.seconds is None:
            return f"{trial}: failed: {trial.reason}"
        ended = "" if trial.state == "finished" else ", ended early"
        return (
            f"{trial}: validation {self.metric} {trial.value:.4f} (epoch {trial.best_epoch}{ended}), "
            f"{duration(trial.seconds)}"
        )


def run_sweep(settings: SweepSettings, console: Console) -> SweepResult:
    """Try the combinations that are not yet tried; write sweep.json, sweep.tsv, best.toml and sweep.html.

    A sweep chooses settings, so it must not see the test part: that is taken out of the examples before the first
    trial. Ctrl-C ends it; the same settings go on with what is missing. Raises UserError for data that cannot be
    trained on, for trials in the folder that were made otherwise, and where every trial fails.
    """
    check_names_free(settings.out, WRITTEN, settings.data, settings.sequences)
    folder = make_run_folder(settings.out, settings.backbone)
    with alone_in(folder, what="sweep"):
        return _sweep(settings, folder, console)


def _sweep(settings: SweepSettings, folder: Path, console: Console) -> SweepResult:
    variations, problems = read_variations(varied(settings))
    raise_problems("--vary cannot be used", problems)
    base = trial_settings(settings, {}, out=settings.out)
    _check_backbones(settings, variations)
    dataset = without_test(read_examples(base, console).dataset)
    metric, digests = schedule_of(base, dataset).metric, data_digests(settings)
    earlier = read_trials(folder)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    _check_earlier(earlier, base, digests, variations)
    _check_earlier_backbones(earlier.values(), _backbones(settings, variations), machine.dtype)
    bench = Bench(dataset, machine, digests, folder, settings.keep_bundles)
    progress = Progress(settings, bench, metric, console, earlier)
    console.print(f"varied: {'; '.join(varied(settings))}", highlight=False)
    with quick_collections():
        _search(progress, variations)
    stored = list(progress.tried.values())
    trials = [one.trial for one in stored]
    if all(trial.state != "finished" for trial in trials):
        reasons = [trial.reason for trial in trials if trial.reason is not None]
        raise_problems("no trial could be trained", list(dict.fromkeys(reasons)))
    result = conclude(trials, {one.name: _scale(one) for one in variations}, metric)
    best = _best_settings(stored[result.best], folder)
    _write(progress, result, best)
    for sentence in result.verdict:
        console.print(sentence, highlight=False)
    console.print(
        f"train with the best settings: peftide train --config {folder / 'best.toml'}\n"
        f"sweep.json, sweep.tsv and sweep.html are in {folder}",
        highlight=False,
    )
    return result


def _check_backbones(settings: SweepSettings, variations: Sequence[Variation]) -> None:
    """Refuse, before any data are read, values with which no trial could be made."""
    problems = {}
    for values in combinations(variations):
        trial = trial_settings(settings, values, out=settings.out)
        what = trial.backbone, trial.method, trial.lora_layers, trial.state_layers
        if what not in problems:
            problems[what] = backbone_problem(trial)
    raise_problems("cannot sweep", list(dict.fromkeys(filter(None, problems.values()))))


def without_test(dataset: Dataset) -> Dataset:
    """The training and validation examples and their proteins, and nothing else."""
    assert dataset.split_N is not None
    kept = dataset.subset(~np.isin(dataset.split_N, ("test", UNUSED)))
    rows, members = np.unique(kept.members_NK, return_inverse=True)
    proteins = Proteins(
        tuple(dataset.proteins.ids[row] for row in rows), tuple(dataset.proteins.sequences[row] for row in rows)
    )
    return replace(kept, proteins=proteins, members_NK=members.reshape(kept.members_NK.shape))


def _check_earlier(
    earlier: Mapping[Path, StoredTrial],
    base: TrainSettings,
    digests: Mapping[str, str],
    variations: Sequence[Variation],
) -> None:
    """Raise one UserError that says how the trials in the folder differ from those of this sweep, but for what is
    varied: more values of a setting may be added.
    """
    names = {one.name for one in variations}
    problems: dict[str, str] = {}  # one of each setting
    for stored in earlier.values():
        problems |= differences(stored.settings, stored.sha256, base, digests, ignored=names)
    raise_problems("earlier trials in this folder were made otherwise; give another --out", list(problems.values()))


def _check_earlier_backbones(earlier: Iterable[StoredTrial], names: Container[str], dtype: torch.dtype) -> None:
    """Raise one UserError with the backbones of `names` that hold other weights than when trials were made of them."""
    known = {(str(stored.settings["backbone"]), stored.trained_from) for stored in earlier if stored.is_trained}
    fingerprints = {name: load_backbone(name, dtype=dtype).fingerprint for name, _ in known if name in names}
    problems: dict[str, str] = {}
    for name, there in known:
        if name in fingerprints:
            problems |= backbone_difference(name, there, fingerprints[name])
    raise_problems("earlier trials in this folder were made otherwise; give another --out", list(problems.values()))


def _backbones(settings: SweepSettings, variations: Sequence[Variation]) -> set[str]:
    return {trial_settings(settings, values, out=settings.out).backbone for values in combinations(variations)}


def _search(progress: Progress, variations: Sequence[Variation]) -> None:
    settings = progress.settings
    try:
        if settings.search == "grid":
            search_grid(variations, progress.attempt)
        else:
            search_optuna(
                variations, progress.attempt,
                folder=progress.bench.folder, num_trials=settings.trials, metric=progress.metric, seed=settings.seed,
            )  # fmt: skip
    except KeyboardInterrupt:
        progress.console.print(
            f"{len(progress.tried)} trials are finished; the same command goes on from there", highlight=False
        )
        raise


def _scale(one: Variation) -> Scale:
    if isinstance(one, Range):
        return "logarithmic" if one.is_log else "linear"
    return "listed"


def _best_settings(stored: StoredTrial, folder: Path) -> TrainSettings:
    """What `peftide train` needs to train the best trial's model, test part and all."""
    known = settings_of(TrainSettings)
    values = {name: known[name].from_toml(value) for name, value in stored.settings.items() if name in known}
    return TrainSettings(**(values | {"out": str(folder / "best")}))  # pyrefly: ignore[bad-argument-type]


def _write(progress: Progress, result: SweepResult, best: TrainSettings) -> None:
    folder, dataset = progress.bench.folder, progress.bench.dataset
    path = folder / "best.toml"
    heading = f"# The best of {len(result.trials)} trials of a sweep, by validation {result.metric}\n"
    write_text(path, heading + to_toml(best))
    assert load_settings(TrainSettings, str(path), {}) == best
    names = [effect.name for effect in result.effects]
    document = asdict(result) | {
        "settings": asdict(progress.settings),
        "data": {
            "sha256": dict(progress.bench.sha256),
            "examples": {split: len(dataset.part(split)) for split in SPLITS if split != "test"},
            "proteins": len(dataset.proteins),
            "notes": list(dataset.notes),
        },
        "machine": describe(progress.bench.machine),
    }
    write_json(folder / "sweep.json", document)
    write_table(folder / "sweep.tsv", sweep_columns(result, names, [str(path) for path in progress.tried]))
    write_page(folder / "sweep.html", sweep_page(result, document))


def sweep_columns(result: SweepResult, names: Sequence[str], folders: Sequence[str]) -> dict[str, list[object]]:
    """A row per trial in the order of trying."""
    trials = result.trials
    columns: dict[str, list[object]] = {name: [trial.values[name] for trial in trials] for name in names}
    return columns | {
        "state": [trial.state for trial in trials],
        f"val_{result.metric}": [trial.value for trial in trials],
        "best_epoch": [trial.best_epoch for trial in trials],
        "epochs": [len(trial.history) for trial in trials],
        "is_best": [number == result.best for number in range(len(trials))],
        "trained_parameters": [trial.trained_parameters for trial in trials],
        "peak_memory_bytes": [trial.peak_memory_bytes for trial in trials],
        "seconds": [trial.seconds for trial in trials],
        "folder": list(folders),
        "reason": [trial.reason for trial in trials],
    }

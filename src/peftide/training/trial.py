"""One trial of a sweep: trained and measured without the test part, its numbers kept in a file of its own."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from peftide.config import TrainSettings
from peftide.data.writers import make_folder, write_json
from peftide.errors import UnwritableError, UserError
from peftide.evaluation.robustness import Trial
from peftide.models.bundle import save_bundle
from peftide.models.machine import Machine, describe, peak_memory_bytes
from peftide.records import Dataset
from peftide.report.reading import read_as
from peftide.training.checkpoint import remove_leftovers
from peftide.training.resident import give_back, keep_freed, start_peak
from peftide.training.resume import NO_MATTER, as_json
from peftide.training.run import fit_subject, prepare
from peftide.training.shelf import BackboneShelf
from peftide.training.state import Fit
from peftide.training.subject import Subject, backbone_dtype

FORMAT = 1
Judge = Callable[[int, float], bool]  # an epoch's number and metric -> whether the trial is to be ended early
Follow = Callable[[int, float], None]  # told of every epoch


@dataclass(frozen=True)
class StoredTrial:
    """A trial as its file has it. settings: every field of `TrainSettings`; sha256: of the data's files, by name;
    trained_from: fingerprint of the backbone, none where it could not be loaded.
    """

    trial: Trial
    settings: Mapping[str, object]
    sha256: Mapping[str, str]
    trained_from: str | None = None

    @property
    def is_trained(self) -> bool:
        """Whether it came to a value that a sweep would take up."""
        return self.trial.state != "failed"


@dataclass(frozen=True)
class Bench:
    """What all trials of a sweep share. dataset: without the test part; sha256: of the files it was read from."""

    dataset: Dataset
    machine: Machine
    sha256: Mapping[str, str]
    folder: Path
    keeps_bundles: bool
    shelf: BackboneShelf = field(default_factory=BackboneShelf)


def trial_folder(folder: Path, settings: TrainSettings) -> Path:
    """Where a sweep keeps the trial of these settings: they decide its name."""
    decisive = {name: value for name, value in as_json(settings).items() if name not in NO_MATTER}
    digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
    return folder / "trials" / digest[:16]


def read_trials(folder: Path) -> dict[Path, StoredTrial]:
    """The trials of a sweep's folder by their own folders, in no order of meaning.

    Raises UserError for a damaged file.
    """
    found = {}
    for path in sorted((folder / "trials").glob("*/trial.json")):
        try:
            document = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error}); remove it, and the trial is made again") from error
        title = f"{path}: not a trial, or damaged; remove it, and the trial is made again"
        found[path.parent] = read_as(StoredTrial, document, title=title)
    return found


def run_trial(
    bench: Bench, settings: TrainSettings, values: Mapping[str, object], *, after_epoch: Follow, judge: Judge
) -> StoredTrial:
    """Train with these settings and write trial.json; values: of the varied ones, as they are told.

    A trial has failed where other settings, or more memory, would mend it. Raises KeyboardInterrupt after Ctrl-C, and
    UserError where the disk is full or refuses; then nothing is written.
    """
    folder = trial_folder(bench.folder, settings)
    make_folder(folder)
    remove_leftovers(folder)
    trained_from = None
    try:
        trial, trained_from = _train(bench, settings, values, after_epoch=after_epoch, judge=judge)
    except UnwritableError:
        raise
    except (UserError, torch.OutOfMemoryError) as error:
        trial = Trial(values=values, state="failed", reason=str(error))
    keep_freed(bench.machine.device)
    give_back(bench.machine.device)  # so that the peak of the next trial is its own
    stored = StoredTrial(trial, as_json(settings), bench.sha256, trained_from)
    write_json(folder / "trial.json", {"format": FORMAT} | asdict(stored))
    return stored


def _train(
    bench: Bench, settings: TrainSettings, values: Mapping[str, object], *, after_epoch: Follow, judge: Judge
) -> tuple[Trial, str]:
    """The trial, and the fingerprint of its backbone before it."""
    was_judged: list[int] = []

    def follow(epoch: int, value: float) -> str | None:
        after_epoch(epoch, value)
        if not judge(epoch, value):
            return None
        was_judged.append(epoch)
        return "behind earlier trials"

    device, started = bench.machine.device, time.perf_counter()
    start_peak(device)
    dtype = backbone_dtype(settings.method, bench.machine)
    subject = prepare(settings, bench.dataset, bench.machine, bench.shelf.take(settings.backbone, dtype))
    trained_from = subject.model.backbone.fingerprint
    fit, _ = fit_subject(subject, Console(quiet=True), after_epoch=follow, embeds=False)
    if fit.is_interrupted:
        raise KeyboardInterrupt
    trial = Trial(
        values=values,
        state="pruned" if was_judged else "finished",
        value=fit.best_value,
        best_epoch=fit.best_epoch,
        history=tuple(fit.history),
        trained_parameters=subject.model.num_trained,
        peak_memory_bytes=peak_memory_bytes(device),
        seconds=time.perf_counter() - started,
    )
    if bench.keeps_bundles:
        save_bundle(trial_folder(bench.folder, settings), subject.model, _run_document(bench, subject, fit, trial))
    bench.shelf.put_back(subject.model, dtype)
    return trial, trained_from


def _run_document(bench: Bench, subject: Subject, fit: Fit, trial: Trial) -> dict[str, object]:
    """The run.json of a trial's bundle: what is known without the test part."""
    return {
        "settings": asdict(subject.settings),
        "data": {"sha256": dict(bench.sha256)},
        "training": asdict(fit) | {"seconds": trial.seconds, "peak_memory_bytes": trial.peak_memory_bytes},
        "metrics": {"val": {subject.schedule.metric: fit.best_value}},
        "machine": describe(bench.machine),
    }

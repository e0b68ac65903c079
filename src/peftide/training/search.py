"""The combinations that a sweep tries, in order: a full grid, or Optuna's choice from what came of earlier ones."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from peftide.config.vary import Choices, Variation, combinations
from peftide.errors import UserError, unwritable
from peftide.evaluation.metrics import higher_is_better
from peftide.evaluation.robustness import Trial
from peftide.training.trial import Judge

if TYPE_CHECKING:
    import optuna

# Try a combination; the text says which of how many it is
Try = Callable[[Mapping[str, Any], Judge, str], Trial]

STUDY_FILE = "study.log"
STARTUP_TRIALS = 5  # finished ones, before any is ended early
WARMUP_EPOCHS = 1  # of a trial, before it may be ended early


def search_grid(variations: Sequence[Variation], attempt: Try) -> None:
    """Try every combination once."""
    planned = combinations(variations)
    for number, values in enumerate(planned, start=1):
        attempt(values, lambda epoch, value: False, f"trial {number} of {len(planned)}")


def search_optuna(
    variations: Sequence[Variation], attempt: Try, *, folder: Path, num_trials: int, metric: str, seed: int
) -> None:
    """Try combinations until there are `num_trials`, those of earlier calls with the same folder included.

    The sampler is Optuna's tree-structured Parzen estimator; a trial whose best epoch is below the median of the others
    at the same epoch is ended early. The study lies in the folder as lines of JSON.
    """
    with _writing(folder):
        study = _open_study(folder, variations, metric=metric, seed=seed)
    for number, done in enumerate(_done(study), start=1):
        values = {one.name: _value(one, done.params[one.name]) for one in variations}
        attempt(values, lambda epoch, value: False, f"trial {number} of {num_trials}")
    while (number := len(_done(study))) < num_trials:
        study.sampler = _sampler(seed, number)
        with _writing(folder):
            asked = study.ask()
            values = {one.name: _value(one, _suggest(asked, one)) for one in variations}
        reported: set[int] = set()

        def judge(epoch: int, value: float, asked: "optuna.trial.Trial" = asked, reported: set[int] = reported) -> bool:
            with _writing(folder):
                asked.report(value, step=epoch)
                reported.add(epoch)
                return asked.should_prune()

        trial = attempt(values, judge, f"trial {number + 1} of {num_trials}")
        with _writing(folder):
            for row in trial.history:  # of a trial that was known already
                if row["epoch"] not in reported:
                    asked.report(row[metric], step=int(row["epoch"]))
            _tell(study, asked, trial)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """What goes wrong with the study's file, in words for the user."""
    try:
        yield
    except OSError as error:
        raise unwritable(folder / STUDY_FILE, error, goes_on=True) from error


def _open_study(folder: Path, variations: Sequence[Variation], *, metric: str, seed: int) -> "optuna.Study":
    """The study in the folder, new or continued; trials that were cut off have failed. No other process may use it."""
    import optuna  # here, because no other command needs it
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path = folder / STUDY_FILE
    mend_journal(path)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path)))),
        study_name="sweep",
        load_if_exists=True,
        direction="maximize" if higher_is_better(metric) else "minimize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_EPOCHS + 1),
    )
    space = [repr(one) for one in variations]
    if study.user_attrs.setdefault("vary", space) != space:
        raise UserError(f"{folder}: an earlier search here varied other settings or values; give another --out")
    study.set_user_attr("vary", space)
    for cut_off in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(cut_off.number, state=TrialState.FAIL)
    return study


def mend_journal(path: Path) -> None:
    """Undo what a killed process, or a full disk, left of Optuna's writing: half a line at the end, and its lock."""
    for lock in path.parent.glob(f"{path.name}.lock*"):  # under another name while it is let go
        lock.unlink()
    if path.is_file():
        content = path.read_bytes()
        os.truncate(path, content.rfind(b"\n") + 1)


def _sampler(seed: int, number: int) -> "optuna.samplers.TPESampler":
    """The sampler of a trial: what it draws follows from the trials before, however often the search was cut off."""
    import optuna

    return optuna.samplers.TPESampler(seed=int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


def _done(study: "optuna.Study") -> list["optuna.trial.FrozenTrial"]:
    """Trials that came to an end of their own; those that were cut off are made again."""
    from optuna.trial import TrialState

    return [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
        if trial.state != TrialState.FAIL or trial.user_attrs.get("state") == "failed"
    ]


def _value(one: Variation, suggested: Any) -> Any:
    """The value of a setting from what the study has for it: texts stand for values that it could not keep."""
    return one.values[one.texts.index(suggested)] if isinstance(one, Choices) else suggested


def _suggest(asked: "optuna.trial.Trial", one: Variation) -> Any:
    if isinstance(one, Choices):
        return asked.suggest_categorical(one.name, one.texts)
    if one.is_whole:
        return asked.suggest_int(one.name, int(one.low), int(one.high), log=one.is_log)
    return asked.suggest_float(one.name, one.low, one.high, log=one.is_log)


def _tell(study: "optuna.Study", asked: "optuna.trial.Trial", trial: Trial) -> None:
    from optuna.trial import TrialState

    asked.set_user_attr("state", trial.state)
    if trial.state == "finished":
        study.tell(asked, trial.value)
    else:
        study.tell(asked, state=TrialState.PRUNED if trial.state == "pruned" else TrialState.FAIL)

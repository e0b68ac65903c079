"""The page of a sweep."""

import shlex
from collections.abc import Mapping

from peftide.config import SweepSettings
from peftide.evaluation.metrics import higher_is_better
from peftide.evaluation.robustness import SweepResult, Trial, value_text
from peftide.report.blocks import (
    Block,
    Bullets,
    Cell,
    Code,
    Column,
    Definitions,
    Picture,
    Section,
    Table,
    Text,
    text_table,
)
from peftide.report.command_line import command_line
from peftide.report.page import page
from peftide.report.sweep_figures import setting_charts
from peftide.report.wording import duration, glossary, metric_words, number, percent

HOW_READ = (
    "Every dot is a trial; black lines are medians, the orange dot is the best trial, hollow ones were ended early. "
    "Where the lines of a panel lie at one height, the setting hardly matters; where its dots scatter far around them, "
    "others matter more."
)
NO_TEST = (
    "All numbers are of the validation part; the test part was taken out before the first trial. The best of many "
    "trials is the best on validation by luck too: train it, and the test part tells what it is worth."
)
HOW_EXPLAINED = (
    "Of the range: distance between the highest and the lowest median of a setting's values, as a share of the "
    "distance between the best and the worst trial. Of the variance: how much of the variance of all trials lies "
    "between the values of the setting. A single seed has luck in it as well: vary the seed too to see how much."
)
MOST_ROWS = 200


def sweep_page(result: SweepResult, document: Mapping[str, object]) -> str:
    """A self-contained page; document: the sweep's JSON, for the settings and the data."""
    settings = document["settings"]
    assert isinstance(settings, Mapping)
    charts: tuple[Block, ...] = tuple(Picture(chart) for chart in setting_charts(result))
    sections = (
        Section("Answer", (Bullets(result.verdict), Text(NO_TEST, is_note=True))),
        Section("Spread", (*charts, Text(HOW_READ, is_note=True), _effects(result), Text(HOW_EXPLAINED, is_note=True))),
        Section("Trials", (_trials(result),)),
        Section(
            "Again",
            (
                Code(command_line(settings, command="sweep", kind=SweepSettings)),
                Text("Trials that are there are not made again. To train with the best settings:", is_note=True),
                Code(shlex.join(["peftide", "train", "--config", f"{settings['out']}/best.toml"])),
            ),
        ),
        Section("What the words mean", (Definitions(glossary([result.metric])),)),
    )
    title = f"Robustness by validation {metric_words(result.metric)}"
    return page(title, sections, subtitle=_subtitle(document, settings))


def _effects(result: SweepResult) -> Table:
    rows = [
        (
            Cell(effect.name),
            Cell(", ".join(f"{level.label}: {number(level.median)}" for level in effect.levels)),
            Cell(percent(effect.range_share), bar=min(1.0, effect.range_share)),
            Cell(percent(effect.variance_share), bar=min(1.0, effect.variance_share)),
        )
        for effect in sorted(result.effects, key=lambda effect: -effect.range_share)
    ]
    columns = (Column("setting", False), Column("medians", False), Column("of the range"), Column("of the variance"))
    return Table(columns, tuple(rows))


def _trials(result: SweepResult) -> Table:
    names = [effect.name for effect in result.effects]
    sign = 1 if higher_is_better(result.metric) else -1
    best_first = sorted(result.trials, key=lambda trial: (trial.value is None, -sign * (trial.value or 0)))
    headings = (*names, f"validation {metric_words(result.metric)}", "best epoch", "parameters", "time", "")
    caption = f"the best {MOST_ROWS} of {len(result.trials)}" if len(result.trials) > MOST_ROWS else ""
    rows = tuple(_trial_row(trial, names) for trial in best_first[:MOST_ROWS])
    return text_table(headings, rows, num_text_columns=len(names), caption=caption)


def _trial_row(trial: Trial, names: list[str]) -> tuple[str, ...]:
    state = {"finished": "", "pruned": "ended early", "failed": f"failed: {trial.reason}"}[trial.state]
    parameters = "" if trial.trained_parameters is None else f"{trial.trained_parameters:,}"
    settings = [value_text(trial.values[name]) for name in names]
    return (*settings, number(trial.value), str(trial.best_epoch), parameters, duration(trial.seconds), state)


def _subtitle(document: Mapping[str, object], settings: Mapping[str, object]) -> str:
    data = document["data"]
    assert isinstance(data, Mapping)
    counts = ", ".join(f"{count:,} {split}" for split, count in data["examples"].items())
    what = f"{settings['method']} on {settings['backbone']}"
    return f"{what}; {settings['data']}: {data['proteins']:,} proteins; examples: {counts}"

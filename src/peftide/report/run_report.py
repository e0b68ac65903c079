"""The report of one run: run.json and predictions.tsv of a bundle as one page."""

from pathlib import Path

from peftide.report.data_section import data_section
from peftide.report.details import detail_sections
from peftide.report.facts import read_facts
from peftide.report.mistakes import mistakes_section
from peftide.report.page import page, write_page
from peftide.report.predictions import read_predictions
from peftide.report.quality import quality_section, training_section
from peftide.report.repeating import cost_section, glossary_section, repeating_section
from peftide.report.summary import subtitle_of, summary, title_of


def write_report(folder: Path, *, out: Path | None = None) -> Path:
    """Write `report.html` into a bundle (or to `out`) and return its path; equal bundles give equal bytes.

    What the bundle has not is left out with a sentence. Raises UserError where the folder is no finished bundle or one
    of the two files is damaged.
    """
    facts = read_facts(folder)
    parts = read_predictions(folder / "predictions.tsv", facts.model.target)
    predictions = None if facts.judged is None else parts.get(facts.judged)
    sections = [
        summary(facts),
        quality_section(facts),
        *detail_sections(facts, predictions),
        mistakes_section(facts, predictions),
        data_section(facts),
        training_section(facts),
        cost_section(facts),
        repeating_section(facts),
        glossary_section(facts),
    ]
    path = folder / "report.html" if out is None else out
    write_page(path, page(title_of(facts), sections, subtitle=subtitle_of(facts)))
    return path

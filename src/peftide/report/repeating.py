"""What the run cost, how to repeat it, and what the words mean."""

from peftide.config import TrainSettings, gibibytes, settings_of
from peftide.evaluation.metrics import METRIC_NAMES
from peftide.report.blocks import Block, Code, Definitions, Heading, Section, Text, text_table
from peftide.report.command_line import command_line
from peftide.report.facts import RunFacts
from peftide.report.wording import count_of, duration, glossary, predictor_words


def cost_section(facts: RunFacts) -> Section:
    """Parameters, time, memory, device; the baselines' time."""
    training = facts.training
    rows = [("Trained parameters", f"{facts.model.trained_parameters:,}")]
    if training.seconds is not None:
        epochs = f" ({count_of(len(training.history), 'epoch')})" if training.history else ""
        rows.append(("Training time", f"{duration(training.seconds)}{epochs}"))
    if training.peak_memory_bytes is not None:
        kind = "of the GPU" if str(facts.machine.get("device", "")).startswith("cuda") else "of the process"
        rows.append((f"Peak memory {kind}", gibibytes(training.peak_memory_bytes)))
    device = facts.machine.get("device_name", facts.machine.get("device"))
    if device is not None:
        arithmetic = f", {facts.machine['precision']}" if "precision" in facts.machine else ""
        threads = facts.machine.get("threads")
        on_cpu = (
            f", {count_of(threads, 'thread')}"
            if isinstance(threads, int) and facts.machine.get("device") == "cpu"
            else ""
        )
        rows.append(("Device", f"{device} ({facts.machine.get('device', device)}){arithmetic}{on_cpu}"))
    for name, found in (facts.assessment.baselines if facts.assessment else {}).items():
        rows.append((f"Baseline: {predictor_words(name)}", duration(found.seconds)))
    return Section("Cost", (text_table(("What", "How much"), tuple(rows), num_text_columns=1),))


def repeating_section(facts: RunFacts) -> Section:
    """The command, the hashes of the data, the versions."""
    blocks: list[Block] = []
    if facts.settings:
        blocks += [
            Text("Run this in the same folder, with the same files and versions:"),
            Code(command_line(facts.settings)),
        ]
        seed = facts.settings.get("seed")
        if seed is not None:
            blocks.append(Text(f"Seed: {seed}. The same seed on the same machine repeats the run.", is_note=True))
        unknown = [name for name in facts.settings if name not in settings_of(TrainSettings)]
        if unknown:
            blocks.append(Text(f"This version of peftide has no setting {', '.join(unknown)}; the run had."))
    else:
        blocks.append(Text("The run's settings were not recorded."))
    if facts.data.sha256:
        rows = tuple(facts.data.sha256.items())
        blocks += [Heading("Data"), text_table(("File", "SHA-256"), rows, num_text_columns=2)]
    if facts.machine:
        rows = tuple((name.replace("_", " "), str(value)) for name, value in facts.machine.items())
        blocks += [Heading("Machine and versions"), text_table(("What", "Which"), rows, num_text_columns=2)]
    return Section("How to repeat it", tuple(blocks))


def glossary_section(facts: RunFacts) -> Section:
    """The words of this page."""
    shown = [name for name in METRIC_NAMES[facts.model.target.kind] if any(name in m for m in facts.metrics.values())]
    return Section("What the words mean", (Definitions(glossary(shown)),))

"""What to change where training does not fit in memory."""

from collections.abc import Iterator
from dataclasses import replace

from peftide.config import TrainSettings, gibibytes, parse_layers
from peftide.models.backbones import load_skeleton
from peftide.models.machine import Machine
from peftide.records import Dataset
from peftide.training.build import build_model
from peftide.training.memory import footprint, least_bytes

SHORTER = (512, 256)  # residues
TOLD = 3  # changes named at most


def least_needed(settings: TrainSettings, dataset: Dataset, machine: Machine, *, held_bytes: int) -> int:
    """The smallest `--memory` that these settings can be trained in, counted without the backbone's weights."""
    model = build_model(settings, dataset, load_skeleton(settings.backbone))
    tokens = [protein.num_tokens for protein in model.pieces(dataset.proteins)]
    return least_bytes(footprint(model, machine), machine, tokens, held_bytes=held_bytes)


def what_would_fit(
    settings: TrainSettings, dataset: Dataset, machine: Machine, *, held_bytes: int, limit_bytes: int
) -> str:
    """Why it does not fit, and which changes would mend it, in words, each with the memory that it needs."""
    least = least_needed(settings, dataset, machine, held_bytes=held_bytes)
    found: list[str] = []
    for words, changed in _changes(settings):
        needed = least_needed(changed, dataset, machine, held_bytes=held_bytes)
        if needed <= limit_bytes:
            found.append(f"{words} ({gibibytes(needed)})")
        if len(found) == TOLD:
            break
    mends = f"what would fit: {', or '.join(found)}" if found else "take a smaller backbone or allow more memory"
    return (
        f"{settings.method} on {settings.backbone} needs at least {gibibytes(least)}, one protein at a time and with "
        f"--checkpoint-layers, and may hold {gibibytes(limit_bytes)}; {mends}"
    )


def _changes(settings: TrainSettings) -> Iterator[tuple[str, TrainSettings]]:
    """Changes that take less memory, those that change the result least first."""
    if settings.method == "full":
        yield "--method lora --lora-layers all", replace(settings, method="lora", lora_layers="all")
        settings = replace(settings, method="lora")
        yield "--method lora", settings
    if settings.method == "lora":
        num_layers = load_skeleton(settings.backbone).num_layers
        adapted = parse_layers(settings.lora_layers, num_layers)
        count = len(adapted) // 2
        while count:
            is_last = adapted[-count] == num_layers - count
            layers = f"last:{count}" if is_last else ",".join(str(layer + 1) for layer in adapted[-count:])
            yield f"--lora-layers {layers}", replace(settings, lora_layers=layers)
            count //= 2
    for residues in SHORTER:
        if residues < settings.max_residues:
            yield f"--max-residues {residues}", replace(settings, max_residues=residues)
    if settings.method != "head":
        yield "--method head", replace(settings, method="head")

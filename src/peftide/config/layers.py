"""Which layers to adapt: how `lora_layers` is written, and the layers of a backbone that it names."""

import re

from peftide.errors import UserError

HOW_TO_WRITE = "last-quarter, all, last:K, or 1-based layers such as 5,7-9"
_PART = r"\s*(\d+)(?:-(\d+))?\s*"
_WHOLE = re.compile(rf"all|last-quarter|last:\d+|{_PART}(?:,{_PART})*")


def are_layers(text: str) -> bool:
    """Whether the text says which layers; that a backbone has them is another question."""
    return _WHOLE.fullmatch(text) is not None


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """Zero-based layers from "all", "last-quarter", "last:K" or 1-based numbers and ranges such as "5,7-9".

    Raises UserError for anything else, and for layers that a backbone of so many does not have.
    """
    if not are_layers(text):
        raise UserError(f"lora_layers = {text}: write {HOW_TO_WRITE}")
    if text == "all":
        return tuple(range(num_layers))
    if text == "last-quarter":
        return tuple(range(num_layers - max(1, num_layers // 4), num_layers))
    if text.startswith("last:"):
        count = int(text.removeprefix("last:"))
        if not 1 <= count <= num_layers:
            raise UserError(f"lora_layers = {text}: this backbone has {num_layers} layers")
        return tuple(range(num_layers - count, num_layers))
    layers: set[int] = set()
    for match in re.finditer(_PART, text):
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= num_layers:
            raise UserError(
                f"lora_layers = {text}: {match[0].strip()} is outside layers 1 to {num_layers} of this backbone"
            )
        layers.update(range(first - 1, last))
    return tuple(sorted(layers))

"""Which layers: how `lora_layers` and `state_layers` are written, and the layers of a backbone that they name."""

import re

from peftide.errors import UserError

HOW_TO_WRITE = "last, last-quarter, last:K, spread, all, or layers counted from 1 such as 5,7-9"
_PART = r"\s*(\d+)(?:-(\d+))?\s*"
_WHOLE = re.compile(rf"all|spread|last|last-quarter|last:\d+|{_PART}(?:,{_PART})*")


def are_layers(text: str) -> bool:
    """Whether the text says which layers; that a backbone has them is another question."""
    return _WHOLE.fullmatch(text) is not None


def parse_layers(text: str, num_layers: int, *, name: str = "lora_layers") -> tuple[int, ...]:
    """Zero-based layers, rising, from 1-based numbers and ranges such as "5,7-9", or from a word.

    Words: "all", "last", "last:K", "last-quarter", and "spread": those at a half, at three quarters and at the end.
    Raises UserError, in the name of the setting, for anything else, and for layers that a backbone of so many does not
    have.
    """
    if not are_layers(text):
        raise UserError(f"{name} = {text}: write {HOW_TO_WRITE}")
    if text == "spread":
        counts = (num_layers // 2, 3 * num_layers // 4, num_layers)
        return tuple(sorted({max(1, count) - 1 for count in counts}))
    words = {"all": num_layers, "last": 1, "last-quarter": max(1, num_layers // 4)}
    if text in words or text.startswith("last:"):
        count = words[text] if text in words else int(text.removeprefix("last:"))
        if not 1 <= count <= num_layers:
            raise UserError(f"{name} = {text}: this backbone has {num_layers} layers")
        return tuple(range(num_layers - count, num_layers))
    layers: set[int] = set()
    for match in re.finditer(_PART, text):
        first, last = int(match[1]), int(match[2] or match[1])
        if not 1 <= first <= last <= num_layers:
            raise UserError(f"{name} = {text}: {match[0].strip()} is outside layers 1 to {num_layers} of this backbone")
        layers.update(range(first - 1, last))
    return tuple(sorted(layers))


def numbered_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """The layers that `state_layers` names, counted from 1: after how many layers the states are taken."""
    return tuple(layer + 1 for layer in parse_layers(text, num_layers, name="state_layers"))

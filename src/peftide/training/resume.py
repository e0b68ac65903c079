"""What tells whether an earlier run is the one that would be made now."""

import json
from collections.abc import Container, Mapping
from dataclasses import asdict

from peftide.config import TrainSettings
from peftide.config.checks import without_effect

# Where things lie and what is looked at beside the training; the files of the data are compared by their content
NO_MATTER = frozenset(
    {
        *("out", "data", "sequences", "cache_dir", "cache_limit_gb", "restart", "checkpoint_minutes"),
        *("baselines", "audit", "strict"),
    }
)


def differences(
    settings_there: Mapping[str, object],
    digests_there: Mapping[str, str],
    wanted: TrainSettings,
    digests: Mapping[str, str],
    *,
    ignored: Container[str] = (),
) -> dict[str, str]:
    """In words, each setting that an earlier run had otherwise than `wanted`, by name, and files changed since.

    settings_there, digests_there: as its JSON has them; digests: of the files now (see `data_digests`).
    """
    idle = {name for name, _ in without_effect(wanted)}
    found = {}
    for name, value in as_json(wanted).items():
        there = settings_there.get(name)
        if name not in NO_MATTER and name not in idle and name not in ignored and there != value:
            found[name] = f"{name} is {_shown(there)} there and {_shown(value)} here"
    if sorted(digests_there.values()) != sorted(digests.values()):
        found["data"] = f"the content of {' or '.join(digests)} is another there"
    return found


def backbone_difference(name: str, there: object, here: str) -> dict[str, str]:
    """As `differences`, of the backbone's fingerprint: a folder or a name may hold other weights than it did."""
    if there == here:
        return {}
    return {f"weights of {name}": f"backbone {name} has other weights, config or vocabulary now than it had there"}


def as_json(settings: TrainSettings) -> dict[str, object]:
    """The settings as they come back from a JSON file."""
    return json.loads(json.dumps(asdict(settings)))


def _shown(value: object) -> str:
    return "absent" if value is None else "+".join(map(str, value)) if isinstance(value, list) else str(value)

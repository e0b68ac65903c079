"""Where a training run is, and how that is kept, put back and shared between ranks."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from peftide.models.property_model import PropertyModel
from peftide.models.sharded import joined_like, own_share, share_like, whole
from peftide.training.checkpoint import Snapshot
from peftide.training.ranks import Ranks

INTERRUPTED = "interrupted in epoch"


@dataclass
class Fit:
    """What came of a training run: a line per epoch, the best epoch (1-based, 0: none finished), why it ended.

    best_value: the validation metric of the best epoch; None where none finished.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    ended: str = ""

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.ended.startswith(INTERRUPTED)


@dataclass
class State:
    """Where a run is: what it has done, steps so far, losses and seconds of the epoch begun, best weights."""

    fit: Fit
    best: dict[str, Tensor]
    step: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


def keep_state(
    state: State,
    model: PropertyModel,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    is_wanted: bool,
) -> Snapshot:
    """All that is needed to go on from here, to be written at once; where it is not wanted, without the tensors.

    Where weights are shared out every rank has to call this.
    """
    moments = {
        f"optimizer.{number}.{name}": whole(tensor, is_wanted=is_wanted)
        for number, parameter in enumerate(parameters)
        for name, tensor in optimizer.state[parameter].items()
    }
    trained = model.trained_state()
    now = {f"now.{name}": whole(tensor, is_wanted=is_wanted) for name, tensor in trained.items()}
    best = {
        f"best.{name}": whole(joined_like(tensor, trained[name]), is_wanted=is_wanted)
        for name, tensor in state.best.items()
    }
    position = {
        "fit": asdict(state.fit),
        "step": state.step,
        "losses": state.losses,
        "seconds": state.seconds,
    }
    return Snapshot(position, now | best | moments)


def put_back(
    kept: Snapshot, model: PropertyModel, optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter]
) -> State:
    """The state that was kept, with its weights and moments in model and optimiser."""
    position, tensors, trained = kept.position, kept.tensors, model.trained_state()
    now, best = (
        {name: own_share(share_like(tensor, trained[name])).cpu() for name, tensor in _part(tensors, kind).items()}
        for kind in ("now", "best")
    )
    restore(model, now)
    moments = _part(tensors, "optimizer")
    for number, parameter in enumerate(parameters):
        own = {name.split(".")[1]: t for name, t in moments.items() if name.split(".")[0] == str(number)}
        optimizer.state[parameter] = {
            name: share_like(t, parameter) if t.shape == parameter.shape else t.to(parameter.device)
            for name, t in own.items()
        }
    return State(Fit(**position["fit"]), best, position["step"], position["losses"], position["seconds"])


def shared(found: Snapshot | None, ranks: Ranks) -> Snapshot | None:
    """What the first rank found, on every rank: only that one need see the folder of the run."""
    if ranks.count == 1:
        return found
    own: dict[str, Any] | None = None
    if found is not None:
        shapes = {name: list(tensor.shape) for name, tensor in found.tensors.items()}
        assert all(tensor.dtype == torch.float32 for tensor in found.tensors.values())
        own = {"position": found.position, "shapes": shapes}
    document = ranks.document_from_first(own)
    if document is None:
        return None
    if found is None or not ranks.is_first:
        found = Snapshot(document["position"], {name: torch.empty(shape) for name, shape in document["shapes"].items()})
    ranks.take_from_first(found.tensors)
    return found


def snapshot(model: PropertyModel) -> dict[str, Tensor]:
    """A copy of everything trained, on the CPU; of what is shared out this rank's share."""
    return {name: own_share(tensor).to("cpu", copy=True) for name, tensor in model.trained_state().items()}


@torch.no_grad()
def restore(model: PropertyModel, state: dict[str, Tensor]) -> None:
    """Put a snapshot back."""
    for name, tensor in model.trained_state().items():
        own_share(tensor).copy_(state[name])


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}

"""The processes of one run (ranks), as `torchrun` or `accelerate launch` start them, and what passes between them.

Each rank has the whole model. Of every step each encodes a part of the proteins and puts a part of the examples through
the head; the gradients are summed before they are clipped, so that all take the same optimiser step. The hooks of
torch's DistributedDataParallel would not fit: they sum in the one backward pass of the module's own forward, and a step
here may take several of both (see `training.step`).

Small facts travel as numbers on the host, so that a GPU need not wait for them; nothing is pickled. A process that is
alone does none of this.
"""

import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from peftide.errors import UserError

BUCKET_NUMBERS = 1 << 24  # of gradients summed at once: 64 MiB
PATIENCE = timedelta(days=1)  # the others wait while the first audits or writes; whose process ends is noticed at once
TO_MEET = timedelta(minutes=10)  # all processes, once they have loaded torch
FIRST_TO_TELL = timedelta(seconds=5)
TOLD = "told"


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run: its number and theirs, then the same on its own node.

    shards: whether each holds only a share of the backbone's weights (see `models.sharded`). Then all have to make the
    same calls of the encoder.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    shards: bool = False

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def sum_numbers(self, numbers: Sequence[float]) -> list[float]:
        """The sums of numbers over all ranks."""
        if self.count == 1:
            return list(numbers)
        sums = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """The same tensor, now the sum over all ranks."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give every parameter the sum of its gradients over all ranks; those without any stay without.

        Gradients of weights that are shared out are summed on the way back already.
        """
        if self.count == 1:
            return
        parameters = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
        num_used = self.sum_numbers([float(parameter.grad is not None) for parameter in parameters])
        for bucket in _buckets([p for p, used in zip(parameters, num_used, strict=True) if used]):
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = self.sum_tensor(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            parts = flat.split([parameter.numel() for parameter in bucket])
            for parameter, gradient, part in zip(bucket, gradients, parts, strict=True):
                parameter.grad = gradient.copy_(part.view_as(gradient))

    def take_from_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Overwrite tensors with those of the first rank, which has them by the same names in the same order.

        What is shared out stays as it is.
        """
        if self.count > 1:
            for tensor in tensors.values():
                if not isinstance(tensor, DTensor):
                    dist.broadcast(tensor.detach(), 0)

    def document_from_first(self, document: Any) -> Any:
        """What the first rank gives, which must be ready for JSON; what the others give is not looked at."""
        if self.count == 1:
            return document
        text = json.dumps(document).encode() if self.is_first else b""
        size = int(self.sum_numbers([len(text)])[0])
        content = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(size, dtype=torch.uint8)
        dist.broadcast(content, 0)
        return json.loads(content.numpy().tobytes())

    @contextmanager
    def alike_in_memory(self) -> Iterator[None]:
        """Where the block runs out of memory on one rank, raise torch.OutOfMemoryError after it on every rank.

        Otherwise the others would wait for that one for ever. The block must not wait for other ranks itself: where
        weights are shared out it does, and the error is raised at once, on that rank alone.
        """
        if self.count == 1 or self.shards:
            yield
            return
        is_short = False
        try:
            yield
        except torch.OutOfMemoryError:
            is_short = True
        if any(self.sum_numbers([float(is_short)])):
            raise torch.OutOfMemoryError("memory ran out on this rank or another")

    def leave(self) -> None:
        """Work alone from now on; every rank leaves at the same point."""
        if self.count > 1:
            dist.destroy_process_group()


ALONE = Ranks()


class HeldInterrupt:
    """Within the block Ctrl-C raises nothing, where there are several ranks: `came` says that it was pressed.

    It reaches each rank at another moment, and all have to stop after the same step. Pressed again, it raises.
    """

    def __init__(self, ranks: Ranks):
        self.came = False
        self._holds = ranks.count > 1 and threading.current_thread() is threading.main_thread()
        self._before: Any = None

    def __enter__(self) -> "HeldInterrupt":
        if self._holds:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holds:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        signal.signal(number, self._before)


def launched(environment: Mapping[str, str]) -> Ranks:
    """The ranks that a launcher has started, by the variables that it sets; a process alone where it set none.

    Raises UserError where they are incomplete or no numbers.
    """
    if environment.get("WORLD_SIZE", "1") == "1" or "RANK" not in environment:
        return ALONE
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    values = [environment.get(name, "") for name in names]
    absent = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]
    if absent or not all(value.isdigit() for value in values):
        found = ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        raise UserError(
            f"the environment speaks of several processes ({found}), and {', '.join([*names, 'MASTER_ADDR'])} and "
            "MASTER_PORT must all be set: start with torchrun, or unset RANK and WORLD_SIZE for one process"
        )
    rank, count, local_rank, local_count = map(int, values)
    return Ranks(rank, count, local_rank, local_count)


def device_of(ranks: Ranks, wanted: str) -> str:
    """The device of this rank, where the settings say `wanted`: on a node with CUDA GPUs, one for each rank.

    Raises UserError where there are too few, or where the ranks would have to share one.
    """
    if ranks.count == 1 or wanted == "cpu":
        return wanted
    if wanted not in ("auto", "cuda"):
        raise UserError(f"--device {wanted}: {ranks.count} processes train together; choose auto, cuda or cpu")
    if not torch.cuda.is_available():
        return "cpu" if wanted == "auto" else wanted
    if ranks.local_count > torch.cuda.device_count():
        raise UserError(
            f"{ranks.local_count} processes were started on this node, which has {torch.cuda.device_count()} CUDA "
            "GPU(s): start one for each GPU, or use --device cpu"
        )
    return f"cuda:{ranks.local_rank}"


def threads_of(ranks: Ranks, wanted: int | None) -> int | None:
    """CPU threads of this rank: what the settings say, else its share of the cores (launchers allow a single one)."""
    if ranks.count == 1 or wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // ranks.local_count)


@contextmanager
def joined(device: str, *, shards: bool = False) -> Iterator[Ranks]:
    """The ranks that this process was started among, able to pass on tensors; device, shards: as in the settings.

    Where one meets a user's mistake it is told once, by the first if that one meets it too; the others end quietly.
    Raises UserError where the launcher's variables or the devices do not fit.
    """
    ranks = launched(os.environ)
    if ranks.count == 1:
        yield ranks
        return
    ranks = replace(ranks, shards=shards)
    store, _, _ = next(dist.rendezvous("env://", timeout=TO_MEET))
    try:
        chosen = device_of(ranks, device)
        if chosen.startswith("cuda"):
            torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl" if chosen.startswith("cuda") else "gloo"
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.count, timeout=PATIENCE)
        yield ranks
    except UserError as error:
        if _is_told(store, wait=timedelta() if ranks.is_first else FIRST_TO_TELL):
            raise SystemExit(2) from error
        store.set(TOLD, "yes")
        raise
    except RuntimeError as error:  # what a rank meets when another one has ended, among others
        if isinstance(error, torch.OutOfMemoryError) or not _is_told(store, wait=timedelta(seconds=1)):
            raise
        raise SystemExit(2) from error


def _is_told(store: dist.Store, *, wait: timedelta) -> bool:
    try:
        if wait:
            store.wait([TOLD], wait)
        return store.check([TOLD])
    except RuntimeError:  # nobody told in time, or whoever kept the store has ended
        return False


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket

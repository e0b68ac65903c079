"""Tasks done by the workers of a Ray cluster: one on its way to each, and only what a lost worker had again.

Ray is loaded where it is asked for and nowhere else.
"""

import importlib
import logging
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.console import Console

from peftide.config import ClusterSettings
from peftide.data.writers import make_folder, temporary_folder
from peftide.errors import UserError, unwritable
from peftide.inference.embed import Advance
from peftide.inference.work import Compute, Done, Identity, Loaded, Task
from peftide.models.bundle import bundle_files

TRIES_AFTER_LOSS = 3  # of a task whose worker died; more would only tell that the task itself ends its worker
SECONDS_TO_ANSWER = 10.0  # of a cluster whose address is given
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is sent to anybody
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else Ray warns of what it will do by itself one day
}

Chosen = TypeVar("Chosen", bound=ClusterSettings)
Load = Callable[[Chosen], Loaded[Task, Done]]


@dataclass(frozen=True)
class Computed(Generic[Done]):
    """What comes back of a task: its result, how much was done for it, and what decided the numbers."""

    number: int
    result: Done
    amount: int
    identity: Identity


class Worker:
    """The actor. It loads its model at its first task, also where Ray started it again after its process died."""

    def __init__(self, settings: Any) -> None:
        self._settings = settings
        self._loaded: Loaded[Any, Any] | None = None

    def compute(self, task: Any, shared: tuple[Any, Any]) -> Computed[Any]:
        """Do one task. Raises UserError as loading and working do.

        shared: what `ray.put` gave for the function that loads, and for the files of the bundle or None.
        """
        if self._loaded is None:
            self._loaded = self._load_model(*importlib.import_module("ray").get(list(shared)))
        amount = 0

        def advance(more: int) -> None:
            nonlocal amount
            amount += more

        result = self._loaded.work(task, advance=advance)
        return Computed(task.number, result, amount, self._loaded.identity)

    def _load_model(self, load: Load[Any, Any, Any], bundle: Mapping[str, bytes] | None) -> Loaded[Any, Any]:
        if bundle is None:
            return load(self._settings)
        with temporary_folder(what="bundle") as folder:
            for name, content in bundle.items():
                make_folder((folder / name).parent)
                try:
                    (folder / name).write_bytes(content)
                except OSError as error:
                    raise unwritable(folder / name, error, goes_on=True) from error
            return load(replace(self._settings, bundle=str(folder)))


@contextmanager
def ray_workers(
    settings: Chosen,
    load: Load[Chosen, Task, Done],
    *,
    identity: Identity,
    device: str,
    doing: str,
    console: Console,
) -> Iterator[Compute[Task, Done]]:
    """Yield what has tasks done by the cluster that `settings.ray` names, in whatever order that is.

    load: called by every worker with settings for it: a function of a module, or a partial one whose arguments travel
        once to each machine.
    identity: what this process would compute with, from which workers may not differ.
    device: kind of device of a worker. doing: what is done, for the user.

    Raises UserError without Ray or a cluster, for workers that differ, and where one is lost again and again.
    """
    assert settings.ray is not None
    with _connected(settings.ray) as ray:
        num_workers, share = worker_shares(
            [node["Resources"] for node in ray.nodes() if node["Alive"]], settings, device
        )
        if num_workers == 0:
            raise UserError(
                f"--ray {settings.ray}: no machine of the cluster has {_told(share)}, which a worker here needs"
            )
        console.print(f"{doing} by {num_workers} workers of Ray, each with {_told(share)}", highlight=False)
        threads = settings.threads or (None if device == "cuda" else share["num_cpus"])
        bundle = getattr(settings, "bundle", None)
        shared = ray.put(load), ray.put(None if bundle is None else bundle_files(Path(bundle)))
        actor = ray.remote(Worker).options(**share, max_restarts=-1, max_task_retries=TRIES_AFTER_LOSS)
        chosen = replace(settings, device=device, threads=threads)
        pool = importlib.import_module("ray.util").ActorPool([actor.remote(chosen) for _ in range(num_workers)])
        with _as_user_error(ray.exceptions, settings.ray):
            yield lambda tasks, advance: _computed(pool, shared, tasks, advance, identity=identity)


def _computed(
    pool: Any, shared: tuple[Any, Any], tasks: Iterator[Task], advance: Advance, *, identity: Identity
) -> Iterator[tuple[int, Any]]:
    """Numbers and results as they come; the next task is on its way before a result is handed on."""

    def next_done() -> Computed[Any]:
        done: Computed[Any] = pool.get_next_unordered()
        if done.identity != identity:
            others = [f"{name} {done.identity.get(name)}, here {value}" for name, value in identity.items()
                      if done.identity.get(name) != value]  # fmt: skip
            raise UserError(
                f"--ray: a worker would give other numbers than this machine ({'; '.join(others)}); give --device and "
                "--precision that all have, and the same files of the model to all (where only scores differ: --exact)"
            )
        return done

    def handed_on(done: Computed[Any]) -> tuple[int, Any]:
        advance(done.amount)
        return done.number, done.result

    for task in tasks:
        done = None if pool.has_free() else next_done()
        pool.submit(lambda worker, given: worker.compute.remote(given, shared), task)
        if done is not None:
            yield handed_on(done)
    while pool.has_next():
        done = next_done()
        pool.pop_idle()  # its share is free for a worker whose machine was lost
        yield handed_on(done)


def worker_shares(nodes: list[dict[str, float]], settings: ClusterSettings, device: str) -> tuple[int, dict[str, int]]:
    """How many workers machines with these resources have, and what each takes: a GPU, or some CPUs.

    On CPUs: `settings.threads` of them, else all those of the smallest machine.
    """
    if device == "cuda":
        return sum(int(node.get("GPU", 0)) for node in nodes), {"num_cpus": 1, "num_gpus": 1}
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    each = settings.threads or min(cpus, default=1)
    return sum(there // each for there in cpus), {"num_cpus": each}


def _told(share: Mapping[str, int]) -> str:
    if "num_gpus" in share:
        return "a GPU"
    return "1 CPU" if share["num_cpus"] == 1 else f"{share['num_cpus']} CPUs"


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """The module ray, connected; a connection that this process had before is used, and stays."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        ray = importlib.import_module("ray")
    except ImportError as error:
        raise UserError(
            "--ray: Ray is not installed; pip install 'peftide[ray]' here and on every machine of the cluster"
        ) from error
    if ray.is_initialized():
        yield ray
        return
    own = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"--ray {address}: no connection ({error}); say local for this machine alone, auto for a cluster that this "
            "machine is part of, or the address that `ray start --head` named"
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """OSError where nothing listens at HOST:PORT: Ray itself goes on trying for minutes. Other addresses pass."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal() and int(port) < 1 << 16:
        socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER).close()


@contextmanager
def _as_user_error(exceptions: Any, address: str) -> Iterator[None]:
    """What went wrong on a worker, in words for the user."""
    try:
        yield
    except exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise
    except exceptions.RayError as error:
        raise UserError(
            f"--ray {address}: the cluster was lost, or a task with {TRIES_AFTER_LOSS + 1} workers ({error}); "
            "where memory is the reason, lower --token-budget; the same command goes on"
        ) from error

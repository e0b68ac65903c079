"""Runs that `test_ranks.py` makes in one process and, through this file as a script, in two; what came of each.

python rank_worker.py FOLDER ESM_FOLDER, with the variables that torchrun sets: each rank leaves CASE-RANK.safetensors
and CASE-RANK.json in FOLDER.
"""

import json
import signal
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file

from conftest import write_examples
from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset
from peftide.models.sharded import whole
from peftide.training.checkpoint import Checkpoints
from peftide.training.examples import share_split
from peftide.training.ranks import ALONE, Ranks, joined
from peftide.training.run import fit_subject, machine_of, prepare


@dataclass(frozen=True)
class Unsummed(Ranks):
    """Ranks that forget to sum their gradients."""

    def sum_gradients(self, parameters):
        """Leave every rank with its own."""


@dataclass(frozen=True)
class Case:
    """A run of three epochs in float32.

    ctrl_c_at: the step in which the last rank's user presses it; short_at: which of the last rank's calls of its first
    adapter runs out of memory.
    """

    examples: str
    options: dict = field(default_factory=dict)
    with_dropout: bool = False
    is_summed: bool = True
    ctrl_c_at: int | None = None
    short_at: int | None = None
    checkpoints: str | None = None


SHARDED = {"method": "full", "learning_rate": 1e-3, "shard": True}
DROPPING = {"examples": "pair", "with_dropout": True}
CASES = {
    "lora-pair": Case("pair"),  # steps of 8, 7 and 7 pairs
    "lora-multiclass": Case("multiclass", {"batch_examples": 3}),  # of 3, 3, 2 and 2 proteins
    "lora-single": Case("regression", {"batch_examples": 1}),  # the second rank has nothing to do
    "full-pair": Case("pair", {"method": "full", "learning_rate": 1e-3, "checkpoint_layers": True}),
    "head-pair": Case("pair", {"method": "head"}),
    "head-single": Case("binary", {"method": "head", "batch_examples": 1}),
    "lora-states": Case("pair", {"state_layers": "1,4"}),
    "sharded-states": Case("pair", SHARDED | {"state_layers": "2,4"}),
    "sharded-pair": Case("pair", SHARDED),
    "sharded-checkpointed": Case("pair", SHARDED | {"checkpoint_layers": True}),
    "sharded-single": Case("regression", SHARDED | {"batch_examples": 1, "learning_rate": 1e-4}),
    "sharded-bf16": Case("pair", SHARDED | {"precision": "bf16"}),
    "sharded-stopped": Case("pair", SHARDED, ctrl_c_at=5, checkpoints="sharded"),
    "sharded-resumed": Case("pair", SHARDED, checkpoints="sharded"),
    "short-forward": Case("pair", short_at=2),
    "short-backward": Case("pair", short_at=4),  # encoded again for its gradient
    "unsummed": Case("pair", is_summed=False),
    "dropout": Case(**DROPPING),
    "stopped": Case(**DROPPING, ctrl_c_at=5, checkpoints="stopped"),
    "resumed": Case(**DROPPING, checkpoints="stopped"),
}


def run_case(name: str, folder: Path, esm_folder: Path, ranks: Ranks = ALONE) -> None:
    """Run a case and leave its weights, its losses and its vectors in the folder."""
    case = CASES[name]
    own = folder / f"{name}-{ranks.count}-{ranks.rank}"
    own.mkdir()
    dropout = 0.3 if case.with_dropout else 0.0
    given = {
        "backbone": str(esm_folder), "out": "unused", "epochs": 3, "batch_examples": 8, "learning_rate": 2e-3,
        "token_budget": 60, "lora_layers": "3,4", "lora_dropout": dropout, "head_dropout": dropout, "patience": 9,
        "cache_dir": str(folder / f"cache-{ranks.count}"), "device": "cpu", "precision": "fp32", "threads": 1,
    }  # fmt: skip
    settings = TrainSettings(**write_examples(own, case.examples), **(given | case.options))
    dataset = share_split(settings, read_dataset(settings) if ranks.is_first else None, ranks)
    ranks = replace(ranks, shards=settings.shard and ranks.count > 1)
    subject = prepare(settings, dataset, machine_of(settings, ranks), ranks=ranks)
    if case.ctrl_c_at is not None and ranks.rank == ranks.count - 1:
        _press_ctrl_c(subject.model.head, case.ctrl_c_at)
    if case.short_at is not None and ranks.rank == ranks.count - 1:
        _run_out_of_memory(subject.model.model, case.short_at)
    checkpoints = None
    if case.checkpoints is not None and ranks.is_first:
        checkpoints = Checkpoints(folder / f"{case.checkpoints}-{ranks.count}", interval_seconds=0)
    if not case.is_summed:
        ranks = Unsummed(**asdict(ranks))
    fit, vectors_PD = fit_subject(subject, Console(quiet=True), checkpoints=checkpoints, ranks=ranks)
    weights = {name: whole(tensor).detach().clone() for name, tensor in subject.model.trained_state().items()}
    save_file(weights | {"vectors": torch.from_numpy(vectors_PD)}, own / "state.safetensors")
    history = [{key: value for key, value in row.items() if key != "seconds"} for row in fit.history]
    (own / "fit.json").write_text(json.dumps({"ended": fit.ended, "best": fit.best_epoch, "history": history}))


def _press_ctrl_c(head, step):
    seen = []

    def hook(module, inputs):
        seen.append(module.training)
        if module.training and sum(seen) == step:
            signal.raise_signal(signal.SIGINT)

    head.register_forward_pre_hook(hook)


def _run_out_of_memory(network, call):
    seen = []

    def hook(module, inputs):
        seen.append(module.training)
        if module.training and sum(seen) == call:
            raise torch.OutOfMemoryError("as on a GPU")

    next(
        module for name, module in network.named_modules() if "lora_dropout.default" in name
    ).register_forward_pre_hook(hook)


if __name__ == "__main__":
    with joined("cpu") as found:
        for case_name in CASES:
            run_case(case_name, Path(sys.argv[1]), Path(sys.argv[2]), found)
        found.leave()

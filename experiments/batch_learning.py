"""Do steps built around shared proteins teach as much as shuffled ones? Validation and test after the same pairs.

    python experiments/batch_learning.py PAIRS SEQUENCES OUT.json --method lora --proteins 600 --longest 400

PAIRS: a table with the columns protein_a, protein_b, label (0 or 1) and split; SEQUENCES: one with accession and
sequence; both separated by tabs, plain or gzipped. The arrangements of pairs in steps are `shuffled` and, by the
variety that `pair_batches` is given, steps around proteins: `0.5`, say. All else is equal within a seed: weights to
begin with, schedule, number of pairs. With --proteins training keeps to the pairs among so many proteins, those that
have the most pairs; with --longest all parts keep to pairs of proteins of at most so many residues, so that a CPU can
do it.
"""

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from rich.console import Console

from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset
from peftide.evaluation.metrics import measure
from peftide.inference.predict import score_examples
from peftide.models.machine import choose_machine
from peftide.training.batches import encoding_cost, pair_batches, plain_batches
from peftide.training.loop import Trainer
from peftide.training.ranks import ALONE, Ranks
from peftide.training.run import fit_subject, prepare
from peftide.training.subject import Subject

SHUFFLED = "shuffled"


@dataclass(frozen=True)
class Arranged(Subject):
    """A subject whose steps are arranged as asked, whatever the method."""

    arrangement: str = SHUFFLED

    def trainer(self, dataset, vectors_PD, ranks: Ranks = ALONE) -> Trainer:
        """Its trainer, with batches of its own."""
        trainer = super().trainer(dataset, vectors_PD, ranks)
        trainer.epoch_batches = partial(arranged, trainer, self.arrangement)
        return trainer


def arranged(trainer: Trainer, arrangement: str, epoch: int) -> list[np.ndarray]:
    """The steps of an epoch."""
    generator = np.random.default_rng([trainer.schedule.seed, epoch])
    size = trainer.schedule.batch_examples
    if arrangement == SHUFFLED:
        return plain_batches(len(trainer.train), batch_examples=size, generator=generator)
    return pair_batches(
        trainer.train.members_NK, trainer.tokens_P, batch_examples=size, generator=generator,
        strata_N=trainer.train.targets, variety=float(arrangement),
    )  # fmt: skip


def main() -> None:
    """Train with every arrangement and seed, and write what came of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("sequences", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--method", choices=("head", "lora"), default="head")
    parser.add_argument("--arrangements", default=f"{SHUFFLED},0,0.5")
    parser.add_argument("--batch-examples", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--proteins", type=int, help="of training, those with the most pairs; all when absent")
    parser.add_argument("--longest", type=int, default=10**6, help="residues")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    console = Console(stderr=True)
    rows: list[dict] = []
    with TemporaryDirectory(prefix="peftide-batches-") as folder:
        table = str(Path(folder) / "pairs.csv")
        kept_pairs(arguments).to_csv(table, index=False)
        for seed in range(arguments.seeds):
            for arrangement in arguments.arrangements.split(","):
                settings = TrainSettings(
                    data=table, sequences=str(arguments.sequences), out="", method=arguments.method, seed=seed,
                    epochs=arguments.epochs, patience=arguments.epochs, batch_examples=arguments.batch_examples,
                    threads=arguments.threads,
                )  # fmt: skip
                rows.append({"arrangement": arrangement, "seed": seed, **run(settings, arrangement, console)})
                console.print(rows[-1])
                written = {"arguments": {k: str(v) for k, v in vars(arguments).items()}, "rows": rows}
                arguments.out.write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    print(summary(rows, arguments.arrangements.split(",")).to_string(float_format="{:.4f}".format))


def kept_pairs(arguments: argparse.Namespace) -> pd.DataFrame:
    """The pairs to train and measure on."""
    pairs = pd.read_csv(arguments.pairs, sep=None, engine="python")
    sequences = pd.read_csv(arguments.sequences, sep="\t").set_index("accession")["sequence"]
    members = pairs[["protein_a", "protein_b"]]
    pairs = pairs[(members.apply(lambda column: column.map(sequences.str.len())) <= arguments.longest).all(axis=1)]
    if arguments.proteins is not None:
        is_train = pairs["split"] == "train"
        counts = pairs.loc[is_train, ["protein_a", "protein_b"]].stack().value_counts(sort=True)
        hubs = counts.index[: arguments.proteins]
        is_kept = pairs[["protein_a", "protein_b"]].isin(hubs).all(axis=1)
        pairs = pairs[is_kept | ~is_train]
    return pairs


def run(settings: TrainSettings, arrangement: str, console: Console) -> dict:
    """Train once: AUPR after each epoch on validation and of the best one on test, and how often proteins were used."""
    dataset = read_dataset(settings)
    subject = prepare(settings, dataset, choose_machine(settings.device, settings.precision, settings.threads))
    arranged_subject = Arranged(**vars(subject), arrangement=arrangement)
    fit, vectors_PD = fit_subject(arranged_subject, console)
    assert vectors_PD is not None
    test = dataset.part("test")
    assert test.targets is not None
    scores = score_examples(subject.model, vectors_PD, test.members_NK)
    trainer = arranged_subject.trainer(dataset, vectors_PD)
    cost = encoding_cost(trainer.epoch_batches(1), trainer.train.members_NK, trainer.tokens_P)
    return {
        "pairs": len(trainer.train),
        "validation_aupr": [epoch["aupr"] for epoch in fit.history],
        "test_aupr": measure(test.kind, test.targets, scores, classes=test.classes)["aupr"],
        "seconds": sum(epoch["seconds"] for epoch in fit.history),
        "tokens_saved": cost.reuse,
    }


def summary(rows: list[dict], arrangements: list[str]) -> pd.DataFrame:
    """Mean and spread over seeds, and the difference to the first arrangement, seed by seed."""
    table = pd.DataFrame(rows)
    table["validation_aupr"] = table["validation_aupr"].map(max)
    found = {}
    for split in ("validation_aupr", "test_aupr"):
        wide = table.pivot_table(index="seed", columns="arrangement", values=split)[arrangements]
        difference = wide.sub(wide[arrangements[0]], axis=0)
        found |= {
            split: wide.mean(), f"{split} sd": wide.std(), f"{split} difference": difference.mean(),
            f"{split} difference sd": difference.std(),
        }  # fmt: skip
    found["tokens saved"] = table.groupby("arrangement")["tokens_saved"].mean()[arrangements]
    return pd.DataFrame(found)


if __name__ == "__main__":
    main()

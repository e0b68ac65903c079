"""Which states of a frozen backbone carry the answer, and what do several seeds together give? On validation alone.

    python experiments/frozen_states.py DATA OUT.json --task pair --sequences SEQUENCES --features layer8,layer8+max

DATA: a table as `peftide train` reads it, with a split. Every protein is encoded once; its vectors are then the mean
over its residues after each layer (`layer0`: the embedding of the tokens), and of the last layer also the largest value
(`max`) and the standard deviation (`sd`). Of each set of features, several joined by `+`, the default head is trained
with every seed and measured by the main metric of the task: each seed, and the mean of the probabilities of all seeds.
`--test` adds the test part, which is not to be looked at while choosing.

Shapes: P proteins, D width, N examples.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from peftide.config import TrainSettings
from peftide.data.datasets import read_dataset
from peftide.data.writers import aside_of, write_json
from peftide.evaluation.metrics import measure
from peftide.inference.embed import length_batches
from peftide.inference.encoder import Encoder
from peftide.inference.predict import score_examples
from peftide.models.backbones import Backbone, load_backbone
from peftide.models.machine import Machine, choose_machine
from peftide.models.packed import embed_tokens, pack, pool, run_layers
from peftide.models.property_model import make_head
from peftide.models.tokens import Pieces, cut_proteins
from peftide.records import Dataset
from peftide.training.build import build_model
from peftide.training.loop import Trainer
from peftide.training.progress import TrainingProgress
from peftide.training.subject import schedule_of

TOKENS_AT_ONCE = 4096


def main() -> None:
    """Encode once, train the head on every set of features with every seed, and write what came of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=("pair", "protein", "symmetry"), required=True)
    parser.add_argument("--target", default="auto")
    parser.add_argument("--sequences")
    parser.add_argument("--backbone", default="swissprot-10m")
    parser.add_argument("--features", help="sets, separated by commas; every layer alone when absent")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-examples", type=int, default=64)
    parser.add_argument("--patience", type=int, default=4)
    parser.add_argument("--head-width", type=int, default=512)
    parser.add_argument("--vectors", type=Path, help="file (.npz) in which the vectors are kept for the next time")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    settings = TrainSettings(
        data=arguments.data, sequences=arguments.sequences, out="", task=arguments.task, target=arguments.target,
        method="head", backbone=arguments.backbone, epochs=arguments.epochs, patience=arguments.patience,
        batch_examples=arguments.batch_examples, head_width=arguments.head_width, threads=arguments.threads,
    )  # fmt: skip
    dataset = read_dataset(settings)
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    backbone = load_backbone(settings.backbone, dtype=machine.dtype)
    pieces = cut_proteins(
        dataset.proteins, backbone.vocabulary, max_residues=settings.max_residues, long_proteins=settings.long_proteins
    )
    vectors = known_vectors(arguments.vectors, len(pieces)) or state_vectors(backbone, pieces, machine)
    if arguments.vectors is not None and not arguments.vectors.is_file():
        with aside_of(arguments.vectors) as fresh, fresh.open("wb") as stream:
            np.savez(stream, **{name: part.astype(np.float16) for name, part in vectors.items()})
    sets = (arguments.features or ",".join(name for name in vectors if name.startswith("layer"))).split(",")
    parts, rows = ["val", "test"] if arguments.test else ["val"], []
    for features in sets:
        chosen_PD = np.concatenate([vectors[name] for name in features.split("+")], axis=1)
        scores = [
            trained(replace(settings, seed=seed), dataset, backbone, pieces, chosen_PD, machine, parts=parts)
            for seed in range(arguments.seeds)
        ]
        rows.append(
            {"features": features} | {part: summary(dataset, part, [s[part] for s in scores]) for part in parts}
        )
        print(rows[-1], flush=True)
        told = {name: str(value) for name, value in vars(arguments).items()}
        write_json(arguments.out, {"arguments": told, "rows": rows})


def known_vectors(path: Path | None, num_proteins: int) -> dict[str, np.ndarray] | None:
    """The vectors (P, D) that an earlier call kept, in float32; None where there are none."""
    if path is None or not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as file:
        found = {name: file[name].astype(np.float32) for name in file.files}
    if any(len(part) != num_proteins for part in found.values()):
        raise SystemExit(f"{path}: is of other proteins; give another name, or remove it")
    return found


@torch.inference_mode()
def state_vectors(backbone: Backbone, pieces: list[Pieces], machine: Machine) -> dict[str, np.ndarray]:
    """Vectors (P, D) of all proteins by name: the mean after each layer, of the last the largest value and spread."""
    encoder = Encoder(backbone, backbone.model, machine)
    names = [*(f"layer{number}" for number in range(backbone.num_layers + 1)), "max", "sd"]
    found = {name: np.zeros((len(pieces), backbone.width), np.float32) for name in names}
    batches = list(length_batches([protein.num_tokens for protein in pieces], TOKENS_AT_ONCE))
    for rows in track(batches, "encoding", console=Console(stderr=True)):
        chosen = [pieces[row] for row in rows]
        batch = pack(chosen, pooling="mean", mask_id=backbone.vocabulary.mask_id, device=machine.device)
        hidden_TD = embed_tokens(encoder.esm, batch, machine.dtype)
        found["layer0"][rows] = pool(hidden_TD, batch).cpu().numpy()
        for layer in range(backbone.num_layers):
            hidden_TD = run_layers(encoder.esm, hidden_TD, batch, first=layer, wanted=[layer + 1])
            found[f"layer{layer + 1}"][rows] = pool(hidden_TD, batch).cpu().numpy()
        of_pieces = iter(hidden_TD.float().split(list(batch.lengths)))
        for row, protein in zip(rows, chosen, strict=True):
            states_LD = torch.cat([next(of_pieces)[1:-1] for _ in protein.tokens])
            found["max"][row] = states_LD.amax(dim=0).cpu().numpy()
            found["sd"][row] = states_LD.std(dim=0, correction=0).cpu().numpy()
    return found


def trained(
    settings: TrainSettings, dataset: Dataset, backbone: Backbone, pieces: list[Pieces], vectors_PD: np.ndarray,
    machine: Machine, *, parts: list[str],
) -> dict[str, np.ndarray]:  # fmt: skip
    """Probabilities of the examples of each part by a head trained on these vectors."""
    model = build_model(settings, dataset, backbone)
    shape = replace(model.head_shape, width=vectors_PD.shape[1])
    model = replace(model, head=make_head(shape).to(machine.device), head_shape=shape)
    rows = np.unique(dataset.part("train").members_NK)
    model.head.standardize(torch.from_numpy(vectors_PD[rows]).to(machine.device))
    schedule, encoder = schedule_of(settings, dataset), Encoder(backbone, model.model, machine)
    trainer = Trainer(model, encoder, dataset, pieces, schedule, token_budget=TOKENS_AT_ONCE, vectors_PD=vectors_PD)
    quiet = Console(quiet=True)
    with TrainingProgress(quiet, num_steps=trainer.num_steps, metric=schedule.metric, device=machine.device) as show:
        trainer.fit(show)
    return {part: score_examples(model, vectors_PD, dataset.part(part).members_NK) for part in parts}


def summary(dataset: Dataset, part: str, scores: list[np.ndarray]) -> dict[str, float | list[float]]:
    """The main metric of each seed, its mean and spread, and that of the mean of all probabilities."""
    chosen = dataset.part(part)
    assert chosen.targets is not None
    name = "aupr" if chosen.kind == "binary" else "macro_aupr"
    each = [
        measure(chosen.kind, chosen.targets, one, classes=chosen.classes)[name]
        for one in [*scores, sum(scores) / len(scores)]
    ]
    *seeds, together = [round(float(value), 4) for value in each]
    spread = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else 0.0
    return {"mean": round(float(np.mean(seeds)), 4), "sd": round(spread, 4), "seeds together": together, "seeds": seeds}


if __name__ == "__main__":
    main()

"""What leakage does to a score: one data set of interactions, split three ways; table and figure.

    python experiments/yeast_leakage.py FOLDER OUT.json --figure OUT.png

FOLDER holds guo_original, guo_rewired and guo_partition.tsv.gz (protein_a, protein_b, label, split) and
sequences.tsv.gz (accession, sequence) of Bernett et al. (2024): yeast pairs split at random, the same with positives
rewired so that labels carry no biology, and with proteins partitioned. A tenth of each training set, drawn at random,
is for validation, whatever the split, so that all three are trained alike; pairs between the two parts of the
partition are unused, and so are the few of a protein without a sequence; of a pair that comes twice, the first is
taken. The frozen backbone with the default head is trained with several seeds, and set beside what knows no biology.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import peftide
from peftide.config import CompareSettings
from peftide.report.charts import SERIES
from peftide.report.facts import read_facts

SPLITS = {
    "original": "random split,\nas published",
    "rewired": "random split,\nlabels rewired",
    "partition": "proteins\npartitioned",
}
VALIDATION_FRACTION = 0.1
SHOWN = {
    "label-rate": "label rate of the proteins in training",
    "composition": "amino-acid composition",
    "kmers": "neighbouring residues",
}


def main() -> None:
    """Train on every split, write what came of it, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    found = {}
    for name in SPLITS:
        with TemporaryDirectory(prefix="peftide-yeast-") as folder:
            found[name] = run(arguments.folder, name, Path(folder), seeds=arguments.seeds, threads=arguments.threads)
        arguments.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if arguments.figure is not None:
        draw(found, arguments.figure)


def run(source: Path, name: str, folder: Path, *, seeds: int, threads: int | None) -> dict:
    """The test AUROC of the head (each seed) and of the baselines, and the audit's verdict, on one split."""
    table = pd.read_csv(source / f"guo_{name}.tsv.gz", sep="\t")
    known = pd.read_csv(source / "sequences.tsv.gz", sep="\t", usecols=["accession"])["accession"]
    table = table[table["protein_a"].isin(known) & table["protein_b"].isin(known)]
    pair = table[["protein_a", "protein_b"]].apply(lambda row: " ".join(sorted(row)), axis=1)
    table = table[~pair.duplicated()].reset_index(drop=True)
    table["split"] = table["split"].where(table["split"] != "both", "unused")
    train = np.flatnonzero(table["split"] == "train")
    chosen = np.random.default_rng(0).choice(train, round(VALIDATION_FRACTION * len(train)), replace=False)
    table.loc[chosen, "split"] = "val"
    table.to_csv(folder / f"{name}.csv", index=False)
    done = peftide.compare(
        CompareSettings(
            data=str(folder / f"{name}.csv"), sequences=str(source / "sequences.tsv.gz"), methods=("head",),
            seeds=seeds, audit="full", baselines="quick", allow_self_pairs=True, out=str(folder / name),
            threads=threads,
        )
    )  # fmt: skip
    facts = [read_facts(Path(run.folder)) for run in done.runs]
    assessment, audit = facts[0].assessment, facts[0].audit
    assert assessment is not None
    assert audit is not None
    return {
        "pairs": facts[0].data.examples,
        "verdict": audit.verdict,
        "head": {"auroc": [one.metrics["test"]["auroc"] for one in facts], "seeds": [run.seed for run in done.runs]},
        "interval": asdict(assessment.intervals["test"]["auroc"]),
        "baselines": {name: row.metrics["test"].get("auroc") for name, row in assessment.baselines.items()},
    }


def draw(found: dict[str, dict], path: Path) -> None:
    """Test AUROC by split: the model beside what knows no biology."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    rows = ["head", *SHOWN]
    colors = [SERIES[0], SERIES[1], "#e8a25f", SERIES[2]]
    for place, (row, color) in enumerate(zip(rows, colors, strict=True)):
        values = [
            float(np.mean(one["head"]["auroc"])) if row == "head" else one["baselines"][row] for one in found.values()
        ]
        centers = np.arange(len(found)) + (place - 1.5) * 0.2
        label = "language model, frozen, with a head" if row == "head" else SHOWN[row]
        axes.bar(centers, np.array(values) - 0.5, 0.18, bottom=0.5, color=color, label=label)
        for center, value in zip(centers, values, strict=True):
            axes.text(center, max(value, 0.5) + 0.005, f"{value:.2f}", ha="center", va="bottom", fontsize=8)
    axes.axhline(0.5, color="#586776", linewidth=0.8)
    axes.set_xticks(range(len(found)), [SPLITS[name] for name in found])
    axes.set_ylabel("test AUROC")
    axes.set_ylim(0.45, 1.0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, fontsize=8, loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=160)


if __name__ == "__main__":
    main()

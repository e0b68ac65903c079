"""The tables of homo-oligomers in docs/results.md: five classes of state, and inferred symmetries, from one source.

    python experiments/oligomer_tables.py oligomer_state.tsv.gz oligomer5.tsv.gz symmetry.tsv.gz

The source has a row per protein: accession, sequence, n_subunits, symmetry_inferred, quality, cluster30 and split. Rows
of quality `clean` are kept; five subunits are too few proteins for a class, and symmetries are absent for some.
"""

import argparse
from pathlib import Path

import pandas as pd

STATES = {1: "monomer", 2: "dimer", 3: "trimer", 4: "tetramer"}
OTHER = "hexamer or more"


def main() -> None:
    """Read the source and write both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("states", type=Path, help="to write: id, sequence, label, split, cluster")
    parser.add_argument("symmetries", type=Path, help="to write: id, sequence, symmetry, split, cluster")
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.source, sep="\t", keep_default_na=False)
    rows = rows[rows["quality"] == "clean"].rename(columns={"accession": "id", "cluster30": "cluster"})
    states = rows[rows["n_subunits"].astype(int) != 5]
    states = states.assign(label=states["n_subunits"].astype(int).map(STATES).fillna(OTHER))
    symmetries = rows[rows["symmetry_inferred"] != ""].rename(columns={"symmetry_inferred": "symmetry"})
    for table, label, path in ((states, "label", arguments.states), (symmetries, "symmetry", arguments.symmetries)):
        table[["id", "sequence", label, "split", "cluster"]].to_csv(path, sep="\t", index=False)
        print(f"{path}: {len(table):,} proteins")


if __name__ == "__main__":
    main()

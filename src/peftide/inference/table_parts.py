"""Parts of a result as tables in a folder: written whole or not at all, and found out when they are damaged."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from peftide.errors import UserError
from peftide.inference.parts_folder import write_part

DIGEST = b"peftide-digest"


@dataclass(frozen=True)
class TableParts:
    """Tables by number, as Parquet with checksums; each holds the digest of what it was made from.

    manifest: what decides the tables beside that, as in `parts_folder`; a folder that was being removed may have lost
    its own.
    """

    folder: Path
    name: str
    manifest: Mapping[str, Any]

    def path(self, number: int) -> Path:
        """Where a table is kept."""
        return self.folder / f"{self.name}-{number:07d}.parquet"

    def _mark(self, digest: str) -> bytes:
        return hashlib.sha256(json.dumps([self.manifest, digest], sort_keys=True).encode()).hexdigest().encode()

    def is_there(self, number: int, digest: str, *, say: Callable[[str], None]) -> bool:
        """Whether a table of this digest is there; one that is cut off or of another digest is named and removed.

        Its end is looked at, which is written last; the rest when it is read.
        """
        path = self.path(number)
        if not path.is_file():
            return False
        try:
            with path.open("rb") as stream, pyarrow.parquet.ParquetFile(stream) as file:
                if (file.schema_arrow.metadata or {}).get(DIGEST) == self._mark(digest):
                    return True
            reason = "it is of other work"
        except (pa.ArrowException, OSError) as error:
            reason = str(error)
        say(f"{path} is damaged ({reason}): it is made again")
        path.unlink()
        return False

    def write(self, number: int, digest: str, table: pa.Table) -> None:
        """Keep a table. Raises UserError where the disk is full or refuses; the others stay."""
        marked = table.replace_schema_metadata({DIGEST: self._mark(digest)})

        def save(path: Path) -> None:
            with path.open("wb") as stream:
                pyarrow.parquet.write_table(
                    marked, stream, compression="NONE", use_dictionary=["id"], write_page_checksum=True
                )

        write_part(self.path(number), save)

    def read(self, number: int) -> pa.Table:
        """A table that is there. Raises UserError where it is damaged, and removes it so that it is made again."""
        path = self.path(number)
        try:
            with (
                path.open("rb") as stream,
                pyarrow.parquet.ParquetFile(stream, page_checksum_verification=True) as file,
            ):
                return file.read().replace_schema_metadata(None)
        except (pa.ArrowException, OSError) as error:
            path.unlink(missing_ok=True)
            raise UserError(
                f"{path}: was damaged ({error}) and is removed; the same command makes it again and goes on"
            ) from error

    def read_all(self, num_parts: int) -> Iterator[pa.Table]:
        """All tables, one after another."""
        return map(self.read, range(num_parts))

"""Numbers of the proteins of examples on disk, since memory would grow with the rows.

Shapes: N examples, K proteins of an example.
"""

import tempfile
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import cast

import numpy as np

from peftide.errors import unwritable

ROWS_AT_ONCE = 1 << 16  # in memory


class MemberFile:
    """Numbers (N, K), kept as int32: first all are added, then they are read in chunks of rows."""

    def __init__(self, stream: FileIO, folder: Path, num_members: int, *, rows_at_once: int = ROWS_AT_ONCE) -> None:
        self._stream, self._folder = stream, folder
        self._num_members, self._rows_at_once = num_members, rows_at_once
        self._waiting = array("q")
        self._num_rows = 0

    def __len__(self) -> int:
        return self._num_rows

    def add(self, numbers: Iterable[int]) -> None:
        """The numbers (K,) of one more example. Raises UserError as `flush`."""
        self._waiting.extend(numbers)
        self._num_rows += 1
        if self._num_rows % self._rows_at_once == 0:
            self.flush()

    def flush(self) -> None:
        """Write what was added. Raises UserError where the disk is full or refuses."""
        content = memoryview(np.array(self._waiting, np.int32).tobytes())
        try:
            while content:
                content = content[self._stream.write(content) :]
        except OSError as error:
            what = f"a file of {4 * self._num_members} bytes for each example"
            raise unwritable(f"{self._folder}: {what}", error) from error
        self._waiting = array("q")

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The numbers of some consecutive examples as (stop - start, K) int64; all must have been written."""
        self._stream.seek(4 * self._num_members * start)
        content = self._stream.read(4 * self._num_members * (stop - start))
        return np.frombuffer(content, np.int32).reshape(stop - start, self._num_members).astype(np.int64)

    def chunks(self) -> Iterator[np.ndarray]:
        """All numbers, in arrays as `rows` gives them."""
        for start in range(0, len(self), self._rows_at_once):
            yield self.rows(start, min(start + self._rows_at_once, len(self)))


@contextmanager
def member_file(folder: Path, num_members: int, *, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[MemberFile]:
    """An empty file for numbers. It has no name: it takes room in `folder` until it is closed, or the process ends.

    Raises UserError where it cannot be made.
    """
    with ExitStack() as stack:
        try:
            # Without a buffer, so that what a full disk refused is not tried again on closing.
            stream = stack.enter_context(tempfile.TemporaryFile(dir=folder, buffering=0))
        except OSError as error:
            raise unwritable(folder, error) from error
        yield MemberFile(cast(FileIO, stream), folder, num_members, rows_at_once=rows_at_once)

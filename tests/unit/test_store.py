"""The store of hidden states: what is put comes back, from other processes, after kills, within its limit."""

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from peftide.inference.cache_folder import StoreKey, default_cache_folder, evict, room_for, stores
from peftide.inference.segments import RECORD
from peftide.inference.store import StateStore, sequence_key

WIDTH = 64
PLENTY = 10**9

# What a second process runs: it knows the pieces by number, as `piece` below does
SCRIPT = """
import os, sys
from pathlib import Path
import numpy as np
from peftide.inference.cache_folder import StoreKey
from peftide.inference.store import StateStore, sequence_key

def piece(number):
    rows = 1 + number * 37 % 200
    return np.random.default_rng(number).integers(0, 65536, (rows, 64), dtype=np.uint16)

def put(store, numbers):
    pieces = [piece(number) for number in numbers]
    store.put([sequence_key(b"%d" % n) for n in numbers], [len(p) for p in pieces], np.concatenate(pieces))

folder = Path(sys.argv[1])
key = StoreKey("esm2-test", int(sys.argv[2]), 64, "states", "bf16", "bf16")
"""


def key_of(layer: int = 3, stored: str = "bf16", fingerprint: str = "esm2-test", precision: str = "bf16") -> StoreKey:
    return StoreKey(fingerprint, layer, WIDTH, "states", precision, stored)


def piece(number: int) -> np.ndarray:
    rows = 1 + number * 37 % 200
    return np.random.default_rng(number).integers(0, 65536, (rows, WIDTH), dtype=np.uint16)


def digests_of(numbers) -> list[bytes]:
    return [sequence_key(b"%d" % number) for number in numbers]


def rows_of(numbers) -> list[int]:
    return [len(piece(number)) for number in numbers]


def packed(numbers) -> np.ndarray:
    return np.concatenate([piece(number) for number in numbers])


def put(store: StateStore, numbers) -> None:
    store.put(digests_of(numbers), rows_of(numbers), packed(numbers))


def open_store(folder: Path, layer: int = 3, limit_bytes: int = PLENTY) -> StateStore:
    return StateStore.open(folder, key_of(layer), limit_bytes=limit_bytes)


def assert_holds(store: StateStore, numbers) -> None:
    numbers = list(numbers)
    states, absent = store.gather(digests_of(numbers), rows_of(numbers))
    assert absent == []
    assert np.array_equal(states, packed(numbers))


def absent_pieces(store: StateStore, numbers) -> list[int]:
    """Those of `numbers` that the store does not give; all others must be right."""
    numbers = list(numbers)
    states, absent = store.gather(digests_of(numbers), rows_of(numbers))
    pieces = np.split(states, np.cumsum(rows_of(numbers))[:-1])
    for position, number in enumerate(numbers):
        assert position in absent or np.array_equal(pieces[position], piece(number))
    return [numbers[position] for position in absent]


def bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def files(store: StateStore, suffix: str) -> list[Path]:
    return sorted(store.path.glob(f"*.{suffix}"))


def flip_bit(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 16
    path.write_bytes(content)


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, "-c", SCRIPT + script, *map(str, arguments)]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen]:
    """A process that has printed its first line."""
    command = [sys.executable, "-c", SCRIPT + script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


HOLD = """
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_pieces_come_back_bit_for_bit_in_the_order_asked(tmp_path):
    with open_store(tmp_path) as store:
        put(store, range(20))
        assert_holds(store, range(20))
    with open_store(tmp_path) as store:
        assert len(store) == 20
        assert_holds(store, [7, 3, 3, 19, 0, 7])


def test_float32_keeps_every_bit_nan_and_infinity_too(tmp_path):
    values = np.array([[np.nan, -0.0, np.inf, 1e-45] * 16, [1.5, -2.25, 3.0, np.pi] * 16], dtype=np.float32)
    with StateStore.open(tmp_path, key_of(stored="fp32"), limit_bytes=PLENTY) as store:
        store.put(digests_of([0, 1]), [1, 1], values)
        got, absent = store.gather(digests_of([1, 0]), [1, 1])
    assert absent == []
    assert got.tobytes() == values[::-1].tobytes()


def test_gather_fills_the_array_given_and_leaves_its_rest_alone(tmp_path):
    out = np.full((1000, WIDTH), 9, dtype=np.uint16)
    with open_store(tmp_path) as store:
        put(store, [1, 2])
        got, _ = store.gather(digests_of([2, 1]), rows_of([2, 1]), out=out)
    assert np.shares_memory(got, out)
    assert np.array_equal(out[: len(got)], packed([2, 1]))
    assert (out[len(got) :] == 9).all()


def test_nothing_asked_gives_an_empty_array(tmp_path):
    with open_store(tmp_path) as store:
        got, absent = store.gather([], [])
        store.put([], [], got)
    assert got.shape == (0, WIDTH)
    assert absent == []


def test_what_is_not_stored_is_named_by_position(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [4, 6])
        assert store.missing(digests_of([3, 4, 5, 6])) == [0, 2]
        assert store.gather(digests_of([3, 4, 5, 6]), rows_of([3, 4, 5, 6]))[1] == [0, 2]
        assert digests_of([4])[0] in store
        assert digests_of([5])[0] not in store


def test_a_piece_put_twice_is_written_once(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [1, 2])
        before = bytes_in(tmp_path)
        put(store, [2, 1, 1])
        assert bytes_in(tmp_path) == before
        put(store, [2, 3, 3])
        assert_holds(store, [1, 2, 3])
    assert bytes_in(tmp_path) == key_of().size_bytes(num_rows=sum(rows_of([1, 2, 3])), num_pieces=3)


@pytest.mark.parametrize(
    "other", [key_of(layer=4), key_of(fingerprint="esm2-other"), key_of(precision="fp32"), key_of(stored="fp32")]
)
def test_stores_whose_keys_differ_in_anything_share_nothing(tmp_path, other):
    with open_store(tmp_path) as store, StateStore.open(tmp_path, other, limit_bytes=PLENTY) as stranger:
        put(store, [1])
        assert stranger.missing(digests_of([1])) == [0]
        assert store.path != stranger.path


def test_an_index_moved_in_from_another_key_is_left_out_and_named(tmp_path):
    with open_store(tmp_path, layer=3) as store, open_store(tmp_path, layer=4) as other:
        put(store, [1])
        (name,) = [path.stem for path in files(store, "index")]
        for suffix in ("index", "states"):
            (other.path / f"{name}.{suffix}").write_bytes((store.path / f"{name}.{suffix}").read_bytes())
        assert other.missing(digests_of([1])) == [0]
        assert "not an index of this store" in other.unreadable[name]


def test_an_open_store_sees_what_another_puts(tmp_path):
    with open_store(tmp_path) as reader, open_store(tmp_path) as writer:
        assert reader.missing(digests_of([1])) == [0]
        put(writer, [1])
        assert_holds(reader, [1])
        put(writer, [2])
        assert reader.missing(digests_of([2])) == []


def test_many_runs_leave_one_segment_and_two_at_once_leave_two(tmp_path):
    for number in range(5):
        with open_store(tmp_path) as store:
            put(store, [number])
            assert len(files(store, "states")) == 1
    with open_store(tmp_path) as store, open_store(tmp_path) as other:
        put(store, [5])
        put(other, [6])
        assert_holds(store, range(7))
        assert len(files(store, "states")) == 2


def test_a_forked_child_and_its_parent_do_not_overwrite_each_other(tmp_path):
    script = """
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    put(store, [0])
    child = os.fork()
    for number in range(100, 200) if child else range(200, 300):
        put(store, [number])
    if child:
        assert os.waitpid(child, 0)[1] == 0
"""
    run(script, tmp_path, 3)
    with open_store(tmp_path) as store:
        assert_holds(store, [0, *range(100, 300)])


def test_threads_may_gather_while_another_puts(tmp_path):
    wrong: list[str] = []

    def gather_all() -> None:
        for _ in range(20):
            try:
                absent_pieces(store, range(60))
            except AssertionError as error:
                wrong.append(str(error))

    with open_store(tmp_path) as store:
        threads = [threading.Thread(target=gather_all) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(60):
            put(store, [number])
        for thread in threads:
            thread.join()
        assert wrong == []
        assert store.num_damaged == 0
        assert_holds(store, range(60))


def test_a_flipped_bit_in_the_rows_is_noticed_counted_and_mended_for_good(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [1, 2, 3])
        (states,) = files(store, "states")
    flip_bit(states, piece(1).nbytes + 5)
    with open_store(tmp_path) as store:
        assert absent_pieces(store, [1, 2, 3]) == [2]
        assert store.num_damaged == 1
        assert store.missing(digests_of([1, 2, 3])) == [1]
        put(store, [2])
        assert_holds(store, [1, 2, 3])
    with open_store(tmp_path) as store:
        assert_holds(store, [1, 2, 3])
        assert store.num_damaged == 0


def test_a_good_copy_is_found_behind_a_damaged_one(tmp_path):
    with open_store(tmp_path) as first, open_store(tmp_path) as second:
        put(first, [1])
        second._pieces.clear()  # as if both had put it in the same moment
        put(second, [1])
    copies = files(first, "states")
    assert len(copies) == 2
    flip_bit(copies[1], 0)
    with open_store(tmp_path) as store:
        assert_holds(store, [1])
        assert store.num_damaged == 1


def test_a_piece_of_another_length_than_asked_is_absent(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [1])
        assert store.gather(digests_of([1]), [5])[1] == [0]
        assert store.num_damaged == 1


@pytest.mark.parametrize("cut", [1, 31])
def test_half_a_record_at_the_end_is_passed_over_and_written_over(tmp_path, cut):
    with open_store(tmp_path) as store:
        put(store, [1, 2])
    (index,) = files(store, "index")
    os.truncate(index, index.stat().st_size - cut)
    with open_store(tmp_path) as store:
        assert absent_pieces(store, [1, 2]) == [2]
        put(store, [2, 3])
        assert len(files(store, "index")) == 1
    with open_store(tmp_path) as store:
        assert_holds(store, [1, 2, 3])


def test_records_that_point_outside_the_states_are_passed_over(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [1, 2])
    (states,), (index,) = files(store, "states"), files(store, "index")
    os.truncate(states, states.stat().st_size - 1)
    forged = np.zeros(4, RECORD)
    forged["digest"] = np.frombuffer(b"".join(digests_of([10, 11, 12, 13])), "V16")
    forged["rows"] = [2**32 - 1, 1, 0, 1]
    forged["offset"] = [0, 2**64 - 1, 0, 2**64 - WIDTH * 2]
    with index.open("ab") as file:
        file.write(forged.tobytes())
    with open_store(tmp_path) as store:
        assert len(store) == 1
        assert absent_pieces(store, [1, 2, 10, 11, 12, 13]) == [2, 10, 11, 12, 13]
        put(store, [2, 10])
        assert_holds(store, [1, 2, 10])


def test_a_huge_hollow_index_takes_no_memory(tmp_path):
    with open_store(tmp_path) as store:
        put(store, [1])
    (states,), (index,) = files(store, "states"), files(store, "index")
    os.truncate(index, 256 << 20)
    os.truncate(states, 1 << 40)
    script = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, resource.RLIM_INFINITY))
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    print(len(store))
"""
    assert run(script, tmp_path, 3) == "1\n"


def test_foreign_and_garbage_files_change_nothing(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"x" * 10_000)
    folder = tmp_path / "cache"
    with open_store(folder) as store:
        put(store, [1])
    (good,) = files(store, "index")
    (store.path / "notes.txt").write_text("mine")
    (store.path / "0123456789abcdef-00000000.index").write_bytes(b"garbage" * 100)
    (store.path / "0123456789abcdef-00000001.index").mkdir()
    os.mkfifo(store.path / "0123456789abcdef-00000002.index")
    (store.path / "0123456789abcdef-00000003.index").symlink_to(good)
    (store.path / "0123456789abcdef-00000004.index").write_bytes(good.read_bytes())
    (store.path / "0123456789abcdef-00000004.states").symlink_to(secret)
    (store.path / "0123456789abcdef-00000005.index").write_bytes(good.read_bytes())
    (folder / "holiday.jpg").write_bytes(b"jpeg")
    (folder / key_of(layer=9).folder_name).write_text("a file where a store would be")
    with open_store(folder) as store:
        assert sorted(name[-1] for name in store.unreadable) == ["0", "1", "2", "3", "4", "5"]
        put(store, [2])
        assert_holds(store, [1, 2])
        assert store.full_reason is None
    with open_store(folder, layer=9) as store:
        assert "cannot be written" in store.full_reason
    with open_store(folder, layer=4, limit_bytes=bytes_in(folder / good.parent.name)) as other:
        put(other, [1])
        assert [use.path for use in other.evicted] == [good.parent]
    assert (good.parent / "notes.txt").read_text() == "mine"
    assert (folder / "holiday.jpg").exists()
    assert secret.stat().st_size == 10_000


def test_a_store_that_may_not_be_looked_into_is_named_and_left(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    with open_store(tmp_path) as store:
        put(store, [1])
        monkeypatch.setattr("peftide.inference.segments.os.listdir", refuse)
        with open_store(tmp_path) as other:
            assert "Permission denied" in other.unreadable["."]
            assert absent_pieces(other, [1]) == [1]


def test_the_files_are_private_to_the_user(tmp_path):
    with open_store(tmp_path / "cache") as store:
        put(store, [1])
        for path in [tmp_path / "cache", *(tmp_path / "cache").rglob("*")]:
            assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_the_limit_is_kept_and_said_and_reading_goes_on(tmp_path):
    limit_bytes = packed(range(10)).nbytes + 32 * 12
    with open_store(tmp_path, limit_bytes=limit_bytes) as store:
        put(store, range(10))
        assert store.full_reason is None
        put(store, [10])
        assert "may hold" in store.full_reason
        assert bytes_in(tmp_path) <= limit_bytes
        assert_holds(store, range(10))
        assert absent_pieces(store, range(11)) == [10]
    with open_store(tmp_path, limit_bytes=limit_bytes) as store:
        assert_holds(store, range(10))


def test_the_store_used_longest_ago_makes_room_first(tmp_path):
    for layer in (1, 2, 3):
        with open_store(tmp_path, layer) as store:
            put(store, range(layer, layer + 10))
    os.utime(tmp_path / key_of(1).folder_name / "in-use.lock", (3000, 3000))
    os.utime(tmp_path / key_of(2).folder_name / "in-use.lock", (1000, 1000))
    os.utime(tmp_path / key_of(3).folder_name / "in-use.lock", (2000, 2000))
    assert [use.path.name for use in stores(tmp_path)] == [key_of(layer).folder_name for layer in (2, 3, 1)]
    with open_store(tmp_path, layer=2):
        pass  # opening is use
    with open_store(tmp_path, layer=4, limit_bytes=bytes_in(tmp_path) + 1000) as store:
        put(store, [1])
        assert [use.path.name for use in store.evicted] == [key_of(3).folder_name]
        assert not (tmp_path / key_of(3).folder_name).exists()
    with open_store(tmp_path, layer=2) as store:
        assert_holds(store, range(2, 12))


def test_nothing_is_removed_where_that_would_not_be_enough(tmp_path):
    with open_store(tmp_path) as store:
        put(store, range(10))
    assert evict(tmp_path, needed_bytes=10**6, limit_bytes=10**5) == []
    assert not room_for(tmp_path, key_of(4), needed_bytes=10**6, limit_bytes=10**5).fits
    with open_store(tmp_path) as store:
        assert_holds(store, range(10))


def test_a_store_in_use_is_never_evicted_and_one_whose_user_was_killed_is(tmp_path):
    with open_store(tmp_path) as store:
        put(store, range(10))
    with running(HOLD, tmp_path, 3) as process:
        assert evict(tmp_path, needed_bytes=1000, limit_bytes=1000) == []
        assert store.path.exists()
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [use.path for use in evict(tmp_path, needed_bytes=1000, limit_bytes=1000)] == [store.path]
        assert not store.path.exists()


def test_room_is_told_in_words_and_takes_idle_stores_into_account(tmp_path):
    with open_store(tmp_path / "cache", layer=1) as store:
        put(store, range(100))
        size = bytes_in(store.path)
        rooms = [
            room_for(tmp_path / "cache", key_of(2), needed_bytes=size, limit_bytes=limit)
            for limit in (2 * size, 2 * size - 1, size - 1)
        ]
        assert [room.fits for room in rooms] == [True, False, False]
        assert "do not fit" in rooms[1].reason
    idle = room_for(tmp_path / "cache", key_of(2), needed_bytes=size, limit_bytes=size)
    assert idle.fits
    assert "in place of older stores" in idle.reason
    assert not room_for(tmp_path / "cache", key_of(1), needed_bytes=size, limit_bytes=size).fits
    assert room_for(tmp_path / "not" / "there", key_of(1), needed_bytes=size, limit_bytes=size).fits
    assert not room_for(tmp_path, key_of(1), needed_bytes=1 << 60, limit_bytes=1 << 62).fits
    assert not (tmp_path / "not").exists()


def test_two_processes_that_fill_the_cache_together_keep_to_the_limit(tmp_path):
    script = """
with StateStore.open(folder, key, limit_bytes=2_000_000) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    numbers = iter(range(int(sys.argv[3]), 10_000))
    while store.full_reason is None:
        put(store, [next(numbers), next(numbers)])
    print(len(store))
"""
    with running(script, tmp_path, 3, 0) as one, running(script, tmp_path, 3, 5000) as other:
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in (one, other):
            assert int(process.stdout.readline()) > 0
    assert 1_900_000 < bytes_in(tmp_path) <= 2_000_000
    with open_store(tmp_path) as store:
        assert len(store) > 100
        absent_pieces(store, [*range(200), *range(5000, 5200)])
        assert store.num_damaged == 0


def test_a_file_that_cannot_grow_stops_the_writing_and_loses_nothing(tmp_path):
    # Narrow rows, so that it is the index that hits the wall, with 6,000 records and half of one
    script = """
import resource
key = StoreKey("esm2-test", 3, 1, "mean", "fp32", "fp32")
resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 6001 + 16, resource.RLIM_INFINITY))
values = np.arange(8000, dtype=np.float32)[:, None]
digests = [sequence_key(b"%d" % n) for n in range(8000)]
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    store.put(digests[:5000], [1] * 5000, values[:5000])
    assert store.full_reason is None
    store.put(digests[5000:], [1] * 3000, values[5000:])
    assert "cannot be written" in store.full_reason
    assert store.missing(digests) == list(range(6000, 8000))
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    got, absent = store.gather(digests, [1] * 8000)
    assert absent == list(range(6000, 8000))
    assert (got[:6000] == values[:6000]).all()
print(sorted(path.stat().st_size for path in store.path.iterdir()))
"""
    assert run(script, tmp_path, 3) == f"[0, {6000 * 4}, {6001 * 32}]\n"


def test_a_cache_that_cannot_be_made_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with open_store(tmp_path / "file" / "cache") as store:
        put(store, [1])
        assert "cannot be written" in store.full_reason
        assert absent_pieces(store, [1]) == [1]
        store.flush()


def test_a_cache_removed_under_a_running_process_stops_nothing(tmp_path):
    with open_store(tmp_path / "cache") as store:
        put(store, [1])
        for path in sorted((tmp_path / "cache").rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (tmp_path / "cache").rmdir()
        assert_holds(store, [1])
        put(store, [2])
        assert "cannot be written" in store.full_reason
        assert absent_pieces(store, [1, 2]) == [2]


def test_a_cache_that_cannot_be_marked_as_used_is_closed_all_the_same(tmp_path):
    with open_store(tmp_path / "cache") as store:
        put(store, [1])
        shutil.rmtree(store.path)
        store.path.write_text("something else")


def test_without_locks_and_positioned_reads_the_store_works_but_evicts_nothing(tmp_path):
    script = """
import peftide.inference.locks
assert peftide.inference.locks.fcntl is None
for number in range(2):
    with StateStore.open(folder, key, limit_bytes=10**9) as store:
        put(store, range(number * 10, number * 10 + 10))
        got, absent = store.gather([sequence_key(b"%d" % n) for n in range(5)], [len(piece(n)) for n in range(5)])
        assert not absent and (got == np.concatenate([piece(n) for n in range(5)])).all()
from peftide.inference.cache_folder import evict
assert evict(folder, needed_bytes=10, limit_bytes=10) == []
"""
    command = "import os, sys; sys.modules['fcntl'] = None; del os.preadv\n" + SCRIPT + script
    subprocess.run([sys.executable, "-c", command, str(tmp_path), "3"], check=True)
    with open_store(tmp_path) as store:
        assert_holds(store, range(20))


def test_a_writer_killed_at_any_moment_leaves_only_whole_pieces(tmp_path):
    script = """
with StateStore.open(folder, key, limit_bytes=10**9) as store:
    print("ready", flush=True)
    first = int(sys.argv[3])
    while True:
        put(store, range(first, first + 1 + first % 5))
        first += 1 + first % 5
        print(first, flush=True)
"""
    generator = random.Random(0)
    stored: set[int] = set()
    for first in range(0, 8 * 10_000, 10_000):
        with running(script, tmp_path, 3, first) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=generator.uniform(0, 0.05))
            process.kill()
            lines = process.stdout.read().splitlines()
        stored.update(range(first, int(lines[-1]) if lines else first))
        with open_store(tmp_path) as store:
            asked = sorted(stored | set(range(first, first + 10)))
            assert stored.isdisjoint(absent_pieces(store, asked))
            assert store.num_damaged == 0
            assert store.unreadable == {}
    assert len(stored) > 20
    assert len(files(store, "index")) == 1


def test_the_default_folder_is_the_users_choice_or_the_usual_place(monkeypatch):
    monkeypatch.setenv("PEFTIDE_CACHE", "/data/states")
    assert default_cache_folder() == Path("/data/states")
    monkeypatch.setenv("PEFTIDE_CACHE", "")
    assert default_cache_folder() == Path.home() / ".cache" / "peftide"


def test_a_store_of_ten_thousand_pieces_opens_in_a_blink(tmp_path):
    key = StoreKey("esm2-test", 3, 4, "mean", "fp32", "fp32")
    digests = digests_of(range(10_000))
    with StateStore.open(tmp_path, key, limit_bytes=PLENTY) as store:
        store.put(digests, [1] * len(digests), np.zeros((len(digests), 4), dtype=np.float32))
    start = time.process_time()
    with StateStore.open(tmp_path, key, limit_bytes=PLENTY) as store:
        assert time.process_time() - start < 0.5
        assert store.missing(digests) == []

"""Whatever is put, and whatever happens to the files, the store gives right rows or none."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from peftide.inference.cache_folder import StoreKey
from peftide.inference.store import StateStore, sequence_key

WIDTH = 3
NUMBERS = st.integers(0, 30)
PLENTY = 10**9


def key_of(layer: int) -> StoreKey:
    return StoreKey("esm2", layer, WIDTH, "states", "bf16", "bf16")


def piece(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 65536, (1 + number % 9, WIDTH), dtype=np.uint16)


def digests_of(numbers: list[int]) -> list[bytes]:
    return [sequence_key(bytes([number])) for number in numbers]


def put(store: StateStore, numbers: list[int]) -> None:
    pieces = [piece(number) for number in numbers]
    store.put(digests_of(numbers), [len(rows) for rows in pieces], np.concatenate(pieces))


def held_by(store: StateStore, numbers: list[int]) -> set[int]:
    """Those of `numbers` that the store gives, all of which must be right."""
    pieces = [piece(number) for number in numbers]
    states, absent = store.gather(digests_of(numbers), [len(rows) for rows in pieces])
    start = 0
    for position, rows in enumerate(pieces):
        assert position in absent or np.array_equal(states[start : start + len(rows)], rows)
        start += len(rows)
    return {number for position, number in enumerate(numbers) if position not in absent}


def bytes_in(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


steps = st.lists(
    st.tuples(st.sampled_from(["put", "put by the other", "reopen"]), st.lists(NUMBERS, min_size=1, max_size=6)),
    max_size=8,
)


@given(steps)
@settings(max_examples=60, deadline=None)
def test_two_stores_hold_exactly_what_either_was_given(steps):
    held: set[int] = set()
    with tempfile.TemporaryDirectory() as folder:
        store, other = (StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) for _ in range(2))
        for step, numbers in steps:
            if step == "reopen":
                store.close()
                store = StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY)
            else:
                put(store if step == "put" else other, numbers)
                held |= set(numbers)
            assert held_by(store, list(range(31))) == held
            assert held_by(other, list(range(31))) == held
        assert store.num_damaged == other.num_damaged == 0
        store.close()
        other.close()


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, str, float, bytes]:
    suffix = draw(st.sampled_from(["index", "states"]))
    kind = draw(st.sampled_from(["cut", "flip", "add", "replace", "remove", "insert"]))
    return suffix, kind, draw(st.floats(0, 1, exclude_max=True)), draw(st.binary(min_size=1, max_size=100))


def mutate(path: Path, kind: str, at: float, content: bytes) -> None:
    before = path.read_bytes()
    position = int(at * len(before))
    flipped = bytes([before[position] ^ (content[0] or 1)]) if before else b""
    after = {
        "cut": before[:position],
        "flip": before[:position] + flipped + before[position + 1 :],
        "add": before + content,
        "replace": content,
        "insert": before[:position] + content + before[position:],
    }
    if kind == "remove":
        path.unlink()
    else:
        path.write_bytes(after[kind])


@given(st.lists(NUMBERS, min_size=2, max_size=12, unique=True), st.lists(mutations(), min_size=1, max_size=3))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_to_the_files_no_wrong_row_comes_out_and_the_store_mends(numbers, changes):
    with tempfile.TemporaryDirectory() as folder:
        with StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) as store:
            put(store, numbers[:1])
            put(store, numbers[1:])
        for suffix, kind, at, content in changes:
            for path in store.path.glob(f"*.{suffix}"):
                mutate(path, kind, at, content)
        for _ in range(2):
            with StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) as store:
                held_by(store, numbers)
                put(store, numbers)
                assert store.full_reason is None
                assert held_by(store, numbers) == set(numbers)
        with StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) as store:
            assert store.missing(digests_of(numbers)) == []
            assert held_by(store, numbers) == set(numbers)


@given(st.binary(max_size=400), st.binary(max_size=400), st.booleans())
@settings(max_examples=60, deadline=None)
def test_arbitrary_files_hold_nothing(index, states, header):
    with tempfile.TemporaryDirectory() as folder:
        with StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) as store:
            put(store, [1])
            (good,) = store.path.glob("*.index")
        start = good.read_bytes()[:32] if header else b""
        good.write_bytes(start + index)
        good.with_suffix(".states").write_bytes(states)
        with StateStore.open(Path(folder), key_of(1), limit_bytes=PLENTY) as store:
            assert held_by(store, list(range(31))) == set()
            put(store, [1, 2])
            assert held_by(store, [1, 2]) == {1, 2}


@given(
    st.lists(st.tuples(st.integers(1, 3), st.lists(NUMBERS, min_size=1, max_size=8)), max_size=10),
    st.integers(0, 1500),
)
@settings(max_examples=60, deadline=None)
def test_the_cache_never_outgrows_its_limit_and_forgets_only_what_it_evicted(puts, limit_bytes):
    with tempfile.TemporaryDirectory() as folder:
        held: dict[str, set[int]] = {}
        for layer, numbers in puts:
            with StateStore.open(Path(folder), key_of(layer), limit_bytes=limit_bytes) as store:
                put(store, numbers)
                assert bytes_in(Path(folder)) <= limit_bytes
                for use in store.evicted:
                    held.pop(use.path.name)
                known = held.setdefault(store.path.name, set())
                known |= set(numbers) if store.full_reason is None else set()
                assert held_by(store, list(range(31))) == known

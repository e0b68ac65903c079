"""Which cache serves an encoder: the states of its frozen layers, or the vectors of a frozen backbone."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console

from peftide.config import MachineSettings
from peftide.inference.cache_folder import Room, StoreKey, default_cache_folder, room_for
from peftide.inference.embed import embedding_key
from peftide.inference.encoder import Encoder
from peftide.inference.store import StateStore
from peftide.models.tokens import Pieces


def open_store(
    encoder: Encoder, pieces: list[Pieces], *, kind: str, cache_dir: str | None, limit_bytes: int
) -> tuple[StateStore | None, str]:
    """The store of the frozen layers' states ("states") or of a frozen backbone's vectors ("mean", "cls").

    Returns None where there would be no gain or no room, and a sentence that says what was decided.
    """
    if kind == "states":
        digests = [key for protein in pieces for key in protein.keys]
        rows = [len(piece) for protein in pieces for piece in protein.tokens]
    else:
        digests, rows = [embedding_key(protein) for protein in pieces], [1] * len(pieces)
    return _open(encoder, digests, rows, kind=kind, cache_dir=cache_dir, limit_bytes=limit_bytes)


def _open(
    encoder: Encoder,
    digests: Sequence[bytes],
    rows: Sequence[int],
    *,
    kind: str,
    cache_dir: str | None,
    limit_bytes: int,
) -> tuple[StateStore | None, str]:
    if limit_bytes == 0:
        return None, "cache switched off"
    if encoder.num_frozen_layers == 0:
        return None, "every layer is trained: nothing to cache"
    folder = Path(cache_dir) if cache_dir else default_cache_folder()
    is_states = kind == "states"
    fingerprint, layer = encoder.backbone.exact_fingerprint, encoder.num_frozen_layers
    if not is_states and len(encoder.state_layers) > 1:
        fingerprint, layer = f"{fingerprint}, layers {encoder.layers_text}", encoder.state_layers[-1]
    key = StoreKey(
        fingerprint=fingerprint,
        layer=layer,
        width=encoder.backbone.width if is_states else encoder.width,
        kind=kind,
        precision=f"{encoder.machine.precision}-{encoder.machine.device.type}",
        stored="bf16" if is_states and encoder.machine.dtype == torch.bfloat16 else "fp32",
    )
    store = StateStore.open(folder, key, limit_bytes=limit_bytes)
    absent = store.missing(digests)
    needed = key.size_bytes(num_rows=sum(rows[i] for i in absent), num_pieces=len(absent))
    room = room_for(folder, key, needed_bytes=needed, limit_bytes=limit_bytes)
    if absent and store.full_reason is not None:
        room = Room(False, store.full_reason)
    what = f"states after layer {layer} of {encoder.backbone.num_layers}" if is_states else "frozen vectors"
    note = f"cache of {what} in {folder}: {len(digests) - len(absent):,} of {len(digests):,} pieces known"
    if not room.fits:
        store.close()
        return None, f"{note}; {room.reason}"
    return store, f"{note}; {room.reason}" if absent else note


@contextmanager
def cached(
    encoder: Encoder, pieces: list[Pieces], settings: MachineSettings, console: Console, *, kind: str
) -> Iterator[StateStore | None]:
    """The store that `open_store` opens, for a while, and said; None where there is none."""
    limit_bytes = int(settings.cache_limit_gb * 1e9)
    opened = open_store(encoder, pieces, kind=kind, cache_dir=settings.cache_dir, limit_bytes=limit_bytes)
    with _told(opened, console) as store:
        yield store


@contextmanager
def frozen_vectors(
    encoder: Encoder, digests: Sequence[bytes], settings: MachineSettings, console: Console
) -> Iterator[StateStore | None]:
    """The store of a frozen backbone's vectors, open for a while, and said; None where there is none.

    digests: those of all proteins (`embedding_key`). The backbone must be as it was published: a tuned one has other
    vectors under the same fingerprint.
    """
    opened = _open(
        encoder, digests, [1] * len(digests),
        kind=encoder.pooling, cache_dir=settings.cache_dir, limit_bytes=int(settings.cache_limit_gb * 1e9),
    )  # fmt: skip
    with _told(opened, console) as store:
        yield store


@contextmanager
def _told(opened: tuple[StateStore | None, str], console: Console) -> Iterator[StateStore | None]:
    store, note = opened
    console.print(note, highlight=False)
    try:
        yield store
    finally:
        if store is not None:
            close_store(store, console)


def close_store(store: StateStore, console: Console) -> None:
    """Let a store go, and say what it could not keep or read: the work went on without."""
    remarks = [f"cache {store.path.parent}: not all was kept: {store.full_reason}"] if store.has_left_out else []
    if store.num_damaged:
        remarks.append(f"{store.path}: {store.num_damaged:,} damaged pieces were left out and computed again")
    remarks += [f"{store.path / name}: cannot be read ({reason})" for name, reason in store.unreadable.items()]
    store.close()
    for remark in remarks:
        console.print(f"note: {remark}", highlight=False)

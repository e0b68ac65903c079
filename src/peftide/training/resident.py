"""Memory as the system sees it: what this process holds, its peak, what is left, and how to keep within a limit.

On a GPU what PyTorch has allocated; elsewhere the resident memory of the process.
"""

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

# Of glibc's mallopt(3): blocks from the mapping threshold on are mapped, and unmapped as soon as they are freed
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MAPPED_BLOCK_BYTES = 1 << 18
LARGEST_KEPT_BYTES = 1 << 25
CGROUP_FILES = {  # limit and use, by the name of the controller: version 2 has none
    "": ("memory.max", "memory.current"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes"),
}


def held_bytes(device: torch.device) -> int:
    """What the process holds now."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return torch.mps.current_allocated_memory()
    return psutil.Process().memory_info().rss


def available_bytes(device: torch.device) -> int:
    """What the process could still take: free memory and caches that the system drops, within its cgroup's limit."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    available = psutil.virtual_memory().available
    if sys.platform != "linux":
        return available
    memberships = Path("/proc/self/cgroup").read_text("utf-8")
    return min([available, *cgroup_rooms(memberships, Path("/sys/fs/cgroup"))])


def cgroup_rooms(memberships: str, root: Path) -> list[int]:
    """Bytes left in each limited control group that this process is in (version 2 or 1): jobs of a cluster have one.

    memberships: the text of /proc/self/cgroup; root: where the groups' files are.
    """
    rooms = []
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        limit, usage = CGROUP_FILES[controllers]
        top = root / controllers
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(top) and (group / limit).is_file():
                text = (group / limit).read_text("utf-8").strip()
                if text.isdigit():  # and not "max"
                    used = int((group / usage).read_text("utf-8")) - _droppable_bytes(group)
                    rooms.append(int(text) - used)
    return rooms


def _droppable_bytes(group: Path) -> int:
    """File pages counted as used that the system drops when memory is short."""
    lines = (group / "memory.stat").read_text("utf-8").splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file")), 0)


def give_back(device: torch.device) -> None:
    """Hand all freed memory back to the system."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
    trim(device)


@contextmanager
def quick_collections() -> Iterator[None]:
    """Within the block, look for garbage only among what it makes: the libraries' objects alone take half a second."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def trim(device: torch.device) -> None:
    """Hand freed blocks of the process's own memory back to the system (glibc): without it, steps of ever new sizes
    leave ever more holes.
    """
    library = _c_library()
    if device.type == "cpu" and library is not None:
        library.malloc_trim(0)


def start_peak(device: torch.device) -> bool:
    """Begin to watch for a peak; False where the system cannot (its peak is that of the whole life of the process)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if device.type != "cpu" or sys.platform != "linux":
        return False
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5)
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """The most that was held since `start_peak`, which must have returned True."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status_bytes("VmHWM")


def can_free_at_once(device: torch.device) -> bool:
    """Whether `free_at_once` has an effect here."""
    return device.type == "cpu" and _c_library() is not None


def free_at_once(device: torch.device) -> None:
    """Have every larger tensor's memory returned when it is freed, for the rest of the process (glibc).

    Otherwise the process holds about twice what its tensors take, since freed blocks of all sizes stay for later ones.
    Costs a fifth to a third more time with small backbones: the system zeroes the pages of every new tensor.
    """
    _set_thresholds(device, mapped=MAPPED_BLOCK_BYTES, trimmed=MAPPED_BLOCK_BYTES)


def keep_freed(device: torch.device) -> None:
    """Undo `free_at_once`: the thresholds at which glibc arrives by itself after a few large blocks."""
    _set_thresholds(device, mapped=LARGEST_KEPT_BYTES, trimmed=2 * LARGEST_KEPT_BYTES)


def _set_thresholds(device: torch.device, *, mapped: int, trimmed: int) -> None:
    library = _c_library()
    if device.type == "cpu" and library is not None:
        library.mallopt(M_MMAP_THRESHOLD, mapped)
        library.mallopt(M_TRIM_THRESHOLD, trimmed)


def cap_device(device: torch.device, limit_bytes: int) -> None:
    """Make PyTorch raise an out-of-memory error beyond the limit, where the device can (CUDA)."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), device)


def _c_library() -> ctypes.CDLL | None:
    """The C library, where it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library is not None and hasattr(library, "gnu_get_libc_version") else None


def _status_bytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

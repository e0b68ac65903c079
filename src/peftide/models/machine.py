"""Device, arithmetic and threads, chosen in one place and written to run.json."""

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import version

import psutil
import torch

from peftide.errors import UserError

KERNEL_CACHES = ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")  # of PyTorch's bf16 on CPUs, and of oneDNN
KERNELS_KEPT = "64"  # more than the shapes of one step
PACKAGES = ("peftide", "torch", "transformers", "peft", "numpy", "scikit-learn", "safetensors")


@dataclass(frozen=True)
class Machine:
    """Where the backbone runs and in which arithmetic; trained weights, pooling, heads and losses are float32."""

    device: torch.device
    dtype: torch.dtype

    @property
    def precision(self) -> str:
        """The name of the backbone's arithmetic as in the settings."""
        return "bf16" if self.dtype == torch.bfloat16 else "fp32"


def choose_machine(device: str, precision: str, threads: int | None) -> Machine:
    """Resolve "auto": CUDA, then Apple's MPS, then the CPU; bf16 where the device computes it natively.

    Raises UserError for a device that is not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    for name in KERNEL_CACHES:  # each keeps 1,024 kernels otherwise; packed batches have a new shape in every step,
        os.environ.setdefault(name, KERNELS_KEPT)  # which would take hundreds of megabytes and never be used again
    chosen = torch.device(_find_device() if device == "auto" else _checked_device(device))
    if precision == "auto":
        precision = "bf16" if _has_native_bf16(chosen) else "fp32"
    return Machine(chosen, torch.bfloat16 if precision == "bf16" else torch.float32)


def _find_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _checked_device(device: str) -> str:
    kind = device.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {device}: no such device; choose auto, cpu, cuda, cuda:1 or mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {device}: this PyTorch ({torch.__version__}) sees no CUDA GPU; "
            "use --device cpu, or install a CUDA build of PyTorch"
        )
    if kind == "cuda" and ":" in device and int(device.split(":")[1]) >= torch.cuda.device_count():
        raise UserError(
            f"--device {device}: this machine has {torch.cuda.device_count()} CUDA device(s), counted from 0"
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: this machine has no Apple GPU that PyTorch can use; use --device cpu")
    return device


def _has_native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities()
        return bool(features.get("avx512_bf16") or features.get("amx_bf16"))
    return False


def peak_memory_bytes(device: torch.device) -> int:
    """Peak so far: allocated memory of a GPU since its counter was reset, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # there is none on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def describe(machine: Machine) -> dict[str, str | int]:
    """Hardware and versions, for run.json and for benchmark results."""
    device_name = torch.cuda.get_device_name(machine.device) if machine.device.type == "cuda" else _cpu_name()
    facts: dict[str, str | int] = {
        "device": str(machine.device),
        "device_name": device_name,
        "precision": machine.precision,
        "threads": torch.get_num_threads(),
        "cpu_cores": os.cpu_count() or 1,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
    }
    return facts | {name: version(name) for name in PACKAGES}


def _cpu_name() -> str:
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor() or platform.machine()))

"""The self-test of `peftide doctor`: this machine, and a model on it, checked in a few seconds."""

import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TypeVar

import torch
from packaging.requirements import Requirement
from rich.console import Console

from peftide.config import DoctorSettings, parse_layers
from peftide.errors import UserError
from peftide.inference.cache_folder import default_cache_folder, readable_size, stores
from peftide.models.adapters import add_lora
from peftide.models.backbones import load_backbone
from peftide.models.bundle import load_bundle
from peftide.models.machine import PACKAGES, Machine, choose_machine, describe
from peftide.models.property_model import HeadShape, PropertyModel, make_head
from peftide.models.target import Target
from peftide.training.model_checks import MODEL_CHECKS, ROUNDING, CheckFailedError, Trial, make_trial

T = TypeVar("T")

MATRIX_WIDTH = 256


@dataclass(frozen=True)
class Check:
    """One line of the self-test. passed: None where it could not be tried; said: what was seen, or the reason."""

    name: str
    passed: bool | None
    said: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAIL", None: "----"}[self.passed]
        return f"{word:4}  {self.name}: {self.said}"


def run_doctor(settings: DoctorSettings, console: Console) -> tuple[Check, ...]:
    """Make every check, say what came of each at once, and return them all."""
    done = []
    for check in _checks(settings):
        console.print(str(check), style="red" if check.passed is False else None, highlight=False, markup=False)
        done.append(check)
    failed = [check.name for check in done if check.passed is False]
    summary = f"{len(failed)} of {len(done)} checks failed: {', '.join(failed)}" if failed else "all checks passed"
    console.print(summary, highlight=False, markup=False)
    return tuple(done)


def _checks(settings: DoctorSettings) -> Iterator[Check]:
    yield _check("versions", _versions)[0]
    found, machine = _check("device", partial(_device, settings))
    yield found
    yield _check("cache", partial(_cache, settings))[0]
    subject = "backbone" if settings.bundle is None else "bundle"
    trial = None
    if machine is not None:
        found, trial = _check(subject, partial(_trial, settings, machine))
        yield found
    for name, check in MODEL_CHECKS.items():
        if trial is None:
            yield Check(name, None, f"not tried, for want of the {'device' if machine is None else subject}")
        else:
            yield _check(name, partial(_of_model, check, trial))[0]


def _check(name: str, make: Callable[[], tuple[str, T]]) -> tuple[Check, T | None]:
    """Whatever goes wrong is what the self-test is there to find: it fails the check, with the reason."""
    try:
        said, result = make()
    except (CheckFailedError, UserError) as error:
        return Check(name, False, " ".join(str(error).split())), None
    except Exception as error:
        return Check(name, False, " ".join(f"{type(error).__name__}: {error}".split())), None
    return Check(name, True, said), result


def _of_model(check: Callable[[Trial], str], trial: Trial) -> tuple[str, None]:
    return check(trial), None


def _versions() -> tuple[str, None]:
    """Python and the packages, each of a version that peftide asks for."""
    wrong = []
    for line in requires("peftide") or []:
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is not installed")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} is {found}, and {wanted.specifier} is needed")
    if wrong:
        raise CheckFailedError("; ".join(wrong))
    return f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in PACKAGES)}", None


def _device(settings: DoctorSettings) -> tuple[str, Machine]:
    """The device and its arithmetic, tried on a product of two matrices."""
    machine = choose_machine(settings.device, settings.precision, settings.threads)
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(MATRIX_WIDTH, MATRIX_WIDTH, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    product = (a.to(machine.device, machine.dtype) @ b.to(machine.device, machine.dtype)).cpu().double()
    difference = ((product - exact).norm() / exact.norm()).item()
    if not difference <= ROUNDING[machine.precision]:
        raise CheckFailedError(f"{machine.device} multiplies matrices wrongly: off by {difference:.1e}")
    facts = describe(machine)
    return f"{facts['device']} ({facts['device_name']}), {machine.precision}, {facts['threads']} threads", machine


def _cache(settings: DoctorSettings) -> tuple[str, None]:
    """Whether the cache can be written, and how full it is."""
    folder = Path(settings.cache_dir) if settings.cache_dir else default_cache_folder()
    limit_bytes = int(settings.cache_limit_gb * 1e9)
    if limit_bytes == 0:
        return "switched off", None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"peftide")
            stream.seek(0)
            written = stream.read()
        num_bytes = sum(store.num_bytes for store in stores(folder))
    except OSError as error:
        raise CheckFailedError(f"{folder} cannot be used ({error.strerror or error}); see --cache-dir") from error
    if written != b"peftide":
        raise CheckFailedError(f"{folder} gives back other bytes than were written")
    return f"{folder} can be written; it holds {readable_size(num_bytes)} of {readable_size(limit_bytes)}", None


def _trial(settings: DoctorSettings, machine: Machine) -> tuple[str, Trial]:
    """The model: that of the bundle, or a new one on the backbone."""
    if settings.bundle is not None:
        model = load_bundle(Path(settings.bundle), dtype=machine.dtype)
        said = (
            f"{settings.bundle}: whole; task {model.task}, method {model.method}, {model.target.kind} target; backbone "
            f"{model.backbone.name} has the weights that it was trained on (fingerprint {model.backbone.fingerprint})"
        )
    else:
        model = _new_model(settings.backbone, machine)
        said = f"{model.backbone.name}, {model.backbone.num_layers} layers, fingerprint {model.backbone.fingerprint}"
    return said, make_trial(model, machine, token_budget=settings.token_budget, compile_layers=settings.compile)


def _new_model(name: str, machine: Machine) -> PropertyModel:
    """A pair model with LoRA adapters as after some training: new ones change nothing, which would hide errors."""
    backbone = load_backbone(name, dtype=machine.dtype)
    torch.manual_seed(0)
    network = add_lora(
        backbone, rank=8, alpha=32, dropout=0.1, matrices=("key", "value"),
        layers=parse_layers("last-quarter", backbone.num_layers),
    )  # fmt: skip
    with torch.no_grad():
        for parameter_name, parameter in network.named_parameters():
            if "lora_B" in parameter_name:
                parameter.normal_(std=0.02)
    shape = HeadShape("mlp", width=backbone.width, arity=2, num_outputs=1, hidden_width=64, dropout=0.1)
    return PropertyModel(
        task="pair",
        method="lora",
        backbone=backbone,
        model=network,
        head=make_head(shape),
        head_shape=shape,
        target=Target("binary", ("0", "1")),
        pooling="mean",
        state_layers=(backbone.num_layers,),
        max_residues=1022,
        long_proteins="crop",
    )

"""Backbones by name: the shipped one, ESM-2 of every size from the hub, any local folder in ESM-2 format."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import EsmConfig, EsmModel
from transformers.utils import logging as transformers_logging

from peftide.errors import UserError
from peftide.models.esm_files import DECISIVE, FREQUENCIES, NOT_NEEDED, esm_config, outline, read_weights
from peftide.models.tokens import Vocabulary

SHIPPED = "swissprot-10m"
SHIPPED_FOLDER = Path(__file__).parent / "swissprot_10m"
HUB_NAMES = {
    "esm2-8m": "facebook/esm2_t6_8M_UR50D",
    "esm2-35m": "facebook/esm2_t12_35M_UR50D",
    "esm2-150m": "facebook/esm2_t30_150M_UR50D",
    "esm2-650m": "facebook/esm2_t33_650M_UR50D",
    "esm2-3b": "facebook/esm2_t36_3B_UR50D",
    "esm2-15b": "facebook/esm2_t48_15B_UR50D",
}
MOST_VOCABULARY_BYTES = 1 << 20
OFFLINE_HINT = (
    "without network: use --backbone swissprot-10m (shipped), or copy the checkpoint's config.json, vocab.txt and "
    "model.safetensors into a folder and give that folder"
)


@dataclass(frozen=True)
class Backbone:
    """A stock `EsmModel` without pooler, its vocabulary, and what identifies it.

    name: as the user gave it; hub_name: what stock libraries call it (None for the shipped one and local folders);
    fingerprint: of the checkpoint, one in every arithmetic; exact_fingerprint: of the weights as they were loaded, the
    key of what is cached from them.
    """

    name: str
    hub_name: str | None
    model: EsmModel
    vocabulary: Vocabulary
    fingerprint: str
    exact_fingerprint: str

    @property
    def width(self) -> int:
        """Length of a hidden state."""
        return self.model.config.hidden_size

    @property
    def num_layers(self) -> int:
        """Transformer layers."""
        return self.model.config.num_hidden_layers


def backbone_folder() -> Path:
    """Folder of the shipped backbone in Hugging Face format, for use with stock transformers and peft."""
    return SHIPPED_FOLDER


def load_backbone(name: str, *, dtype: torch.dtype, may_fetch: bool = True) -> Backbone:
    """Load a backbone on the CPU with its weights in `dtype`, in eval mode, nothing trainable.

    may_fetch: whether the hub may be asked for what its cache on this machine does not hold. Raises UserError where
    the name is unknown, the hub is out of reach, or the files are missing, damaged or of another kind of model.
    """
    source, is_folder = _source(name)
    with _as_user_error(name):
        config, vocabulary = _read_small_files(name, may_fetch=may_fetch)
        with _quiet_transformers():
            if is_folder:
                state = read_weights(Path(source), config, dtype=dtype)
                model = EsmModel.from_pretrained(
                    None, config=config, state_dict=state, add_pooling_layer=False, dtype=dtype
                )
            else:
                model = _from_hub(name, source, config, dtype=dtype, may_fetch=may_fetch)
    model.eval().requires_grad_(False)
    hub_name = None if is_folder else source
    model.name_or_path = hub_name or name  # peft writes it into adapter_config.json; a path of ours helps nobody
    return Backbone(
        name, hub_name, model, vocabulary, fingerprint(model, vocabulary), fingerprint(model, vocabulary, exact=True)
    )


def load_skeleton(name: str) -> Backbone:
    """A backbone without its weights, enough to count what it takes: only its config and vocabulary are read.

    Raises UserError as `load_backbone` does.
    """
    with _as_user_error(name):
        config, vocabulary = _read_small_files(name)
        model = outline(config)
    model.requires_grad_(False)
    model.name_or_path = name
    return Backbone(name, None, model, vocabulary, "", "")


def _from_hub(name: str, source: str, config: EsmConfig, *, dtype: torch.dtype, may_fetch: bool) -> EsmModel:
    model, report = EsmModel.from_pretrained(  # pyrefly: ignore[not-iterable]
        source, config=config, add_pooling_layer=False, dtype=dtype, use_safetensors=True, output_loading_info=True,
        local_files_only=not may_fetch,
    )  # fmt: skip
    missing = [key for key in report["missing_keys"] if not any(word in key for word in NOT_NEEDED)]
    if missing or report["mismatched_keys"]:
        raise UserError(
            f"backbone {name}: its weights do not match its config "
            f"(missing or of another shape: {', '.join(sorted(map(str, missing or report['mismatched_keys']))[:5])})"
        )
    return model


def _source(name: str) -> tuple[str, bool]:
    """Where a backbone comes from, and whether that is a folder rather than the hub."""
    source = str(SHIPPED_FOLDER) if name == SHIPPED else HUB_NAMES.get(name.lower(), name)
    return source, Path(source).is_dir()


def _read_small_files(name: str, *, may_fetch: bool = True) -> tuple[EsmConfig, Vocabulary]:
    """What is known of a backbone without its weights."""
    source, is_folder = _source(name)
    if not is_folder and (source.startswith((".", "/", "~")) or source.count("/") != 1):
        raise UserError(
            f"backbone {source}: no such folder, and no hub name; known short names: {SHIPPED}, {', '.join(HUB_NAMES)}"
        )
    paths = {
        file: Path(source) / file if is_folder else Path(hf_hub_download(source, file, local_files_only=not may_fetch))
        for file in ("config.json", "vocab.txt")
    }
    config = esm_config(paths["config.json"])
    return config, _read_vocabulary(name, paths["vocab.txt"], config)


def _read_vocabulary(name: str, path: Path, config: EsmConfig) -> Vocabulary:
    if path.stat().st_size > MOST_VOCABULARY_BYTES:
        raise UserError(f"backbone {name}: {path} is far too large for a vocabulary of residues")
    try:
        vocabulary = Vocabulary.from_tokens(path.read_text("utf-8").split())
    except UserError as error:
        raise UserError(f"backbone {name}: {error}") from error
    assert config.vocab_size is not None, "see esm_config"
    if len(vocabulary.tokens) > config.vocab_size:
        found, known = len(vocabulary.tokens), config.vocab_size
        raise UserError(f"backbone {name}: its vocabulary has {found} tokens, and its config knows {known}")
    return vocabulary


@contextmanager
def _as_user_error(name: str) -> Iterator[None]:
    """What goes wrong on reading a backbone's files, in words for the user."""
    try:
        yield
    except (OSError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, SafetensorError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"backbone {name}: cannot load it ({reason}); {OFFLINE_HINT}") from error


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep the load report to ourselves: an ESM-2 checkpoint always has a language-model head that we leave out."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()


def fingerprint(model: EsmModel, vocabulary: Vocabulary, *, exact: bool = False) -> str:
    """Digest of all that decides the hidden states: the vocabulary, the config's numbers, and of each tensor name,
    shape and 4,096 evenly spaced values.

    A sample, so that a model of billions of parameters takes seconds; training moves every value of a tensor. Values
    are compared as bfloat16, so that one checkpoint has one fingerprint in every arithmetic; with `exact` as they are.
    """
    config = {name: getattr(model.config, name) for name in DECISIVE}
    digest = hashlib.blake2b(json.dumps([vocabulary.tokens, config]).encode(), digest_size=16)
    for name, tensor in sorted(model.state_dict().items()):
        if "contact_head" in name:
            continue
        flat = tensor.detach().reshape(-1)
        sample = flat[:: max(1, len(flat) // 4096)].cpu()
        if not (exact or name.endswith(FREQUENCIES)):  # which are float32 in every arithmetic
            sample = sample.to(torch.bfloat16)
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""The backbone of one trial kept for the next, where nothing of it has been trained."""

import torch

from peftide.models.adapters import remove_adapters
from peftide.models.backbones import Backbone, load_backbone
from peftide.models.property_model import PropertyModel


class BackboneShelf:
    """Room for one backbone, with its weights on the device where the last trial left them."""

    def __init__(self) -> None:
        self._kept: tuple[Backbone, torch.dtype] | None = None

    def take(self, name: str, dtype: torch.dtype) -> Backbone:
        """The backbone that was put back, if it is the right one, else one freshly read; the shelf is empty then."""
        kept, self._kept = self._kept, None
        if kept is not None and (kept[0].name, kept[1]) == (name, dtype):
            return kept[0]
        return load_backbone(name, dtype=dtype)

    def put_back(self, model: PropertyModel, dtype: torch.dtype) -> None:
        """Keep a model's backbone without its adapters; the model is of no use any more.

        One whose own weights were trained is not kept.
        """
        if model.method != "full":
            remove_adapters(model.model)
            self._kept = (model.backbone, dtype)

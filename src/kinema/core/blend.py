"""A text between texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Blend:
    """What a model is given of several prompts, mixed with weights that sum to 1."""

    prompts: tuple[str, ...]
    weights: tuple[float, ...]


def blended(encoded: Sequence[dict[str, Tensor]], weights: Sequence[float]) -> dict[str, Tensor]:
    """The weighted sum of prompts' inputs; a token counts where it counts in one of them."""
    mixed = {}
    for name, first in encoded[0].items():
        each = [text[name] for text in encoded]
        if name.endswith("mask") or not first.is_floating_point():
            mixed[name] = torch.stack(each).amax(dim=0)
        else:
            mixed[name] = torch.stack([w * u for w, u in zip(weights, each, strict=True)]).sum(dim=0)
    return mixed

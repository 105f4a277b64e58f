"""Sight: a small network that sees which pixels of a frame are objects and how near everything is.

It looks at single frames, so that neither order nor rate of the frames matters. It is trained on rendered frames of
`kinema.world` only (`kinema train sight`) and measured again by `python -m kinema.claims.sight`. The network is that of
`kinema.layers.picture_net`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kinema.layers.picture_net import PictureConfig, PictureNet, resized
from kinema.layers.saved import read_network, write_network

METRES = 5.0  # the network's unit of nearness is one over this; what it gives is in 1 / metre


@dataclass(frozen=True, kw_only=True)
class SightConfig(PictureConfig):
    """Sizes of the network. Saved as `config.json` beside the weights."""

    size: int = 128
    channels: tuple[int, ...] = (24, 40, 64, 96)


class SightNet(PictureNet):
    """Frames (F, 3, H, W) in 0..1 -> (F, 2, H, W).

    The log odds that a pixel is of an object, and nearness in 1 / METRES (which may fall below 0 in the sky).
    """

    def __init__(self, config: PictureConfig) -> None:
        super().__init__(config, maps=2)


class Sight:
    """Sees objects and nearness. `Sight.load()` gives the network that ships with kinema."""

    def __init__(self, net: SightNet, card: dict[str, Any] | None = None) -> None:
        self.net = net.eval()
        self.config = net.config
        self.card = card or {}

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> Sight:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder.

        Without a path: the network inside the package.
        Raises: KinemaError when a file is missing, damaged or does not fit.
        """
        net, card = read_network("sight", path, lambda config: SightNet(SightConfig.from_dict(config)))
        return cls(nn.Module.to(net, device, memory_format=torch.channels_last), card)  # type: ignore[call-overload]

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (float16) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.config, self.card)

    @torch.inference_mode()
    def see(self, frames: Any) -> tuple[np.ndarray, np.ndarray]:
        """Frames (T, H, W, 3) uint8 -> how surely a pixel is of an object, 0..1, and nearness in 1 / metre, 0 or more.

        Both (T, H, W) float32. Raises: ValueError when the frames have another shape or type.
        """
        logit, near = torch.split(self.net.look(frames), 1, 1)
        maps = torch.cat([logit.sigmoid(), near.clamp_min(0) / METRES], 1)
        mask, nearness = resized(maps, np.shape(frames)[1:3]).cpu().float().unbind(1)
        return mask.clamp(0, 1).numpy(), nearness.numpy()

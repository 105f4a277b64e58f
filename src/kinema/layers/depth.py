"""How near everything is: a small network of kinema's own for single pictures.

It is trained on rendered frames of `kinema.world` only (`kinema train depth`) and measured again by
`python -m kinema.claims.depth`. Of real pictures it tells what lies in front of what, roughly, and no metres.
The network is that of `kinema.layers.picture_net`.
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

METRES = 5.0  # the network's unit of nearness is one over this


@dataclass(frozen=True, kw_only=True)
class DepthConfig(PictureConfig):
    """Sizes of the network. Saved as `config.json` beside the weights."""

    size: int = 160
    channels: tuple[int, ...] = (24, 40, 56, 72, 88)


class DepthNet(PictureNet):
    """Frames (F, 3, H, W) in 0..1 -> nearness (F, 1, H, W) in 1 / METRES, which may fall below 0 in the sky."""

    def __init__(self, config: PictureConfig) -> None:
        super().__init__(config, maps=1)


class Depth:
    """Sees nearness. `Depth.load()` gives the network that ships with kinema."""

    def __init__(self, net: DepthNet, card: dict[str, Any] | None = None) -> None:
        self.net = net.eval()
        self.card = card or {}

    @classmethod
    def load(cls, path: str | Path | None = None, device: str | torch.device = "cpu") -> Depth:
        """Reads `config.json`, `model.safetensors` and (if there) `card.json` of a folder.

        Without a path: the network inside the package.
        Raises: KinemaError when a file is missing, damaged or does not fit.
        """
        net, card = read_network("depth", path, lambda config: DepthNet(DepthConfig.from_dict(config)))
        return cls(nn.Module.to(net, device, memory_format=torch.channels_last), card)  # type: ignore[call-overload]

    def save(self, path: str | Path) -> None:
        """Writes config.json, model.safetensors (float16) and card.json into a folder, each whole or not at all."""
        write_network(path, self.net, self.net.config, self.card)

    def nearness(self, frames: Any) -> np.ndarray:
        """Frames (T, H, W, 3) uint8 -> (T, H, W) float32, one over the depth up to a scale; 0 in the sky.

        Frame by frame. Raises: ValueError when the frames have another shape or type.
        """
        maps = self.net.look(frames).clamp_min(0) / METRES
        found: np.ndarray = resized(maps, np.shape(frames)[1:3])[:, 0].cpu().float().numpy()
        return found

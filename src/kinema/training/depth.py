"""Training of the depth network (`kinema.layers.depth`) on frames rendered as they are needed.

The world tells how far away each pixel is. So that the network says something sensible of other pictures as well,
things are repainted, cards put between them, pictures recoloured, cut out and made worse (`training/repaint.py`,
`training/degrade.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.layers.depth import METRES, Depth, DepthConfig, DepthNet
from kinema.layers.picture_net import resized
from kinema.training.degrade import degrade
from kinema.training.frames import FrameSettings, exposed, mirrored, scenes
from kinema.training.judge import TEST_SEED, TRAIN_SEED
from kinema.training.repaint import recoloured, repainted, with_cards
from kinema.training.trainer import Report, Trainer

PARTS = ("near", "relative", "edges")  # of the loss
SCALES = 4  # at which edges are compared, each half as large
SHEET = 6  # frames of each curriculum on a sample sheet


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Sizes of the network, as in `DepthConfig`."""

    size: int = 160
    channels: tuple[int, ...] = (24, 40, 56, 72, 88)


@dataclass(frozen=True, kw_only=True)
class DepthSettings(FrameSettings):
    """Section `depth` of a recipe."""

    net: NetSettings = field(default_factory=NetSettings)
    zoom: float = 2.0  # at most; a part of the picture, one over this to all of each edge, is cut out and enlarged
    painted_share: float = 0.4  # share of clips whose things get other colours and patterns, 0..1
    carded_share: float = 0.4  # share of clips in which flat cards stand about, 0..1
    coloured_share: float = 0.7  # share of clips with other hues, 0..1
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_weights(self.weights, PARTS)
        if not 1 <= self.zoom <= 8:
            raise ValueError(f"zoom is {self.zoom}; use 1 to 8")


class DepthStage:
    """What the trainer needs to know about the depth network."""

    def __init__(self, settings: DepthSettings) -> None:
        self.settings = settings
        self.config = DepthConfig(**vars(settings.net))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.trainer.seed)
            self.net = DepthNet(self.config)
        nn.Module.to(self.net, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"depth": self.net}

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Some frames of clips with the truth about them, see `training.frames.exposed`."""
        return self.settings.batch(step, generator, self.net.out.weight.device)

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Weighted sum of the PARTS.

        near: |guess - truth|. relative: the same after mean and mean deviation of the clip have been taken out, the
        loss that forgets scale and shift of "Towards Robust Monocular Depth Estimation", 2019, arXiv:1907.01341, with
        the mean in the place of its median, and one scale and shift for all frames of a clip: depth that pumps from
        frame to frame is an error. edges: the differences between neighbours of the latter, at four scales.
        """
        with torch.autocast(generator.device.type, enabled=False):  # pictures are made worse in full precision
            x, near = self.prepare(batch, generator)
        guess = torch.unflatten(self.net(x.flatten(0, 1)).float()[:, 0], 0, x.shape[:2])
        off = standardised(guess) - standardised(near)
        parts = {"near": (guess - near).abs().mean(), "relative": off.abs().mean(), "edges": unevenness(off)}
        total = torch.stack([self.settings.weights[name] * value for name, value in parts.items()]).sum()
        return total, {name: value.detach() for name, value in parts.items()}

    def prepare(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """What the network sees, (B, K, 3, H, W), and its answers (B, K, H, W) in 1 / METRES."""
        s = self.settings
        x = batch["frames"].permute(0, 1, 4, 2, 3).float() / 255
        x = repainted(x, batch["thing"], generator, s.painted_share)
        x, near = with_cards(x, batch["near"], generator, s.carded_share)
        x = torch.cat([x, METRES * near[:, :, None]], 2)
        step = self.config.multiple
        height, width = (max(step, step * round(edge / step)) for edge in x.shape[-2:])  # of several sizes, as drawn
        x = torch.unflatten(resized(x.flatten(0, 1), (height, width)), 0, x.shape[:2])
        x = mirrored(enlarged(x, generator, s.zoom), generator)
        picture = degrade(recoloured(x[:, :, :3], generator, s.coloured_share), generator, s.worse_share, bend=False)
        return picture, x[:, :, 3]

    def sheet(self, path: Path) -> None:
        """Test frames as the network gets to see them, beside what it makes of them and what is true."""
        from PIL import Image

        columns, device, size = [], self.net.out.weight.device, self.config.size
        for curriculum in ("first", "full"):
            specs = scenes(TEST_SEED - 10, SHEET, curriculum, (size, size), "all")
            batch = exposed(specs, torch.full((SHEET, 1), 18), device)
            x, near = self.prepare(batch, torch.Generator(device).manual_seed(0))
            guess = self.net(x[:, 0]).float()
            grey = [plane.expand(-1, 3, -1, -1) / near.amax() for plane in (guess, near)]
            columns.append(torch.cat([x[:, 0], *grey], 3))  # (N, 3, H, 3W)
        pixels = torch.cat(columns, 3).clamp(0, 1).permute(0, 2, 3, 1).flatten(0, 1)
        Image.fromarray(np.ascontiguousarray((pixels * 255).round().byte().cpu().numpy())).save(path)


def enlarged(x: Tensor, generator: torch.Generator, most: float) -> Tensor:
    """Clips (B, K, 4, H, W), of each a part somewhere in the picture enlarged to its size, `most` times at most.

    What looks z times as large seems z times as near, so the fourth channel, nearness, is multiplied by z.
    """
    b, k, _, h, w = x.shape
    zoom = most ** torch.rand(b, 1, generator=generator, device=x.device)
    place = (2 * torch.rand(b, 2, generator=generator, device=x.device) - 1) * (1 - 1 / zoom)  # -1..1 is a picture
    frame = torch.cat([torch.diag_embed((1 / zoom).expand(-1, 2)), place[..., None]], 2)  # (B, 2, 3)
    grid = F.affine_grid(frame.repeat_interleave(k, 0), [b * k, 4, h, w], align_corners=False)
    found = F.grid_sample(x.flatten(0, 1), grid, padding_mode="border", align_corners=False)
    found = torch.unflatten(found, 0, (b, k))
    return torch.cat([found[:, :, :3], found[:, :, 3:] * zoom[..., None, None, None]], 2)


def standardised(near: Tensor) -> Tensor:
    """Clips (B, K, H, W) with mean 0 and mean absolute value 1, each by one shift and one scale."""
    near = near - near.mean((1, 2, 3), keepdim=True)
    return near / near.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-3)


def unevenness(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours of maps (B, K, H, W), summed over SCALES, each half as large."""
    total = x.new_zeros(())
    for _ in range(SCALES):
        total = total + x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()
        x = F.avg_pool2d(x, 2)
    return total


def card_of(stage: DepthStage, clips: int, steps: int, hardware: str) -> dict[str, Any]:
    """What the network was trained on. How well it sees is added by `python -m kinema.claims.depth --card`."""
    s = stage.settings
    mixed = f"curricula 'first' and 'full' (share {s.full_share}), training split, seeds from {TRAIN_SEED}"
    return {
        "what": "sees how near everything is in single pictures; up to scale, and no metres, in any but rendered ones",
        "data": f"rendered frames only, {mixed}",
        "recipe": "depth",
        "frames": clips * s.frames,
        "steps": steps,
        "hardware": hardware,
        "parameters": sum(p.numel() for p in stage.net.parameters()),
    }


def train_depth(
    settings: DepthSettings, folder: Path, out: Path | None = None, device: str = "cpu", hardware: str = ""
) -> Report:
    """Train (or resume) in `folder`; when it is finished, write the averaged weights and their card.

    They go to `out`, or to the folder `depth` of `folder`. An interrupted training writes none, but can be resumed.
    """
    stage = DepthStage(settings)

    def write(report: Report) -> None:
        card = {**card_of(stage, report.clips, report.step, hardware), "seconds": round(report.seconds)}
        Depth(stage.net, card).save(out or folder / "depth")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)

"""Training of the sight (`kinema.metrics.sight`) on frames rendered as they are needed; never on generated video.

The world tells for each pixel whether it is of an object, and how far away it is. Frames of the training split only,
mirrored half of the time, bent together with their answers, and made worse (`training/degrade.py`).
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

from kinema.layers.picture_net import resized
from kinema.metrics.sight import METRES, Sight, SightConfig, SightNet
from kinema.training.degrade import degrade, wobble
from kinema.training.frames import FrameSettings, exposed, mirrored, scenes
from kinema.training.judge import TEST_SEED, TRAIN_SEED
from kinema.training.trainer import Report, Trainer

PARTS = ("mask", "overlap", "near", "near_object")  # of the loss
BEND = 2.0  # pixels, the most by which outlines are bent


@dataclass(frozen=True, kw_only=True)
class NetSettings:
    """Sizes of the network, as in `SightConfig`."""

    size: int = 128
    channels: tuple[int, ...] = (24, 40, 64, 96)


@dataclass(frozen=True, kw_only=True)
class SightSettings(FrameSettings):
    """Section `sight` of a recipe."""

    net: NetSettings = field(default_factory=NetSettings)
    bent_share: float = 0.5  # share of clips that are bent, 0..1
    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 1.0))

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_weights(self.weights, PARTS)


class SightStage:
    """What the trainer needs to know about the sight."""

    def __init__(self, settings: SightSettings) -> None:
        self.settings = settings
        self.config = SightConfig(**vars(settings.net))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.trainer.seed)
            self.net = SightNet(self.config)
        nn.Module.to(self.net, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"sight": self.net}

    def batch(self, step: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Frames (B, K, H, W, 3) uint8, which pixels are of objects (B, K, H, W) bool, nearness in 1 / METRES."""
        return _facts(self.settings.batch(step, generator, self.net.out.weight.device))

    def loss(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, dict[str, float | Tensor]]:
        """Weighted sum of the PARTS; the overlap and the error of nearness are logged."""
        with torch.autocast(generator.device.type, enabled=False):  # pictures are made worse in full precision
            x, mask, near = self.prepare(batch, generator)
        logit, guess = self.net(x).float().unbind(1)
        sure, away = logit.sigmoid(), (guess - near).abs()
        both = (sure * mask).sum((1, 2))
        # Soft Dice, 1 - (2 |A B| + 1) / (|A| + |B| + 1): small objects count as much as large ones.
        overlap = 1 - (2 * both + 1) / (sure.sum((1, 2)) + mask.sum((1, 2)) + 1)
        parts = {
            "mask": F.binary_cross_entropy_with_logits(logit, mask),
            "overlap": overlap.mean(),
            "near": away.mean(),
            "near_object": (away * mask).sum() / mask.sum().clamp_min(1),
        }
        total = torch.stack([self.settings.weights[name] * value for name, value in parts.items()]).sum()
        seen, there = sure > 0.5, mask > 0.5
        iou = (seen & there).sum() / (seen | there).sum().clamp_min(1)
        return total, {**{name: value.detach() for name, value in parts.items()}, "iou": iou}

    def prepare(self, batch: Mapping[str, Any], generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """What the network sees, (F, 3, H, W), and its answers (F, H, W): mask in 0..1 and nearness."""
        s, device = self.settings, batch["frames"].device
        x = batch["frames"].permute(0, 1, 4, 2, 3).float() / 255
        b, k, _, height, width = x.shape
        x = torch.cat([x, batch["mask"][:, :, None].float(), batch["near"][:, :, None]], 2)
        x = torch.unflatten(resized(x.flatten(0, 1), self.config.shape(height, width)), 0, (b, k))
        x = mirrored(x, generator)
        bent = (torch.rand(b, generator=generator, device=device) < s.bent_share).nonzero().flatten()
        if len(bent):
            pixels = BEND * torch.rand(len(bent), 1, 1, 1, 1, generator=generator, device=device)
            x = x.index_copy(0, bent, wobble(x[bent], pixels, generator))
        picture = degrade(x[:, :, :3], generator, s.worse_share, bend=False)
        mask, near = x[:, :, 3].flatten(0, 1), x[:, :, 4].flatten(0, 1)
        return picture.flatten(0, 1).contiguous(memory_format=torch.channels_last), mask.clamp(0, 1), near

    def sheet(self, path: Path) -> None:
        """Test frames as the network gets to see them, beside what it makes of them and what is true."""
        from PIL import Image

        columns, device = [], self.net.out.weight.device
        for curriculum in ("first", "full"):
            specs = scenes(TEST_SEED - 10, 8, curriculum, (128, 128), "all")
            batch = _facts(exposed(specs, torch.full((8, 1), 18), device))
            x, mask, near = self.prepare(batch, torch.Generator(device).manual_seed(0))
            logit, guess = self.net(x).float().unbind(1)
            planes = (logit.sigmoid(), mask, guess, near)
            grey = [plane[:, None].expand(-1, 3, -1, -1) for plane in planes]
            columns.append(torch.cat([x.float(), *grey], 3))  # (8, 3, H, 5W)
        pixels = torch.cat(columns, 3).clamp(0, 1).permute(0, 2, 3, 1).flatten(0, 1)
        Image.fromarray(np.ascontiguousarray((pixels * 255).round().byte().cpu().numpy())).save(path)


def _facts(drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Frames of `training.frames` with what the sight is to see in them."""
    return {"frames": drawn["frames"], "mask": drawn["thing"] > 0, "near": METRES * drawn["near"]}


def card_of(stage: SightStage, clips: int, steps: int, hardware: str) -> dict[str, Any]:
    """What the sight was trained on. How well it sees is added by `python -m kinema.claims.sight --card`."""
    s = stage.settings
    mixed = f"curricula 'first' and 'full' (share {s.full_share}), training split, seeds from {TRAIN_SEED}"
    return {
        "what": "sees which pixels are of objects, and nearness, in frames of kinema.world",
        "data": f"rendered frames only, {mixed}",
        "frames": clips * s.frames,
        "steps": steps,
        "hardware": hardware,
        "parameters": sum(p.numel() for p in stage.net.parameters()),
    }


def train_sight(
    settings: SightSettings, folder: Path, out: Path | None = None, device: str = "cpu", hardware: str = ""
) -> Report:
    """Train (or resume) in `folder`; when it is finished, write the averaged weights and their card.

    They go to `out`, or to the folder `sight` of `folder`. An interrupted training writes none, but can be resumed.
    """
    stage = SightStage(settings)

    def write(report: Report) -> None:
        card = {**card_of(stage, report.clips, report.step, hardware), "seconds": round(report.seconds)}
        Sight(stage.net, card).save(out or folder / "sight")

    return Trainer(stage, settings.trainer, folder, device).run_and_write(write)

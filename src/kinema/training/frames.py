"""Single frames of rendered clips with the truth about them, drawn as they are needed: what sight and depth learn from.

Frames of the training split only. A batch has one curriculum and one shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from kinema.training.judge import TRAIN_SEED
from kinema.training.trainer import TrainerSettings
from kinema.world.curricula import get_curriculum
from kinema.world.motion import simulate
from kinema.world.render import render
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec, SceneState


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """Which frames are drawn, and how often they are made worse."""

    trainer: TrainerSettings
    full_share: float = 0.3  # share of batches from the curriculum "full", 0..1; the others are from "first"
    frames: int = 2  # frames of each clip, one to three frames apart
    shapes: tuple[tuple[int, int], ...] = ((128, 128),)  # rows and columns that are rendered, one for each batch
    empty_share: float = 0.03  # share of clips without an object, 0..1
    worse_share: float = 0.6  # share of clips made worse, 0..1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; use 0 to 1")
        if not self.shapes or any(min(shape) < 8 for shape in self.shapes):
            raise ValueError(f"shapes is {self.shapes}; use rows and columns of at least 8 pixels")

    def check_weights(self, weights: Mapping[str, float], parts: tuple[str, ...]) -> None:
        """Raises: ValueError when not exactly the parts of the loss have a weight."""
        if set(weights) != set(parts):
            raise ValueError(f"weights has {', '.join(weights)}; use exactly {', '.join(parts)}")

    def batch(self, step: int, generator: torch.Generator, device: torch.device) -> dict[str, Tensor]:
        """Some frames of clips of one curriculum and shape, with the truth about them; see `exposed`."""
        count = self.trainer.batch_size

        def lot(share: float, *shape: int) -> Tensor:
            return torch.rand(shape, generator=generator) < share

        curriculum = "full" if lot(self.full_share) else "first"
        shape = self.shapes[int(torch.randint(len(self.shapes), (), generator=generator))]
        specs = scenes(TRAIN_SEED + step * count, count, curriculum, shape)
        empty = lot(self.empty_share, count).tolist()
        specs = [replace(x, objects=(), events=()) if e else x for x, e in zip(specs, empty, strict=True)]
        stride = int(torch.randint(1, 4, (), generator=generator))  # near in time: what is smeared comes from before
        last = max(1, specs[0].num_frames - (self.frames - 1) * stride)
        keep = torch.randint(last, (count, 1), generator=generator) + stride * torch.arange(self.frames)
        keep = keep.clamp_max(specs[0].num_frames - 1)
        return exposed(specs, keep, device)


def scenes(first: int, count: int, curriculum: str, shape: tuple[int, int], split: Any = "train") -> list[SceneSpec]:
    """Scenes of `count` seeds from `first` on, composed for a picture of this shape (rows, columns)."""
    part = replace(get_curriculum(curriculum), height=shape[0], width=shape[1])
    return [sample_spec(seed, part, split) for seed in range(first, first + count)]


def frames_of(state: SceneState, keep: Tensor) -> SceneState:
    """The state of some frames of each clip, keep (B, K)."""
    rows = torch.arange(len(keep), device=keep.device)[:, None]
    moving = ("centre", "rotation", "size", "colour", "opacity", "pose", "intrinsics", "world_to_camera")
    return replace(state, **{name: getattr(state, name)[rows, keep] for name in moving})


def exposed(specs: list[SceneSpec], keep: Tensor, device: torch.device | str = "cpu") -> dict[str, Tensor]:
    """Frames (B, K, H, W, 3) uint8, whose each pixel is and how near, both (B, K, H, W).

    thing: -1 the sky, 0 the ground, i + 1 object i. near: 1 / metres, 0 in the sky.
    """
    state, _ = simulate(specs)
    drawn = render(frames_of(state, keep).to(device))
    return {"frames": drawn.frames, "thing": drawn.mask, "near": 1 / drawn.depth}


def mirrored(x: Tensor, generator: torch.Generator) -> Tensor:
    """Clips (B, K, C, H, W), half of them with left and right changed."""
    flip = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(flip[:, None, None, None, None], x.flip(-1), x)

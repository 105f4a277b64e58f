"""Clips that a technique is given by name, as the latents of its run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.core.keep import in_frames
from kinema.pictures import open_picture as open_picture
from kinema.video import open_clip as open_clip

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.run import Run


def clip_latents(run: Run, source: str, name: str, least: int = 1) -> Tensor:
    """Clean latents (1, C, T, H, W) of a clip, of the size and length of the run's own.

    source: a video, a folder of pictures, or a data: address. Frames are stretched to the size, and taken evenly over
    the clip where it is longer or shorter; the first stands also for what a model puts ahead of a clip.
    Raises: KinemaError, naming `name`, when there is none, it cannot be read, or has less than `least` frames.
    """
    if not source:
        raise KinemaError(f"{name} is empty; give a video, a folder of pictures, or a data: address")
    frames = open_clip(source, name)
    if len(frames) < least:
        raise KinemaError(f"{name} has {in_frames(len(frames))}; use a clip of {least} or more")
    at = np.linspace(0, len(frames) - 1, run.conditions.num_frames).round().astype(int)
    latents = encoded(run, frames[at])
    ahead = run.conditions.shape[2] - latents.shape[2]
    return torch.cat([latents[:, :, :1].expand(-1, -1, ahead, -1, -1), latents], dim=2)


def encoded(run: Run, frames: np.ndarray) -> Tensor:
    """Clean latents (1, C, T, H, W) of frames (n, H', W', 3) uint8, stretched to the size of the run."""
    size = tuple(n * run.backbone.pixels_per_cell for n in run.conditions.shape[3:])
    return run.backbone.encode(sized(as_video(torch.from_numpy(np.ascontiguousarray(frames))[None]), size))


def sized(video: Tensor, size: tuple[int, ...]) -> Tensor:
    """Video (B, 3, T, H, W) in -1..1 stretched to `size`, rows and columns in pixels."""
    if tuple(video.shape[3:]) == size:
        return video
    frames = video.transpose(1, 2).flatten(0, 1)
    resized = torch.nn.functional.interpolate(frames, size, mode="bilinear", antialias=True)
    return resized.reshape(video.shape[0], -1, 3, *size).transpose(1, 2).clamp(-1, 1)

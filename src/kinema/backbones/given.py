"""Frames that are given to a model: pictures, or parts of a clip, at their places in the video that is made.

A model with a time per frame gets them as clean latent frames. Its autoencoder is causal: what stands for a frame
depends on the frames before it. A part of a clip is therefore encoded behind the frames of the clip before it, where
the clip has them all; otherwise, and for a single last picture, behind its own first frame, which stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kinema.core import keep
from kinema.core.errors import KinemaError
from kinema.pictures import open_picture
from kinema.video import open_clip

if TYPE_CHECKING:
    from kinema.backbones.protocol import Conditions
    from kinema.backbones.wan import WanBackbone
    from kinema.request import Request


@dataclass(frozen=True, eq=False)
class Given:
    """A part of a batch's videos that is given."""

    part: keep.Kept
    frames: list[list[Any]]  # for each sample the pictures that are encoded together, those of the part the last ones


def given(requests: Sequence[Request], frames: int, frames_per_latent: int) -> list[Given]:
    """What the requests of a batch give of their videos of `frames` frames, in order.

    Raises: KinemaError when a picture or clip cannot be read, keeps frames that are not there, or not those of the
    other requests.
    """
    clips = [open_clip(r.video) for r in requests if r.video is not None]
    if not clips:
        first = [[open_picture(r.image, "image")] for r in requests if r.image is not None]
        last = [open_picture(r.last_image, "last_image") for r in requests if r.last_image is not None]
        found = [Given(keep.Kept(0, 1), first)] if first else []
        if last and frames > 1:
            # A latent frame behind the first stands for several frames: the picture stands still in it.
            still = [[picture] * (1 + frames_per_latent) for picture in last]
            found.append(Given(keep.Kept(frames - frames_per_latent, frames), still))
        return found
    parts = [keep.kept(r.keep, frames, len(clip)) for r, clip in zip(requests, clips, strict=True)]
    if any(other != parts[0] for other in parts):
        raise KinemaError("the requests of a batch keep other frames, or of clips of other lengths; make them equal")
    return [_of_clips(part, clips) for part in parts[0]]


def _of_clips(part: keep.Kept, clips: Sequence[np.ndarray]) -> Given:
    """A part of clips (T, H, W, 3) uint8."""
    first, stop = part.first + part.shift, part.stop + part.shift
    if part.shift >= 0:  # they have all frames before it
        return Given(part, [list(clip[part.shift : stop]) for clip in clips])
    return Given(part, [[clip[first], *clip[first:stop]] for clip in clips])


def condition(
    backbone: WanBackbone, conditions: Conditions, requests: Sequence[Request], size: tuple[int, int, int]
) -> None:
    """Enters what is given as clean latent frames. size: frames, height and width of the video, pixels.

    Raises: KinemaError for parts that cut a latent frame in two, and places that the model has not learned.
    """
    frames, height, width = size
    known = torch.zeros(conditions.shape, device=backbone.device)
    there = torch.zeros(conditions.shape[2], dtype=torch.bool, device=backbone.device)
    found = given(requests, frames, backbone.frames_per_latent)
    places = [keep.latent_frames(each.part, backbone.frames_per_latent) for each in found]
    for first, stop in places:
        there[first:stop] = True
    _check_learned(backbone, there.tolist())
    for each, (first, stop) in zip(found, places, strict=True):
        latents = backbone.encode(pixels(backbone, each.frames, height, width))
        known[:, :, first:stop] = latents[:, :, first - stop :]
    conditions.known, conditions.known_frames = known, there[None, None, :, None, None]


def _check_learned(backbone: WanBackbone, there: Sequence[bool]) -> None:
    learned = backbone.learned_frames
    asked = keep.pattern(there)
    if asked not in learned and "any" not in learned:
        raise KinemaError(
            f"model {backbone.name!r} has learned clips whose clean latent frames are {_named(learned)}; "
            f"asked for is {_named([asked])}"
        )


def _named(patterns: Sequence[str]) -> str:
    return ", ".join(pattern.replace("_", " ") for pattern in patterns)


def pixels(backbone: WanBackbone, pictures: Sequence[Sequence[Any]], height: int, width: int) -> Tensor:
    """Pictures of each sample, (B, 3, n, height, width) in -1..1; stretched to the size, as diffusers does."""
    from diffusers.video_processor import VideoProcessor

    prepare = VideoProcessor(vae_scale_factor=backbone.pixels_per_cell).preprocess
    samples = [torch.cat([prepare(open_picture(p), height=height, width=width) for p in each]) for each in pictures]
    return torch.stack(samples).transpose(1, 2).to(backbone.device)

"""Going on from frames that are there: those of the chunk before, or those of a clip of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from kinema.core import keep
from kinema.core.errors import KinemaError
from kinema.core.footage import Footage
from kinema.video import Video, clip_address, open_clip

if TYPE_CHECKING:
    from kinema.request import Request


def check(backbone: Any) -> None:
    """Raises: KinemaError for a model that takes no clean frames."""
    if not backbone.takes_video:
        raise KinemaError(
            f"model {backbone.name!r} takes no frames that stay, so it cannot go on from some; use 'mini', one like "
            "Wan 2.2 TI2V, or VACE"
        )


def learned(backbone: Any, frames: int) -> bool:
    """Whether the model can be given so many first frames, 1 and whole latent frames."""
    if not backbone.takes_video or not backbone.time_per_frame:
        return bool(backbone.takes_video)
    latents = 1 + (frames - 1) // backbone.frames_per_latent
    return bool({"any", keep.pattern([True] * latents + [False])} & set(backbone.learned_frames))


def after(backbone: Any, request: Request, frames: Tensor) -> Request:
    """The request, with frames (n, H, W, 3) uint8 that are its first ones. They lose nothing on the way."""
    check(backbone)
    return request.changed(video=clip_address(frames.numpy()), keep=f"0:{len(frames)}")


def opening(backbone: Any, request: Request) -> Footage:
    """The clip of a request as what its video begins with.

    Its size is that of the video, stretched as pictures that are given are; of another rate than the video's it gets
    the nearest frames. A `data:` address has no rate, and the video's is taken.
    """
    from kinema.pictures import open_picture

    check(backbone)
    defaults = backbone.defaults
    height, width, fps = (getattr(request, name) or getattr(defaults, name) for name in ("height", "width", "fps"))
    assert request.video is not None
    rateless = request.video.startswith("data:")
    clip = Video(open_clip(request.video), fps=fps) if rateless else Video.load(request.video)
    frames = clip.frames[at_rate(len(clip), clip.fps, fps)]
    if frames.shape[1:3] != (height, width):
        from diffusers.video_processor import VideoProcessor

        stretch = VideoProcessor(vae_scale_factor=backbone.pixels_per_cell).resize
        frames = np.stack([np.asarray(stretch(open_picture(f, "video"), height, width)) for f in frames])
    return Footage(np.ascontiguousarray(frames), fps=fps, sound=clip.sound, sample_rate=clip.sample_rate)


def at_rate(count: int, fps: float, wanted: float) -> np.ndarray:
    """Which of `count` frames are shown at another rate: for each time the frame that is nearest."""
    times = np.arange(max(1, round(count * wanted / fps))) / wanted
    return np.floor(times * fps + 0.5).astype(int).clip(max=count - 1)

"""Which of some texts fits a clip: the face of Diffusion Classifier, for clips of any size and length."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.backbones.protocol import Backbone
    from kinema.understanding.diffusion_classifier import Classification, Tell
    from kinema.video import Video


def classify(
    video: str | os.PathLike[str] | np.ndarray | Video,
    texts: Sequence[str],
    *,
    model: str | os.PathLike[str] | Backbone = "mini",
    seconds: tuple[float, float] | None = None,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    device: str | None = None,
    dtype: str | None = None,
    progress: Tell | None = None,
    **settings: Any,
) -> Classification:
    """Orders texts by how well they fit a clip, by the error with which a model denoises it under each of them.

    `video` is a path, a `Video` or an array (T, H, W, 3) uint8. It is stretched to the size of the model and frames are
    taken evenly from it, the first (and last) as a picture where a model wants one. `num_frames`, `height` and `width`
    are other sizes than the model's own. `seconds` is the part of the clip that counts, from and to. `settings` are
    fields of `DiffusionClassifier`: samples, weighting, l1, eliminate, temperature, seed. `progress(done, count)` is
    called after each call of the network.
    Keep the texts alike: a longer one changes the error by itself. Cost: samples x texts calls, without guidance.
    Raises: KinemaError, one sentence, before the first call, for anything that cannot be done.
    """
    from kinema.backbones.load import load
    from kinema.core.footage import as_video
    from kinema.request import Request
    from kinema.understanding.diffusion_classifier import DiffusionClassifier
    from kinema.video import Video, clip_address

    method = DiffusionClassifier(**settings)
    Request(num_frames=num_frames, height=height, width=width, seed=method.seed)  # which refuses what is out of range
    if isinstance(texts, str) or any(not text.strip() for text in texts):
        raise KinemaError("texts are one text, or one of them is empty; give a list of texts to choose between")
    clip = video if isinstance(video, Video) else Video(video) if isinstance(video, np.ndarray) else Video.load(video)
    method.check(texts)
    if isinstance(model, str | os.PathLike):
        backbone: Any = load(model, device, dtype)
    elif device is None and dtype is None:
        backbone = model
    else:
        raise KinemaError("the model is loaded already; give device and dtype to kinema.load")
    if not backbone.reads_text:
        raise KinemaError(f"model {backbone.name!r} reads no words, so that no text fits better; take one that does")
    d = backbone.defaults
    count = num_frames or (1 if len(clip) == 1 else d.num_frames)
    frames = resized(clip.frames, count, height or d.height, width or d.width)
    pictures = {}
    if backbone.needs_image:
        pictures["image"] = clip_address(frames[:1].numpy())
        if backbone.takes_last_image:
            pictures["last_image"] = clip_address(frames[-1:].numpy())
    sizes = dict(num_frames=count, height=height, width=width, num_inference_steps=1)
    requests = [Request(prompt=text, **pictures, **sizes) for text in texts]
    x0 = backbone.encode(as_video(frames[None]))
    padding = x0.shape[2] - ((len(frames) - 1) // backbone.frames_per_latent + 1)  # before the clip's first, not shown
    if seconds is not None and seconds[1] > clip.seconds:
        raise KinemaError(f"seconds are {seconds[0]:g} to {seconds[1]:g}, and the clip ends at {clip.seconds:g}")
    times = np.linspace(0, len(clip) - 1, count).round() / clip.fps
    weight = counted(times, seconds or (0.0, math.inf), backbone.frames_per_latent, padding)
    return method.classify(backbone, requests, x0, weight, progress)


def resized(frames: np.ndarray, count: int, height: int, width: int) -> Tensor:
    """Frames (T, H, W, 3) uint8, evenly taken from first to last and stretched: (count, height, width, 3) uint8."""
    import torch
    import torch.nn.functional as F

    x = torch.as_tensor(np.ascontiguousarray(frames))
    x = x[torch.linspace(0, len(x) - 1, count).round().long()]
    if x.shape[1:3] == (height, width):
        return x
    x = F.interpolate(x.permute(0, 3, 1, 2).float(), (height, width), mode="bilinear", antialias=True)
    return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def counted(times: np.ndarray, seconds: tuple[float, float], frames_per_latent: int, padding: int) -> Tensor:
    """Weights (T,) of latent frames: 1 for those that stand for a frame whose time lies in `seconds`, else 0.

    times: of the frames, seconds. Raises: KinemaError when no frame lies there.
    """
    import torch

    begin, end = seconds
    inside = (times >= begin) & (times <= end)
    if not inside.any():
        raise KinemaError(f"seconds are {begin:g} to {end:g}, and the clip goes from 0 to {times[-1]:g}; choose a part")
    latent = -(-np.arange(len(times)) // frames_per_latent) + padding  # frame 0 has one of its own
    weight = torch.zeros(int(latent[-1]) + 1)
    weight[torch.as_tensor(latent[inside])] = 1.0
    return weight

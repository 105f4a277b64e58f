"""Parts of a clip that a model sees one at a time, and how what it says of them becomes one answer for the clip."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Technique


@dataclass(frozen=True)
class Window:
    """Latent frames `first` to `stop` - 1 of the latents of a run.

    The first `lead` of them are seen and their answer is thrown away. A causal autoencoder's first latent frame stands
    for one picture, all others for several, and a model has never seen one of the others in its place; with a lead of
    one, a window in the middle of a clip keeps every frame whose answer counts out of that place.
    """

    first: int
    stop: int
    lead: int = 0

    @property
    def counted(self) -> range:
        """The frames whose answer counts."""
        return range(self.first + self.lead, self.stop)

    def of(self, x: Tensor) -> Tensor:
        """Its frames of latents x (B, C, T, H, W)."""
        return x[:, :, self.first : self.stop]


def windows(frames: int, size: int, stride: int, lead: int = 0, alike: bool = False) -> list[Window]:
    """Windows of `size` counted frames, one every `stride`, over a clip of `frames`.

    The last one is pinned to the end, so that no frame is left out. Every window but the first sees `lead` frames more
    ahead of its own; with `alike` these are of its own, so that all windows see as many. A clip that is not longer than
    `size` is one window.
    """
    if alike:
        first, *others = windows(frames - lead, size - lead, min(stride, size - lead))
        return [Window(0, first.stop + lead), *(Window(w.first, w.stop + lead, lead) for w in others)]
    if not 1 <= stride <= size:
        raise ValueError(f"windows of {size} every {stride} leave frames out")
    starts = [*range(0, max(frames - size, 0), stride), max(frames - size, 0)]
    return [Window(max(s - lead, 0), min(s + size, frames), min(s, lead)) for s in starts]


def window_sizes(
    run: Run, technique: Technique, size: int | None, stride: int | None, fraction: float
) -> tuple[int, int]:
    """The size and the stride of the windows of `technique` over the clip of a run, checked; called at `start`.

    size, stride: latent frames; None is the length that the model was trained on, and `fraction` of the size.
    Raises: KinemaError, one sentence, for windows that the model cannot see, or that leave frames out.
    """
    backbone, frames = run.backbone, run.conditions.shape[2]
    trained = (backbone.defaults.num_frames - 1) // backbone.frames_per_latent + 1
    step, name = backbone.patch[0], technique.name
    size = min(-(-trained // step) * step if size is None else size, frames)
    stride = max(step, round(size * fraction / step) * step) if stride is None else stride
    if size < 1 or not 1 <= stride <= size:
        raise KinemaError(f"{name} has windows of {size} latent frames every {stride}; use a stride of 1 to the size")
    if size % step or stride % step:
        raise KinemaError(
            f"{name} has windows of {size} latent frames every {stride}, and model {backbone.name!r} takes them in "
            f"groups of {step}; use multiples of that"
        )
    return size, stride


def windows_of(
    run: Run, technique: Technique, size: int | None, stride: int | None, fraction: float, alike: bool = False
) -> list[Window]:
    """The windows in which `technique` lets the model of a run see its clip, as `window_sizes` checks them.

    alike: see `windows`.
    Raises: KinemaError, one sentence, also for a model that makes sound along with the clip.
    """
    backbone, companion = run.backbone, run.conditions.companion
    size, stride = window_sizes(run, technique, size, stride, fraction)
    if companion is not None:
        raise KinemaError(
            f"{technique.name} shows model {backbone.name!r} its clip in windows, and the {companion.name} it "
            "makes along with the clip cannot be cut that way"
        )
    lead = backbone.patch[0] if backbone.frames_per_latent > 1 else 0
    return windows(run.conditions.shape[2], size, stride, min(lead, size - 1) if alike else lead, alike)


def triangle(length: int) -> Tensor:
    """Weights 1, 2, ... up to the middle and down again, (length,) float32: least at the ends, where windows meet."""
    ramp = torch.arange(1, length + 1)
    return torch.minimum(ramp, ramp.flip(0)).float()


def fuse(seen: Iterable[tuple[Window, Tensor]], frames: int, weights: Sequence[Tensor] | None = None) -> Tensor:
    """The weighted mean of what a model said of windows, over the frames of the clip.

    seen: a window and its answer (B, C, T', H, W) each. weights: for each window those of its counted frames, (n,) or
    (B, n); None is all the same. In a flow, the mean of velocities is that of clean estimates and of Euler steps with
    the same weights ("Gen-L-Video", 2023, arXiv:2305.18264, eq. 8, is its minimiser), and leaves one history to the
    solver.
    Returns (B, C, frames, H, W).
    """
    total: Tensor | None = None
    for i, (window, answer) in enumerate(seen):
        if total is None:
            total = answer.new_zeros((*answer.shape[:2], frames, *answer.shape[3:]))
            norm = answer.new_zeros(len(answer), frames)
        counted = slice(window.counted.start, window.counted.stop)
        w = answer.new_ones(len(window.counted)) if weights is None else weights[i].to(answer)
        w = w.reshape(-1, len(window.counted))
        total[:, :, counted] += w[:, None, :, None, None] * answer[:, :, window.lead :]
        norm[:, counted] += w
    assert total is not None
    return total / norm[:, None, :, None, None]

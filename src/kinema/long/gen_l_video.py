"""A long clip as the mean of many short ones that overlap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.windows import fuse, windows_of
from kinema.layers.events import events_of

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.core.windows import Window


@technique(
    "gen_l_video",
    paper="arXiv:2305.18264",
    base="ModelScope-like T2V, Stable Diffusion with cross-frame attention",
    neutral=dict(window=10_000),
)
@dataclass(frozen=True, kw_only=True)
class GenLVideo(Technique):
    """v = mean of the velocities of all windows that hold a frame; each window reads the text of its own event.

    Paper: "Gen-L-Video: Multi-Text to Long Video Generation via Temporal Co-Denoising", 2023, arXiv:2305.18264, eq. 8,
    with its weights of 1. Departures: velocities are averaged in the place of solver steps, which is the same for a
    first-order step and leaves one history to the others; the last window is pinned to the end of the clip, so that
    no frame is left out; with a causal autoencoder every window but the first sees one latent frame more ahead of its
    own, whose answer is thrown away. Of the paper's captions a window reads that of the event which has most of its
    frames, and in a gap the whole prompt. A clip that is not longer than a window is made as ever. The smoothing of
    the authors' code is left out.
    Shapes: velocities (B, C, T, H, W) of the clip, windows of `window` latent frames.
    Raises: KinemaError at start, for windows that leave frames out, and for a model that makes sound along with it.
    """

    windowed = True
    follows_times = True

    window: int | None = None  # latent frames; None is the length the model was trained on
    stride: int | None = None  # latent frames from one window to the next, 1..window; None is a quarter of it

    def start(self, run: Run) -> None:
        found, parts = events_of(run, self.name), windows_of(run, self, self.window, self.stride, fraction=0.25)
        texts = run.encoded(found.texts) if len(found.texts) > 1 else []
        ahead = run.conditions.shape[2] - found.frames.shape[1]
        events = [found.of(w, ahead) if texts else None for w in parts]
        run.state[self] = [(w, None if event is None else texts[event]) for w, event in zip(parts, events, strict=True)]

    def sees(self, run: Run) -> int:
        parts: list[tuple[Window, Any]] = run.state[self]
        return max(w.stop - w.first for w, _ in parts)

    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[..., Tensor]) -> Tensor:
        assert step.run is not None
        parts: list[tuple[Window, Any]] = step.run.state[self]
        if len(parts) == 1:
            return next(x)
        return fuse(((w, next(w.of(x), w, text)) for w, text in parts), x.shape[2])

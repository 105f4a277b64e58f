"""Long clips with the coarse of attention to all frames and the fine of attention to near ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.layers.frames import Kept, View, frame_tokens
from kinema.layers.noise import Rescheduled

if TYPE_CHECKING:
    from torch import Tensor

    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.layers.frames import FrameTokens


@technique(
    "freelong",
    paper="arXiv:2407.19918",
    base="LaVie, VideoCrafter 2",
    neutral=dict(window=10_000),
)
@dataclass(frozen=True, kw_only=True)
class FreeLong(Rescheduled):
    """out = F^-1(G F(all) + (1 - G) F(near)), of attention to all frames and to those near, from the same q, k and v.

    F is the Fourier transform over frames, rows and columns, and G = exp(-(t^2 / c_t^2 + (y^2 + x^2) / c_s^2) / 2) of
    frequencies -1..1, where 1 is the highest there is. Frame i has near it i - W/2 .. i + W/2, and at the ends of the
    clip the W nearest.
    Paper: "FreeLong: Training-Free Long Video Generation with SpectralBlend Temporal Attention", 2024,
    arXiv:2407.19918, section 4, with the numbers of the authors' code, and like there on noise that comes back as in
    FreeNoise. Departures: the paper has temporal attention in a UNet; where a transformer sees all tokens of the video
    together, those of near frames are seen, with the text in joint attention, whose own tokens are as with all frames.
    The code leaves the near alone at a UNet's highest resolution to save time, here they are blended there, too, unless
    block_range says otherwise. Frequencies are exact for odd sizes. Attention is blended before its output projection,
    which is linear.
    Shapes: q, k, v (B, N, L, D) with the frames in L; transforms of (T, rows, columns) in float32.
    Raises: KinemaError at start, for windows and cutoffs out of range, a scheduler that adds fresh noise in its steps,
    global_scale with a model whose frames cannot be moved, and ahead of longer segments that read each other's tokens;
    in the first step, behind a technique that passes some of the tokens.
    """

    conflicts = ("freenoise",)

    time_cutoff: float = 0.25  # c_t, of the highest frequency over frames; above 0
    space_cutoff: float = 0.25  # c_s, of the highest frequency over rows and columns; above 0
    global_scale: bool = False  # attention to all frames sees their places squeezed into those of a window

    def start(self, run: Run) -> None:
        state = run.state[self] = _State(*self.sizes(run))
        if min(self.time_cutoff, self.space_cutoff) <= 0:
            raise KinemaError(
                f"{self.name} has time_cutoff {self.time_cutoff} and space_cutoff {self.space_cutoff}; use above 0"
            )
        if state.size == run.conditions.shape[2]:
            return
        if self.global_scale and "positions" not in run.backbone.hooks:
            raise KinemaError(
                f"global_scale of {self.name} moves frames, and model {run.backbone.name!r} has their places in its "
                "tokens; turn it off"
            )

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        assert step.run is not None
        tokens = frame_tokens(step, site, q, k, positions)
        state: _State = step.run.state[self]
        window = state.size // step.run.backbone.patch[0]
        if tokens.frames <= window:
            return next(q, k, v, positions)
        if tokens.first is None:
            raise KinemaError(f"{self.name} was given some of the tokens; put it first in the list of techniques")
        squeezed = positions
        if self.global_scale and positions is not None:
            scale = torch.tensor([window / tokens.frames, 1.0, 1.0], dtype=torch.float64, device=q.device)
            squeezed = replace(positions, q=positions.q * scale, k=positions.k * scale)
        everywhere = next(q, k, v, squeezed)
        if tokens.in_batch:
            near_only = tokens.video(next(q, k, v, positions, tokens.bias(near_table(tokens.frames, window).to(q))))
        else:
            assert positions is not None
            views = state.views.of(tokens, positions, lambda: near_views(tokens, positions, window))
            found = torch.cat([view.attend(q, k, v, next) for view in views], dim=2)
            near_only = found.reshape(*found.shape[:2], tokens.frames, tokens.rows, tokens.columns, -1)
        blended = spectral_blend(tokens.video(everywhere), near_only, self.time_cutoff, self.space_cutoff)
        return tokens.with_video(everywhere, blended)


@dataclass(frozen=True, eq=False)
class _State:
    """Of one run."""

    size: int  # latent frames near a frame
    stride: int
    views: Kept[list[View]] = field(default_factory=Kept)


def near_table(frames: int, window: int) -> Tensor:
    """0 for the frames near each frame and -inf for the others, (T, T)."""
    table = torch.full((frames, frames), -torch.inf)
    for frame in range(frames):
        table[frame, slice(*near(frame, frames, window))] = 0
    return table


def near_views(tokens: FrameTokens, positions: Positions, window: int) -> list[View]:
    """The queries of all frames in order, together for frames that are near the same, with the keys of those and text.

    So no mask over all pairs of tokens is made.
    """
    spans = [near(frame, tokens.frames, window) for frame in range(tokens.frames)]
    found = []
    for span in dict.fromkeys(spans):
        first, count = spans.index(span), spans.count(span)
        of_q = ((tokens.q >= first) & (tokens.q < first + count)).nonzero().flatten()
        found.append(View.of(positions, of_q, tokens.seen(*span)[1]))
    return found


def near(frame: int, frames: int, window: int) -> tuple[int, int]:
    """The first frame near a frame, and the one behind the last; `window` of them at least."""
    start, stop = max(0, frame - window // 2), min(frames, frame + window // 2 + 1)
    if stop - start < window:
        return (0, window) if start == 0 else (frames - window, frames)
    return start, stop


def spectral_blend(low: Tensor, high: Tensor, time_cutoff: float, space_cutoff: float) -> Tensor:
    """The low frequencies of one volume (B, N, T, rows, columns, D) and the others of another, float32."""
    kept = gaussian(tuple(low.shape[2:5]), time_cutoff, space_cutoff, low.device)
    high, over = high.float(), (2, 3, 4)
    spectrum = torch.fft.rfftn(low.float() - high, dim=over) * kept[..., None]
    blended: Tensor = high + torch.fft.irfftn(spectrum, s=low.shape[2:5], dim=over)
    return blended


@lru_cache(maxsize=32)
def gaussian(shape: tuple[int, int, int], time_cutoff: float, space_cutoff: float, device: torch.device) -> Tensor:
    """What is kept of each frequency of a volume of this shape, (T, rows, columns // 2 + 1)."""
    t, y = (2 * torch.fft.fftfreq(n, device=device) for n in shape[:2])
    x = 2 * torch.fft.rfftfreq(shape[2], device=device)
    squares = (t / time_cutoff)[:, None, None] ** 2 + (y / space_cutoff)[:, None] ** 2 + (x / space_cutoff) ** 2
    return torch.exp(-squares / 2)

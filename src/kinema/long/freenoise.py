"""Long clips whose attention over time sees windows, from noise whose frames come back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.windows import triangle, window_sizes, windows
from kinema.layers.frames import frame_tokens
from kinema.layers.noise import check_kept, rescheduled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.core.windows import Window
    from kinema.layers.frames import FrameTokens


@technique(
    "freenoise",
    paper="arXiv:2310.15169",
    base="VideoCrafter 1, AnimateDiff, LaVie",
    neutral=dict(window=10_000),
)
@dataclass(frozen=True, kw_only=True)
class FreeNoise(Technique):
    """out_f = sum_j w_j(f) attention_j(f) / sum_j w_j(f) over the windows j that hold frame f; w = 1, 2, ..., 2, 1.

    Attention over time runs once in each window, whose frames stand where those of a short clip do; all other layers
    see the long clip once. The noise it begins with is that of one window, whose frames come back in another order.
    Paper: "FreeNoise: Tuning-Free Longer Video Diffusion via Noise Rescheduling", 2023, arXiv:2310.15169, sections 3.2
    and 3.3; its motion injection for several prompts is `prompt_schedule`. Departures: the paper has temporal attention
    in a UNet; where a transformer sees all tokens of the video together, a window is those of its frames, with the text
    and what stands beside the clip in each window of joint attention, whose outputs are averaged. The last window is
    pinned to the end, and what is left over there takes its noise from one window earlier, too. Every window counts its
    frames from 0, also where latent frame 0 of a clip stands for one picture. The authors' 16 frames every 4 are a
    window of the length the model was trained on, every quarter of it.
    Shapes: noise (B, C, T, H, W); q, k, v (B, N, L, D) with the frames in L.
    Raises: KinemaError at start, for windows that leave frames out, a scheduler that adds fresh noise in its steps, and
    a model whose frames cannot be placed anew.
    """

    alike = True

    window: int | None = None  # latent frames; None is the length the model was trained on
    stride: int | None = None  # latent frames from one window to the next, 1..window; None is a quarter of it
    reschedule: bool = True  # noise of one window for the whole clip; off leaves all frames their own

    def start(self, run: Run) -> None:
        state = run.state[self] = _State(*window_sizes(run, self, self.window, self.stride, fraction=0.25))
        if state.size == run.conditions.shape[2]:
            return
        if self.reschedule:
            check_kept(run, self.name)
        if "positions" not in run.backbone.hooks:
            raise KinemaError(
                f"{self.name} lets each window begin at frame 0, and model {run.backbone.name!r} has its frames' "
                "places in its tokens; take a model whose positions can be moved, or a shorter clip"
            )

    def wants(self, site: Site) -> bool:
        return site.kind in ("temporal", "self", "joint")

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        state: _State = run.state[self]
        return rescheduled(x, state.size, state.stride, run.generators) if self.reschedule else x

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        assert step.run is not None
        state: _State = step.run.state[self]
        group = step.run.backbone.patch[0]
        tokens = frame_tokens(step, site, q, k, positions)
        if tokens.frames * group <= state.size or positions is None:
            return next(q, k, v, positions)
        out = torch.zeros_like(q)
        for view in state.views(tokens, positions, group):
            seen = next(q[:, :, view.q], k[:, :, view.k], v[:, :, view.k], view.positions)
            out.index_add_(2, view.q, seen * view.share.to(q))
        return out


@dataclass(frozen=True, eq=False)
class _View:
    """The tokens of one window."""

    q: Tensor  # (n,) which queries
    k: Tensor  # (m,) which keys
    positions: Positions
    share: Tensor  # (n, 1) what the window counts for each of its queries


@dataclass(eq=False)
class _State:
    """Of one run: its windows, and their tokens, which are the same from layer to layer."""

    size: int  # latent frames
    stride: int
    known: tuple[FrameTokens, Positions, list[_View]] | None = None

    def views(self, tokens: FrameTokens, positions: Positions, group: int) -> list[_View]:
        if self.known is not None and _same(*self.known[:2], tokens, positions):
            return self.known[2]
        parts = windows(tokens.frames, self.size // group, self.stride // group)
        found: list[_View] = []
        for part, share in zip(parts, shares(parts, tokens.frames), strict=True):
            of_q, of_k = tokens.seen(part.first, part.stop)
            placed = begun_at(positions.part(of_q, of_k), part.first * group)
            if found and torch.equal(placed.q, found[0].positions.q) and torch.equal(placed.k, found[0].positions.k):
                placed = replace(placed, q=found[0].positions.q, k=found[0].positions.k)  # one table of places for all
            found.append(_View(of_q, of_k, placed, share.to(placed.q.device)[tokens.q[of_q], None]))
        self.known = tokens, positions, found
        return found


def _same(tokens: FrameTokens, positions: Positions, others: FrameTokens, other: Positions) -> bool:
    """Whether two attentions have the same tokens at the same places."""
    numbers = (positions.first, positions.extra, positions.text) == (other.first, other.extra, other.text)
    places = positions.q is other.q and positions.k is other.k
    parts = positions.q_part is other.q_part and positions.k_part is other.k_part
    return numbers and places and parts and tokens.q is others.q and tokens.k is others.k


def shares(parts: Sequence[Window], frames: int) -> Tensor:
    """What each window counts for a frame, (windows, T + 1) float32; the last column is for tokens of no frame."""
    weights = torch.zeros(len(parts), frames + 1)
    weights[:, -1] = 1
    for row, part in zip(weights, parts, strict=True):
        row[part.first : part.stop] = triangle(part.stop - part.first)
    return weights / weights.sum(0)


def begun_at(positions: Positions, first: int) -> Positions:
    """The same tokens with latent frame `first` as frame 0."""
    back = positions.q.new_tensor([first, 0, 0])
    q, k = positions.q - back, positions.k - back
    return replace(positions, q=q, k=q if torch.equal(q, k) else k)

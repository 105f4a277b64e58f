"""Long clips whose attention over time sees windows, from noise whose frames come back."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.windows import triangle, windows
from kinema.layers.frames import Kept, View, frame_tokens
from kinema.layers.noise import Rescheduled

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
class FreeNoise(Rescheduled):
    """out_f = sum_j w_j(f) attention_j(f) / sum_j w_j(f) over the windows j that hold frame f; w = 1, 2, ..., 2, 1.

    Attention over time runs once in each window, whose frames stand where those of a short clip do; all other layers
    see the long clip once. The noise it begins with is that of one window, whose frames come back in another order.
    Paper: "FreeNoise: Tuning-Free Longer Video Diffusion via Noise Rescheduling", 2023, arXiv:2310.15169, sections 3.2
    and 3.3; its motion injection for several prompts is `prompt_schedule`. Departures: the paper has temporal attention
    in a UNet; where a transformer sees all tokens of the video together, a window is those of its frames, with the text
    and what stands beside the clip in each window of joint attention, whose outputs are averaged. The last window is
    pinned to the end, and what is left over there takes its noise from one window earlier, too. Every window counts its
    frames from 0, also where latent frame 0 of a clip stands for one picture, and what stands beside a clip stands as
    far from each window. The authors' 16 frames every 4 are a
    window of the length the model was trained on, every quarter of it.
    Shapes: noise (B, C, T, H, W); q, k, v (B, N, L, D) with the frames in L.
    Raises: KinemaError at start, for windows that leave frames out, a scheduler that adds fresh noise in its steps, a
    model whose frames cannot be placed anew, and ahead of longer segments that read each other's tokens.
    """

    def start(self, run: Run) -> None:
        state = run.state[self] = _State(*self.sizes(run))
        if state.size == run.conditions.shape[2]:
            return
        if "positions" not in run.backbone.hooks:
            raise KinemaError(
                f"{self.name} lets each window begin at frame 0, and model {run.backbone.name!r} has its frames' "
                "places in its tokens; take a model whose positions can be moved, or a shorter clip"
            )

    def sees(self, run: Run) -> int:
        state: _State = run.state[self]
        return state.size

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
        for view, share in state.views.of(tokens, positions, lambda: state.seen(tokens, positions, group)):
            out[:, :, view.q] += view.attend(q, k, v, next) * share.to(q)
        return out


@dataclass(frozen=True, eq=False)
class _State:
    """Of one run."""

    size: int  # latent frames of a window
    stride: int
    views: Kept[list[tuple[View, Tensor]]] = field(default_factory=Kept)

    def seen(self, tokens: FrameTokens, positions: Positions, group: int) -> list[tuple[View, Tensor]]:
        """The tokens of each window, and what it counts for each of its queries, (n, 1)."""
        parts = windows(tokens.frames, self.size // group, self.stride // group)
        found: list[tuple[View, Tensor]] = []
        for part, share in zip(parts, shares(parts, tokens.frames), strict=True):
            of_q, of_k = tokens.seen(part.first, part.stop)
            view = View.of(positions, of_q, of_k)
            placed = alone(view.positions, part.first * group, part.stop * group, tokens.frames * group)
            if found:
                placed = _shared(placed, found[0][0].positions)
            found.append((replace(view, positions=placed), share.to(of_q.device)[tokens.q[of_q], None]))
        return found


def shares(parts: Sequence[Window], frames: int) -> Tensor:
    """What each window counts for a frame, (windows, T + 1) float32; the last column is for tokens of no frame."""
    weights = torch.zeros(len(parts), frames + 1)
    weights[:, -1] = 1
    for row, part in zip(weights, parts, strict=True):
        row[part.first : part.stop] = triangle(part.stop - part.first)
    return weights / weights.sum(0)


def alone(positions: Positions, first: int, stop: int, frames: int) -> Positions:
    """The same tokens where they stand when latent frames first .. stop - 1 of `frames` are the whole clip.

    The first of them is frame 0. What stands ahead of the clip or behind it, beside a long clip's tokens, keeps its
    distance to the first or the last of them; what stands at a frame that is not among them, stands at the nearest end.
    """

    def moved(places: Tensor) -> Tensor:
        frame = places[:, 0]
        within = (frame.clamp(0, frames) - first).clamp(0, stop - first)
        frame = frame.clamp(max=0) + within + (frame - frames).clamp(min=0)
        return torch.cat([frame[:, None], places[:, 1:]], dim=1)

    q, k = moved(positions.q), moved(positions.k)
    return replace(positions, q=q, k=q if torch.equal(q, k) else k)


def _shared(positions: Positions, other: Positions) -> Positions:
    """The same, with the other's tensors where the places are equal: models make a table for each tensor of them."""
    same = torch.equal(positions.q, other.q) and torch.equal(positions.k, other.k)
    return replace(positions, q=other.q, k=other.k) if same else positions

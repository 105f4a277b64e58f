"""Frames that look mostly at their neighbours, and read texts that change from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.events import Mixtures, events_of
from kinema.layers.frames import FrameTokens, frame_tokens
from kinema.layers.logits import in_groups, logits

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

MEASURED = 64  # queries of a clip whose largest logits are measured where maps are large


@technique(
    "vstar",
    paper="arXiv:2403.13501",
    base="VideoCrafter2",
    neutral=dict(scale=0.0),
)
@dataclass(frozen=True, kw_only=True)
class VSTAR(Technique):
    """logits + scale * m * G, with G_ij = exp(-(i - j)^2 / (2 deviation^2)) and m_i = max_j logits_ij, frames i and j.

    A smaller deviation gives frames more of a life of their own. The synopsis are the events of the prompt: their texts
    stand at even distances over the clip, the first at its first frame and the last at its last, and frames between two
    read a mixture of them in proportion; with times, a text stands in the middle of its event.
    Paper: "VSTAR: Generative Temporal Nursing for Longer Dynamic Video Synthesis", 2024, arXiv:2403.13501.
    Departures: the synopsis is given (the paper asks a language model for it). Steps 1 to 14 of its 25 are noise levels
    here. Where frames and places stand in one sequence, m is the mean over queries, measured on some of them, of the
    largest logit of a key of the clip, and G is less by 1, which is the same for the clip alone and lets text be read
    as before. VideoCrafter2's temporal attention before its first block, which the paper leaves alone, other models do
    not have. Frames are latent frames, each of which may stand for several of the video.
    Shapes: q, k, v (B, N, L, D); G (T, T); m (B, N, T, 1), or (B, N, 1, 1) in one sequence.
    Raises: KinemaError at start, for values out of range, several prompts in a batch, and events that overlap.
    """

    scale: float = 1.0  # of the largest logit, no unit; 0 leaves attention as it is
    deviation: float = 1.0  # latent frames; more than 0, smaller is more change
    coarse_deviation: float | None = None  # the same one level down in a UNet, 8 for four times its length; None is off
    regularized_range: tuple[float, float] = (1.0, 0.571)  # noise levels in which attention is biased; texts always are

    def start(self, run: Run) -> None:
        first, last = self.regularized_range
        if self.deviation <= 0 or (self.coarse_deviation is not None and self.coarse_deviation <= 0):
            raise KinemaError(f"the deviations of {self.name} are latent frames; use more than 0")
        if self.scale < 0 or not 1 >= first >= last >= 0:
            raise KinemaError(
                f"{self.name} has scale {self.scale} and regularized_range {self.regularized_range}; use 0 or more, "
                "and two noise levels from 1 down to 0"
            )
        found = events_of(run, self.name)
        if (found.frames.sum(dim=0) > 1).any():
            raise KinemaError(f"{self.name} lets events follow each other, and some overlap here; part them in time")
        timeline = run.requests[0].events
        middles = centres(found.frames) if timeline is not None and timeline.timed else None
        read = Mixtures.of(
            found.texts, synopsis(len(found.texts), found.frames.shape[1], middles).to(found.frames.device)
        )
        run.state[self] = read.frames
        run.read_texts(read.texts if len(found.texts) > 1 else [])

    def context(self, step: Step, site: Site, frames: int) -> Tensor | None:
        assert step.run is not None
        table: Tensor = step.run.state[self]
        return table

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "temporal")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        if self.scale == 0 or not self.regularized_range[0] >= step.t >= self.regularized_range[1]:
            return next(q, k, v, positions)
        tokens = frame_tokens(step, site, q, k, positions)
        deviation = self._deviation(step, tokens)
        if deviation is None:
            return next(q, k, v, positions)
        near = gaussian(tokens.frames, deviation).to(q)
        if site.kind == "temporal":
            largest = logits(next, q, k, positions).amax(dim=-1, keepdim=True)
            return next(q, k, v, positions, self.scale * tokens.bias(near) * largest)
        return in_sequence(self.scale * (near - 1), tokens, q, k, v, positions, next)

    def _deviation(self, step: Step, tokens: FrameTokens) -> float | None:
        """The one of a level of a UNet; of all other models there is only the first."""
        assert step.run is not None
        rows, columns = step.run.conditions.shape[3:]
        halves = (-(-rows // 2), -(-columns // 2))
        if not tokens.in_batch or (tokens.rows, tokens.columns) == (rows, columns):
            return self.deviation
        return self.coarse_deviation if (tokens.rows, tokens.columns) == halves else None


def in_sequence(
    near: Tensor, tokens: FrameTokens, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
) -> Tensor:
    """Attention with the bias m * near (T, T) where all tokens are one sequence, 0 for those of no frame."""
    of_q, of_k = ((frame >= 0).nonzero().flatten() for frame in (tokens.q, tokens.k))
    some = of_q[:: max(1, len(of_q) // MEASURED)]
    largest = logits(next, q, k, positions, some, of_k).amax(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
    rows = largest * torch.nn.functional.pad(near, (0, 1))[:, tokens.k]  # (B, N, T, Lk)
    return in_groups(next, q, k, v, positions, tokens.q, rows)


def gaussian(frames: int, deviation: float) -> Tensor:
    """G_ij = exp(-(i - j)^2 / (2 deviation^2)), (frames, frames)."""
    i = torch.arange(frames, dtype=torch.float64)
    return torch.exp(-((i[:, None] - i) ** 2) / (2 * deviation**2))


def synopsis(texts: int, frames: int, middles: Tensor | None = None) -> Tensor:
    """How much of each text each latent frame reads, (frames, texts): a line from one text's place to the next one's.

    middles: (texts,), the places in latent frames; None is even distances from the first frame to the last.
    """
    if texts == 1:
        return torch.ones(frames, 1, dtype=torch.float64)
    places = torch.linspace(0, frames - 1, texts, dtype=torch.float64) if middles is None else middles.double().cpu()
    frame = torch.arange(frames, dtype=torch.float64)
    ahead = torch.searchsorted(places[1:-1].contiguous(), frame, right=True)  # the last text at or ahead of a frame
    along = ((frame - places[ahead]) / (places[ahead + 1] - places[ahead])).clamp(0, 1)
    weights = torch.zeros(frames, texts, dtype=torch.float64)
    weights[torch.arange(frames), ahead] = 1 - along
    weights[torch.arange(frames), ahead + 1] = along
    return weights


def centres(frames: Tensor) -> Tensor:
    """The middle of each event in latent frames, (events,), from (events, T) bool."""
    number = torch.arange(frames.shape[1], device=frames.device, dtype=torch.float64)
    return (frames * number).sum(dim=1) / frames.sum(dim=1)

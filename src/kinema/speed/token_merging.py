"""Attend to pairs of neighbouring frames as if they were one, in the first half of the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kinema.core.attention import Site, Taps, current_taps
from kinema.core.errors import KinemaError
from kinema.core.positions import Positions
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.run import Run


@technique(
    "token_merging",
    paper="arXiv:2502.04363",
    base="Open-Sora 1.2",
    neutral=dict(size=1),
)
@dataclass(frozen=True, kw_only=True)
class TokenMerging(Technique):
    """attend(mean of q, of k, of v over `size` frames at the same place), whose output each of these frames gets.

    In self-attention the merged tokens stand at their mean place. A latent frame of which a causal autoencoder makes
    one picture is left alone, and so are text, what stands beside the clip, and frames too few for another group.
    Paper: "On-device Sora: Enabling Training-Free Diffusion-based Text-to-Video Generation for Mobile Devices", 2025,
    arXiv:2502.04363, temporal dimension token merging. Departures: the paper merges what goes into an attention layer;
    here its projections and their norms are of all tokens, and what they give is merged. Where only some of the keys
    are merged, a merged one counts as often as there are frames in it, as in ToMe (2022, arXiv:2210.09461); in the
    paper all are. The authors merge in the first 15 of 30 steps, whose levels in Open-Sora are `noise_range`. Attention
    to a single key, whose output no query changes, is left as it is, and in UNets also what reads texts by frame.
    Shapes: q, k, v are (B, N, L, D), with the frames in L or, within frames of UNets, in B.
    Raises: KinemaError at start, for values out of range or a clip too short for a group of frames, and in the first
    step when a technique before it in the list passes a part of the tokens.
    """

    alike = True

    size: int = 2  # neighbouring frames of tokens that are merged into one; 1 merges none
    until: float = 0.5  # share of the steps, the first ones, that merge; at least one does, 0..1

    def start(self, run: Run) -> None:
        if not 0 <= self.until <= 1:
            raise KinemaError(f"until of token_merging is {self.until}; use 0 to 1")
        whole = any(site.kind in ("self", "joint") for site in run.backbone.sites)
        if self.size > 1 and whole and "positions" not in run.backbone.hooks:
            raise KinemaError(
                f"{self.name} gives merged tokens a place, and the {run.backbone.family} family has fixed ones"
            )
        if self.size < 1:
            raise KinemaError(f"size of token_merging is {self.size}; use 1 or more, 1 merges nothing")
        run.state[self] = {}
        frames = len(torch.unique(run.backbone.grid(run.conditions.shape)[:, 0]))
        free = frames - int(run.backbone.frames_per_latent > 1)
        if free < self.size > 1:
            raise KinemaError(
                f"token_merging makes one of {self.size} latent frames, and this clip has {free} that may be merged; "
                "ask for more frames"
            )

    def active(self, step: Step) -> bool:
        return super().active(step) and step.index < max(1, self.until * step.count)

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "cross", "temporal", "spatial")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        taps = current_taps.get()
        assert taps is not None and step.run is not None
        frames = groups_of_frames(taps, self.size, picture_first=step.run.backbone.frames_per_latent > 1)
        if self.size == 1 or frames.runs == 0 or k.shape[2] == 1:
            return next(q, k, v, positions)
        if positions is not None and not (positions.q_part is positions.k_part is None):
            raise KinemaError("token_merging was given a part of the tokens; put it first in the list of techniques")
        if site.kind == "temporal":  # the places were added to the tokens, so that a mean has the mean of them
            kept = frames.first_of_each(q.shape[2], q.device)
            part = None if positions is None else positions.part(kept, kept)
            bias = frames.weights(k)
            q, k, v = (frames.merged(u, 2) for u in (q, k, v))
            return frames.copied(next(q, k, v, part, bias), 2)
        if positions is not None:
            return in_sequence(frames.of_tokens(taps), site, q, k, v, positions, next, step.run.state[self])
        if site.kind == "cross" and taps.texts > 1:
            return next(q, k, v, positions)
        samples = len(q) // taps.frames
        q, k, v = (frames.merged(torch.unflatten(u, 0, (samples, -1)), 1).flatten(0, 1) for u in (q, k, v))
        out = next(q, k, v, None)
        return frames.copied(torch.unflatten(out, 0, (samples, -1)), 1).flatten(0, 1)


def in_sequence(
    video: Groups,
    site: Site,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Positions,
    next: Attention,
    known: dict[bool, tuple[Positions, Positions]],
) -> Tensor:
    """Merged attention where the tokens of all frames are one sequence, in joint attention with the text.

    known: the positions at the last site that reads text and at the last other one, before and after they were merged.
    """
    tokens = replace(video, first=video.first + positions.first)  # text may stand ahead of the video
    reads = site.kind == "cross"
    before, merged = known.get(reads, (None, positions))
    if before is None or before.q is not positions.q or not (reads or before.k is positions.k):
        kept = tokens.first_of_each(q.shape[2], q.device)
        merged = replace(positions.part(kept, None if reads else kept), q=video.merged(positions.q.double(), 0))
        if not reads:
            same = positions.k is positions.q
            merged = replace(merged, k=merged.q if same else video.merged(positions.k.double(), 0))
        known[reads] = positions, merged
    if reads:
        return tokens.copied(next(tokens.merged(q, 2), k, v, merged), 2)
    bias = tokens.weights(k)
    q, k, v = (tokens.merged(u, 2) for u in (q, k, v))
    return tokens.copied(next(q, k, v, merged, bias), 2)


@dataclass(frozen=True)
class Groups:
    """Frames of `cells` tokens each that go together: `runs` groups of `size` frames behind the `first` tokens.

    What comes before and behind the groups stays as it is.
    """

    first: int
    runs: int
    size: int
    cells: int = 1

    def of_tokens(self, taps: Taps) -> Groups:
        """The same groups of frames in a sequence of all tokens of a call."""
        assert taps.own is not None
        cells = len(taps.own) // (int(taps.own[-1, 0]) // taps.patch[0] + 1)
        return Groups(self.first * cells, self.runs, self.size, cells)

    def merged(self, u: Tensor, dim: int) -> Tensor:
        """The mean of each group, token by token of a frame."""
        head, groups, tail = self._parted(u, dim)
        mean = reduce(torch.add, groups.unbind(dim + 1)) / self.size  # three times as fast as mean() on a CPU
        return torch.cat([head, mean.flatten(dim, dim + 1), tail], dim)

    def copied(self, u: Tensor, dim: int) -> Tensor:
        """What was made of the means, for all frames of their groups."""
        middle = self.runs * self.cells
        head, means, tail = torch.split(u, [self.first, middle, u.shape[dim] - self.first - middle], dim)
        frames = torch.unflatten(means, dim, (self.runs, self.cells)).repeat_interleave(self.size, dim)
        return torch.cat([head, frames.flatten(dim, dim + 1), tail], dim)

    def first_of_each(self, count: int, device: torch.device) -> Tensor:
        """Of `count` tokens those that are alone, and those of the first frame of each group, (n,)."""
        head, groups, tail = self._parted(torch.arange(count, device=device), 0)
        return torch.cat([head, groups[:, 0].flatten(), tail])

    def weights(self, keys: Tensor) -> Tensor | None:
        """What makes a merged one of the keys (B, N, L, D) count for its whole group, (L'); None if all are merged."""
        ones = keys.new_zeros(keys.shape[2])
        head, groups, tail = self._parted(ones, 0)
        if len(head) == len(tail) == 0:
            return None
        return torch.cat([head, (groups[:, 0] + math.log(self.size)).flatten(), tail])

    def _parted(self, u: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
        """What is alone before, the groups (..., runs, size, cells, ...), and what is alone behind."""
        middle = self.runs * self.size * self.cells
        head, groups, tail = torch.split(u, [self.first, middle, u.shape[dim] - self.first - middle], dim)
        return head, torch.unflatten(groups, dim, (self.runs, self.size, self.cells)), tail


def groups_of_frames(taps: Taps, size: int, picture_first: bool) -> Groups:
    """The groups of a call, frame by frame; picture_first: the first latent frame of the clip is one picture."""
    alone = taps.padding + int(picture_first and taps.before == 0)
    first, stop = -(-alone // taps.patch[0]), (taps.padding + taps.frames) // taps.patch[0]
    return Groups(first, max(0, stop - first) // size, size)

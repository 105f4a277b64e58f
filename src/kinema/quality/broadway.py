"""Attention over frames that agrees with a block ahead of it, and whose differences between frames are made larger."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kinema.core.attention import current_taps
from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.layers.frames import FrameTokens, frame_tokens
from kinema.layers.logits import logits

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

MEASURED = 512  # queries of a clip by which frames are measured where frames and places are one sequence


@dataclass(frozen=True, eq=False)
class Reference:
    """One attention of the reference."""

    map: Tensor  # (B, N, T, T)
    tokens: FrameTokens
    q: Tensor
    k: Tensor


@dataclass
class Seen:
    """The blocks of a run that are looked at, and what the reference showed in the call in progress."""

    order: Mapping[int, int]  # block -> which of its neighbours in the reference it follows
    reference: frozenset[int]  # blocks
    call: Any = None
    passed: dict[int, int] = field(default_factory=dict)  # block -> its attentions so far; a UNet's has two
    kept: dict[tuple[int, int], Reference] = field(default_factory=dict)  # by order, and number of the attention

    def at(self, block: int) -> tuple[int, int]:
        """What tells this attention from others in the same call."""
        if current_taps.get() is not self.call:
            self.call = current_taps.get()
            self.passed, self.kept = {}, {}
        number = self.passed[block] = self.passed.get(block, -1) + 1
        return self.order[block], number


@technique(
    "broadway",
    paper="arXiv:2410.06241",
    base="AnimateDiff, VideoCrafter2",
    neutral=dict(alpha=0.0, beta=1.0),
)
@dataclass(frozen=True, kw_only=True)
class BroadWay(Technique):
    """A <- A + alpha (A_ref - A), its high frequencies along keys times b = max(beta, sqrt((E1 - E2_low) / E2_high)).

    A is the map of frames by frames, E1 and E2 its energies, the mean over queries of sum_j A_ij^2, ahead of the first
    change and behind it; E2 in two parts by frequency. To scale the frequencies of a map is to scale those of the
    values along frames: with all but the mean in the high band, v becomes mean(v) + b (v - mean(v)).
    Paper: "BroadWay: Boost Your Text-to-Video Generation Model in a Training-free Way", 2024, arXiv:2410.06241, eq. 3
    to 7; the values are those for AnimateDiff, and its first 20 % of steps are a noise level. Departures: energies are
    those of each sample and branch (the paper takes the prompted branch's); where heads differ in number, A_ref is
    their mean. The reference is the second block of a UNet's way up, as in the paper, or the first where there are only
    two. In transformers, whose frames and places are one sequence, it is the block in the middle (the first of
    `block_range`), all blocks behind it follow it, values are scaled along frames at each place, and E is that of the
    table of frames by frames, measured on some queries. Values of text stay as they are.
    Shapes: A (B, N, T, T); v (B, N, L, D); b (B,).
    Raises: KinemaError at start, for values out of range and a block_range without a reference, and in the first step
    when a technique ahead of it in the list passes a part of the tokens.
    """

    alike = True
    noise_range: tuple[float, float] = (1.0, 0.893)
    alpha: float = 0.6  # how much of the reference, 0..1
    beta: float = 1.5  # at least so much more motion, no unit; 1 or more
    tau: float | None = None  # width of the high band, frequencies to each side of T / 2; None is T / 2 - 1: all but 0

    def start(self, run: Run) -> None:
        if not 0 <= self.alpha <= 1 or self.beta < 1 or (self.tau is not None and self.tau < 0):
            raise KinemaError(
                f"{self.name} has alpha {self.alpha}, beta {self.beta} and tau {self.tau}; use 0..1, 1 or more, and "
                "0 or more"
            )
        run.state[self] = self._blocks([site for site in run.backbone.sites if self.wants(site)])

    def _blocks(self, sites: list[Site]) -> Seen:
        first, last = self.block_range or (0, max(site.block for site in sites))
        within = sorted({site.block for site in sites if first <= site.block <= last})
        levels = {site.block: site.up for site in sites if site.up is not None}
        if not any(site.kind == "temporal" for site in sites):
            begins = first if self.block_range else within[(len(within) - 1) // 2]
            followers = [block for block in within if block >= begins]
            return Seen(dict.fromkeys(followers, 0), frozenset(followers[:1]))
        reference = 1 if max(levels.values(), default=0) > 1 else 0
        groups = [
            [b for b in within if levels.get(b) == up] for up in range(reference, max(levels.values(), default=0) + 1)
        ]
        if not groups or not groups[0]:
            raise KinemaError(
                f"{self.name} looks at the way up of a UNet, which block_range {self.block_range} is not on"
            )
        order = {b: min(i, len(groups[0]) - 1) for group in groups for i, b in enumerate(group)}
        return Seen(order, frozenset(groups[0]))

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "temporal")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        assert step.run is not None
        seen: Seen = step.run.state[self]
        if site.block not in seen.order or (self.alpha == 0 and self.beta == 1):
            return next(q, k, v, positions)
        tokens = frame_tokens(step, site, q, k, positions)
        if tokens.first is None:
            raise KinemaError(f"{self.name} was given a part of the tokens; put it first in the list of techniques")
        key = seen.at(site.block)
        if self.alpha == 0:
            return next(q, k, self._moving(tokens, v, None, None), positions)
        over_frames = site.kind == "temporal"
        own = self._map(site, tokens, q, k, positions, next)
        if site.block in seen.reference:
            seen.kept[key] = Reference(own, tokens, q, k)
        if site.block in seen.reference or key not in seen.kept:  # what another technique skips guides nothing
            return next(q, k, self._moving(tokens, v, own, own), positions)
        reference = seen.kept[key]
        ahead = resized(reference.map, reference.tokens, tokens, heads=q.shape[1]) if over_frames else reference.map
        v = self._moving(tokens, v, own, torch.lerp(own, ahead, self.alpha))
        guide = ahead.to(v) @ v if over_frames else next(reference.q, reference.k, v, positions)
        share = self.alpha * (tokens.q >= 0).to(v)[:, None]  # text has no reference
        return torch.lerp(next(q, k, v, positions), guide, share)

    def _map(
        self, site: Site, tokens: FrameTokens, q: Tensor, k: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        """Frames by frames, (B, N, T, T) float32: all of it at temporal sites, elsewhere the table of some queries."""
        if site.kind == "temporal":
            return logits(next, q, k, positions).softmax(-1, dtype=torch.float32)
        clip = (tokens.q >= 0).nonzero().flatten()
        some = clip.reshape(tokens.frames, -1)[:, :: max(1, len(clip) // MEASURED)].flatten()
        part = None if positions is None else positions.part(q=some)
        return replace(tokens, q=tokens.q[some]).table(*next.turn(q[:, :, some], k, part))

    def _moving(self, tokens: FrameTokens, v: Tensor, before: Tensor | None, after: Tensor | None) -> Tensor:
        """v with its high frequencies along frames times b; before, after: the map ahead of the guidance and behind."""
        volume = tokens.video(v).float()  # (B, N, T, rows, columns, D)
        high = high_band(tokens.frames, self.tau).to(v.device)
        b = volume.new_full((len(volume),), self.beta)
        if before is not None and after is not None:
            b = torch.maximum(b, kept_energy(before, after, high, len(volume)))
        waves = torch.fft.rfft(volume, dim=2)
        high = high[: waves.shape[2]]
        gain = torch.where(high[:, None, None, None], b[:, None, None, None, None, None], 1.0)
        return tokens.with_video(v, torch.fft.irfft(waves * gain, n=tokens.frames, dim=2))


def high_band(frames: int, tau: float | None) -> Tensor:
    """Which frequencies of a series of frames are high, (frames,) bool: within tau of T / 2, and never the mean."""
    number = torch.arange(frames)
    return torch.minimum(number, frames - number) >= (1 if tau is None else max(1.0, frames / 2 - tau))


def kept_energy(before: Tensor, after: Tensor, high: Tensor, samples: int) -> Tensor:
    """sqrt((E1 - E2_low) / E2_high) of each sample, (samples,): what gives the map its energy back.

    before, after: maps (B, N, T, T) whose B are the samples, times the places of a picture. A map without high
    frequencies has nothing that could be scaled: 1.
    """
    energy = before.square().sum(-1).reshape(samples, -1).mean(dim=1)
    spectrum = torch.fft.fft(after, dim=-1).abs().square() / after.shape[-1]
    low, top = ((spectrum * band).sum(-1).reshape(samples, -1).mean(dim=1) for band in (~high, high))
    return torch.where(top > 1e-12, ((energy - low).clamp(min=0) / top.clamp(min=1e-12)).sqrt(), 1.0)


def resized(maps: Tensor, source: FrameTokens, target: FrameTokens, heads: int) -> Tensor:
    """Maps (B places, N, T, T) of one level of a UNet for the places of another; rows still sum to 1."""
    if maps.shape[1] != heads:
        maps = maps.mean(dim=1, keepdim=True).expand(-1, heads, -1, -1)
    if (source.rows, source.columns) == (target.rows, target.columns):
        return maps
    picture = maps.reshape(-1, source.rows, source.columns, maps[0].numel()).permute(0, 3, 1, 2)
    larger = torch.nn.functional.interpolate(picture, (target.rows, target.columns), mode="bilinear")
    return larger.permute(0, 2, 3, 1).reshape(-1, *maps.shape[1:])

"""Several prompts in one long shot: each segment looks at the one ahead of it as if it were its own past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch

from kinema.core.blend import Blend
from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.windows import Window, fuse, triangle, windows_of
from kinema.layers.events import Events, events_of
from kinema.layers.frames import frame_tokens
from kinema.layers.reading import clip_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

OVERLAP = 9 / 13  # of a segment; latent frames in the authors' code
BLOCKS = 5 / 6  # the share of the blocks ahead of those that share keys and values


@dataclass(eq=False)
class Subject:
    """Where a subject is seen in each segment, by how much the tokens of the clip look at the words for it."""

    tokens: list[list[int]]  # by segment: which tokens of its text are the words
    looked: Tensor | None = None  # (B, L): the probability of these words, summed over the layers so far
    masks: dict[tuple[int, str, int], Tensor] = field(default_factory=dict)  # segment, role, block -> (B, L) bool

    def look(
        self, segment: int, q: Tensor, k: Tensor, v: Tensor, positions: Positions, next: Attention, count: int
    ) -> None:
        """Adds what a layer shows of it, the mean of all heads; count: tokens of the segment."""
        marks = torch.zeros_like(v)  # attention to values that are 1 at the words is how much they are looked at
        marks[:, :, positions.text_keys(self.tokens[segment]), 0] = 1
        probability = next(q, k, marks, positions)[..., 0].float().mean(dim=1)
        token = _token_of(positions, "q", q.shape[2], count)
        if self.looked is None:
            self.looked = probability.new_zeros(len(q), count)
        self.looked[:, token[token >= 0]] += probability[:, token >= 0]


@dataclass(eq=False)
class Segments:
    """What a run knows of its segments."""

    parts: list[Window]
    texts: list[Mapping[str, Tensor] | None]
    blocks: range  # that share
    masked: bool = False  # whether the model masks its text, as long as that of the segment is
    subject: Subject | None = None  # that is shared apart from what is behind it
    number: int = 0  # of the segment in the model
    role: str = ""  # of that segment: "source", "target" or neither
    kept: dict[Site, tuple[Tensor, Tensor, Positions | None]] = field(default_factory=dict)  # of the source

    def masks_at(self, block: int) -> tuple[Tensor, Tensor] | None:
        """Where the source and the target in the model show their subject at a block; None while that is not known."""
        known = {} if self.subject is None else self.subject.masks
        both = (self.number - 1, "source", block), (self.number, "target", block)
        return (known[both[0]], known[both[1]]) if all(key in known for key in both) else None


@technique("ditctrl", paper="arXiv:2412.18597", base="CogVideoX-2B", neutral=dict(window=10_000))
@dataclass(frozen=True, kw_only=True)
class DiTCtrl(Technique):
    """Segment s + 1 attends to the keys and values of segment s; overlaps are blended with weights of a triangle.

    Each pair of neighbours is asked as source and target; between two prompts `transitions` segments read mixtures of
    them. Queries of the target meet keys and values of the source in the steps of `share_range` and in `block_range`;
    in joint attention those of its text too. With a `subject`, queries where the target shows it meet what the source
    has of it, and all others the rest: a mask is where the words are looked at, from `threshold` on, as the layers so
    far have it on average, from 0 to 1 in each frame. v = sum w v_s / sum w over both answers of every segment, with
    w = 1, 3, 5 up to the middle and down again. A clip of one segment is made as ever.
    Paper: "DiTCtrl: Exploring Attention Control in Multi-Modal Diffusion Transformer for Tuning-Free Multi-Prompt
    Longer Video Generation", 2024, arXiv:2412.18597. Departures: velocities are blended in the place of clean
    estimates, with one history of the solver; the clip has the length that was asked for, and segments are mixed by
    how far their middle is from one event's middle to the next, in steps of 1 / (transitions + 1). In steps that share
    nothing source and target are one call. Steps 2 to 24 of 50 are noise levels here (those of CogVideoX-2B's
    schedule), 5 of 30 blocks the last sixth. With text in an attention of its own, or masked behind its end, a target
    keeps reading its own. With a causal autoencoder the answer for the first frame of all segments but the first is
    thrown away. Branches without the prompt take the masks of the one with it.
    Where text is an attention of its own, masks begin behind the first that is looked at; a segment that shows no part
    of its subject is not masked. Mixtures of two texts have the words where either text has them.
    Shapes: velocities (B, C, T, H, W); keys and values (B, N, L, D).
    Raises: KinemaError at start, for segments that do not overlap, values out of range, events that overlap, and words
    for a subject that an event's text does not say, or that no block is asked for ahead of those that share.
    """

    windowed = True
    follows_times = True

    window: int | None = None  # latent frames of a segment; None is the length the model was trained on
    overlap: int | None = None  # latent frames that two segments share, 1..window - 1; None is 9/13 of it
    transitions: int = 2  # segments between two prompts, 0 or more
    share_range: tuple[float, float] = (0.99, 0.76)  # noise levels, from high to low
    subject: str = ""  # words that each event's text says for what is shared apart from its surroundings; "" is nothing
    threshold: float = 0.3  # of the subject's masks, no unit, above 0, at most 1

    def start(self, run: Run) -> None:
        if self.transitions < 0:
            raise KinemaError(f"transitions of {self.name} is {self.transitions}; use 0 or more")
        if not 1 >= self.share_range[0] >= self.share_range[1] >= 0:
            raise KinemaError(f"share_range of {self.name} is {self.share_range}; use two levels from 1 down to 0")
        if not 0 < self.threshold <= 1:
            raise KinemaError(f"threshold of {self.name} is {self.threshold}; use more than 0, and 1 at most")
        size = windows_of(run, self, self.window, None, fraction=1.0)[0].stop
        overlap = min(max(round(size * OVERLAP), 1), size - 1) if self.overlap is None else self.overlap
        if size < run.conditions.shape[2] and not 1 <= overlap < size:
            raise KinemaError(f"overlap of {self.name} is {overlap} latent frames; use 1 to {size - 1}")
        step = run.backbone.patch[0]
        parts = windows_of(run, self, size, max((size - overlap) // step * step, step), fraction=1.0, alike=True)
        found = events_of(run, self.name)
        if (found.frames.sum(dim=0) > 1).any():
            raise KinemaError(f"{self.name} lets events follow each other, and some overlap here; part them in time")
        ahead = run.conditions.shape[2] - found.frames.shape[1]
        texts: list[Any] = [None] * len(parts)
        prompts: list[tuple[str, ...]] = [(run.requests[0].text,)] * len(parts)
        if len(found.texts) > 1 and len(parts) > 1:
            blends = mixtures(found, [_middle(w) - ahead for w in parts], self.transitions)
            texts, prompts = run.encoded(blends), [blend.prompts for blend in blends]
        blocks = 1 + max(site.block for site in run.backbone.sites)
        first, last = self.block_range or (min(int(blocks * BLOCKS), blocks - 1), blocks - 1)
        masked = any(name.endswith("mask") for text in texts for name in text or ())
        run.state[self] = Segments(parts, texts, range(first, last + 1), masked)
        if self.subject:
            run.state[self].subject = self._subject(run, prompts, last)

    def _subject(self, run: Run, prompts: Sequence[Sequence[str]], last: int) -> Subject:
        """The words for the subject in the texts of each segment; last: the last block that shares."""
        first = 0 if self.block_range is None else self.block_range[0]
        if not any(
            site.kind == "joint" or (site.kind == "cross" and first <= site.block < last) for site in run.backbone.sites
        ):
            raise KinemaError(f"{self.name} has nothing ahead of block {last} that reads its subject; use more blocks")
        try:
            said = {p: run.backbone.word_tokens(p, self.subject) for p in {p for each in prompts for p in each}}
        except KinemaError as error:
            raise KinemaError(f"subject of {self.name}: {error}") from None
        return Subject([sorted({token for p in each for token in said[p]}) for each in prompts])

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint") or (site.kind == "cross" and self.subject != "")

    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[..., Tensor]) -> Tensor:
        assert step.run is not None
        segments: Segments = step.run.state[self]
        last = len(segments.parts) - 1
        if last == 0:
            return next(x)
        shares = self.share_range[0] >= step.t >= self.share_range[1]
        seen, weights = [], []
        for i, (part, text) in enumerate(zip(segments.parts, segments.texts, strict=True)):
            weight = (triangle(part.stop - part.first) - 0.5)[part.lead :]
            roles = [role for role, there in (("target", i > 0), ("source", i < last)) if there]
            for role in roles if shares else [""]:
                segments.number, segments.role = i, role
                if segments.subject is not None:
                    segments.subject.looked = None
                if role == "source":
                    segments.kept.clear()
                seen.append((part, next(part.of(x), part, text)))
                weights.append(weight if shares else weight * len(roles))
        segments.role = ""
        return fuse(seen, x.shape[2], weights)

    def attend(
        self,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions | None,
        next: Attention,
    ) -> Tensor:
        assert step.run is not None
        segments: Segments = step.run.state[self]
        if segments.subject is not None and segments.role and positions is not None:
            self._look(segments.subject, step, site, q, k, v, positions, next)
        if site.block in segments.blocks and segments.role == "source" and site.kind != "cross":
            segments.kept[site] = k, v, positions
        elif segments.role == "target" and site in segments.kept:  # a cache may have left out the source's block
            *shared, places = segments.kept[site]
            if segments.masked and positions is not None and places is not None:
                to, of = positions.placed_keys, places.placed_keys
                k, v = (u.index_copy(2, to, source[:, :, of]) for u, source in zip((k, v), shared, strict=True))
            else:
                k, v = shared
                if positions is not None and places is not None:
                    positions = replace(positions, k=places.k, k_part=places.k_part)
            masks = segments.masks_at(site.block)
            if masks is not None and positions is not None:
                return parted(q, k, v, positions, next, *masks)
        return next(q, k, v, positions)

    def _look(
        self,
        subject: Subject,
        step: Step,
        site: Site,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        positions: Positions,
        next: Attention,
    ) -> None:
        """Sees how much this layer looks at the subject, and what that makes of its mask in a layer that shares."""
        assert step.run is not None
        segments: Segments = step.run.state[self]
        if site.block > segments.blocks[-1] or not step.run.reads_prompt(step.branch):
            return
        tokens = frame_tokens(step, site, q, k, positions)
        if site.kind != "self":
            count = tokens.frames * tokens.rows * tokens.columns
            subject.look(segments.number, q, k, v, positions, next, count)
        if site.kind != "cross" and site.block in segments.blocks and subject.looked is not None:
            by_frame = torch.unflatten(subject.looked, 1, (tokens.frames, -1))
            subject.masks[segments.number, segments.role, site.block] = mask_of(by_frame, self.threshold).flatten(1)


def mixtures(events: Events, middles: Sequence[float], transitions: int) -> list[Blend]:
    """The text of each segment by where its middle lies between the middles of two events, in whole transitions."""
    centres = [float(row.nonzero().float().mean()) + 0.5 for row in events.frames]
    found = []
    for middle in middles:
        after = sum(centre <= middle for centre in centres)
        if after in (0, len(centres)):
            found.append(Blend((events.texts[min(after, len(centres) - 1)],), (1.0,)))
            continue
        along = (middle - centres[after - 1]) / (centres[after] - centres[after - 1])
        weight = round(along * (transitions + 1)) / (transitions + 1)
        found.append(Blend((events.texts[after - 1], events.texts[after]), (1 - weight, weight)))
    return found


def mask_of(looked: Tensor, threshold: float) -> Tensor:
    """Where words are looked at, (..., cells) bool, by the least and the most of each frame; nowhere in an even one."""
    least, most = looked.aminmax(dim=-1, keepdim=True)
    return (looked - least >= threshold * (most - least)) & (most > least)


def parted(
    q: Tensor, k: Tensor, v: Tensor, positions: Positions, next: Attention, source: Tensor, target: Tensor
) -> Tensor:
    """Attention in which queries of the clip in the mask `target` see its keys in `source`, and the others the others.

    source, target: (B, L) bool, of all tokens of the segment. Text, and what stands beside the clip, sees all and is
    seen by all.
    """
    of_q, of_k = (_token_of(positions, side, u.shape[2], source.shape[1]) for side, u in (("q", q), ("k", k)))
    of_clip = of_k >= 0
    inside, outside = of_clip & source[:, of_k.clamp(min=0)], of_clip & ~source[:, of_k.clamp(min=0)]
    both = inside.any(dim=1, keepdim=True) & outside.any(dim=1, keepdim=True)  # otherwise some would see nothing
    subject, rest = (
        next(q, k, v, positions, k.new_zeros(hidden.shape).masked_fill(hidden & both, -torch.inf)[:, None, None])
        for hidden in (outside, inside)
    )
    out = torch.where(target[:, None, of_q.clamp(min=0), None], subject, rest)
    others = (of_q < 0).nonzero().flatten()
    if len(others):
        out[:, :, others] = next(q[:, :, others], k, v, positions.part(q=others))
    return out


def _token_of(positions: Positions, side: str, passed: int, count: int) -> Tensor:
    """Which of the `count` tokens of the clip each of the tokens that are passed is, (passed,); -1 for all others."""
    placed, number = clip_tokens(positions, side)
    found = torch.full((passed,), -1, device=placed.device)
    found[placed] = torch.where(number < count, number, -1)
    return found


def _middle(part: Window) -> float:
    return (part.counted.start + part.counted.stop) / 2

"""Several prompts in one long shot: each segment looks at the one ahead of it as if it were its own past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kinema.core.blend import Blend
from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique
from kinema.core.windows import Window, fuse, triangle, windows_of
from kinema.layers.events import Events, events_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step

OVERLAP = 9 / 13  # of a segment; latent frames in the authors' code
BLOCKS = 5 / 6  # the share of the blocks ahead of those that share keys and values


@dataclass(eq=False)
class Segments:
    """What a run knows of its segments."""

    parts: list[Window]
    texts: list[Mapping[str, Tensor] | None]
    blocks: range  # that share
    masked: bool = False  # whether the model masks its text, as long as that of the segment is
    role: str = ""  # of the segment in the model: "source", "target" or neither
    kept: dict[Site, tuple[Tensor, Tensor, Positions | None]] = field(default_factory=dict)  # of the source


@technique("ditctrl", paper="arXiv:2412.18597", base="CogVideoX-2B", neutral=dict(window=10_000))
@dataclass(frozen=True, kw_only=True)
class DiTCtrl(Technique):
    """Segment s + 1 attends to the keys and values of segment s; overlaps are blended with weights of a triangle.

    Each pair of neighbours is asked as source and target; between two prompts `transitions` segments read mixtures of
    them. Queries of the target meet keys and values of the source in the steps of `share_range` and in `block_range`;
    in joint attention those of its text too. v = sum w v_s / sum w over both answers of every segment, with w = 1, 3, 5
    up to the middle and down again. A clip of one segment is made as ever.
    Paper: "DiTCtrl: Exploring Attention Control in Multi-Modal Diffusion Transformer for Tuning-Free Multi-Prompt
    Longer Video Generation", 2024, arXiv:2412.18597. Departures: velocities are blended in the place of clean
    estimates, with one history of the solver; the clip has the length that was asked for, and segments are mixed by
    how far their middle is from one event's middle to the next, in steps of 1 / (transitions + 1). In steps that share
    nothing source and target are one call. Steps 2 to 24 of 50 are noise levels here (those of CogVideoX-2B's
    schedule), 5 of 30 blocks the last sixth. With text in an attention of its own, or masked behind its end, a target
    keeps reading its own. With a causal autoencoder the answer for the first frame of all segments but the first is
    thrown away. The variant with masks of a subject is left out.
    Shapes: velocities (B, C, T, H, W); keys and values (B, N, L, D).
    Raises: KinemaError at start, for segments that do not overlap, values out of range, and events that overlap.
    """

    windowed = True
    follows_times = True

    window: int | None = None  # latent frames of a segment; None is the length the model was trained on
    overlap: int | None = None  # latent frames that two segments share, 1..window - 1; None is 9/13 of it
    transitions: int = 2  # segments between two prompts, 0 or more
    share_range: tuple[float, float] = (0.99, 0.76)  # noise levels, from high to low

    def start(self, run: Run) -> None:
        if self.transitions < 0:
            raise KinemaError(f"transitions of {self.name} is {self.transitions}; use 0 or more")
        if not 1 >= self.share_range[0] >= self.share_range[1] >= 0:
            raise KinemaError(f"share_range of {self.name} is {self.share_range}; use two levels from 1 down to 0")
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
        if len(found.texts) > 1 and len(parts) > 1:
            texts = run.encoded(mixtures(found, [_middle(w) - ahead for w in parts], self.transitions))
        blocks = 1 + max(site.block for site in run.backbone.sites)
        first, last = self.block_range or (min(int(blocks * BLOCKS), blocks - 1), blocks - 1)
        masked = any(name.endswith("mask") for text in texts for name in text or ())
        run.state[self] = Segments(parts, texts, range(first, last + 1), masked)

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint")

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
                segments.role = role
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
        next: Callable[..., Tensor],
    ) -> Tensor:
        assert step.run is not None
        segments: Segments = step.run.state[self]
        if site.block in segments.blocks and segments.role == "source":
            segments.kept[site] = k, v, positions
        elif segments.role == "target" and site in segments.kept:  # a cache may have left out the source's block
            *shared, places = segments.kept[site]
            if segments.masked and positions is not None and places is not None:
                to, of = positions.placed_keys, places.placed_keys
                k, v = (u.index_copy(2, to, source[:, :, of]) for u, source in zip((k, v), shared, strict=True))
                return next(q, k, v, positions)
            k, v = shared
            if positions is not None and places is not None:
                positions = replace(positions, k=places.k, k_part=places.k_part)
        return next(q, k, v, positions)


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


def _middle(part: Window) -> float:
    return (part.counted.start + part.counted.stop) / 2

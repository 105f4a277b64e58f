"""Steadier frames over a structure: noise they share, attention across them, and a smoother of the clean estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique
from kinema.layers.between import blended, followed
from kinema.layers.frames import FrameTokens, Kept, View, frame_tokens

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run

WAYS = {"flow": followed, "blend": blended}


@technique(
    "controlvideo",
    paper="arXiv:2305.13077",
    base="Stable Diffusion 1.5 with ControlNet",
    neutral=dict(shared=0.0, smooth=(), across=False),
)
@dataclass(frozen=True, kw_only=True)
class ControlVideo(Technique):
    """Noise sqrt(s) one + sqrt(1 - s) own; attention of a frame to all; x0 smoothed, x' = (1 - t') x0~ + t' noise.

    Smoother: the clean estimate is decoded, and at the first level every odd frame, at the next every even one, becomes
    what lies halfway between its neighbours; a frame at an end stands for the neighbour that it lacks, but an odd last
    one stays. The noise that the model saw stays. Hierarchical sampler: key frames, every (W - 1)-th and the last with
    W = sqrt(T) rounded down, see each other; all other frames see the two key frames around them, and nothing else.
    It stands over an adapter that keeps a structure, as `gen1` does.
    Paper: "ControlVideo: Training-free Controllable Text-to-Video Generation", 2023, arXiv:2305.13077, and its authors'
    code for what it leaves open (which frames come first, neighbours at the ends).
    Departures: a model of images has no motion of its own, and all its frames begin with one noise, `shared` = 1; a
    video model flickers no less for it, so none is the default. It is one map for all passes of a long clip. Attention
    across frames is for layers that see single frames, as those of a UNet; where a transformer sees all tokens
    together it does that already, and nothing is changed. Frames are interpolated along the flow of dense inverse
    search, or as their mean ("blend"), where the paper has the network RIFE, which would be one more download. Steps
    19 and 20 from the end of 50 are the noise levels 0.52 and 0.51 of Stable Diffusion's schedule; the model's own
    steps behind them bring some of the flicker back, and later levels leave less of it, with the same structure. The
    steps nearest to `smooth` are taken, and a solver of several steps begins anew behind them. What is coded again is
    the difference that the smoother makes, so that frames which it leaves alone lose nothing. Where a latent frame
    stands for several frames, key frames are latent frames. Frames in between keep their own tokens in sight unless
    `own` is false, as in the paper: there the layers of a ControlNet tell a frame where its things are, here only its
    own tokens do.
    Shapes: latents (B, C, T, H, W); frames (B, T', H', W', 3) uint8; q, k, v (B, N, L, D).
    Raises: KinemaError at start, without such an adapter, for values out of range, or too few steps for the levels.
    """

    alike: ClassVar[bool] = True

    shared: float = 0.0  # share of the noise that is the same in all frames, 0 to 1; the paper's is 1
    smooth: tuple[float, ...] = (0.2, 0.1)  # noise levels at which frames are smoothed, from high to low; () is none
    interpolation: str = "flow"  # how: flow, or blend
    across: bool = True  # whether layers that see single frames see all of them
    hierarchical: bool = False  # whether frames see key frames alone, for long clips
    own: bool = True  # whether frames between key frames see themselves as well

    def start(self, run: Run) -> None:
        if not any("structure" in t.provides for t in run.techniques):
            raise KinemaError(f"{self.name} makes a structure steadier, and none is kept; add gen1 with its source")
        if not 0 <= self.shared <= 1:
            raise KinemaError(f"shared of {self.name} is {self.shared:g}; use 0 to 1")
        if self.interpolation not in WAYS:
            raise KinemaError(f"interpolation of {self.name} is {self.interpolation!r}; use {' or '.join(WAYS)}")
        run.state[self] = _State(self._steps(run))
        if self.smooth and self.interpolation == "flow":
            followed(*np.zeros((2, 16, 16, 3), np.uint8))  # is OpenCV there?

    def _steps(self, run: Run) -> dict[int, int]:
        """Step -> 1 where odd frames are smoothed, 0 where even ones are. Raises: KinemaError."""
        levels, found = [step.t for step in run.schedule], dict[int, int]()
        if sorted(self.smooth, reverse=True) != list(self.smooth) or not all(0 < level < 1 for level in self.smooth):
            raise KinemaError(f"smooth of {self.name} is {self.smooth}; use noise levels below 1, the highest first")
        for number, level in enumerate(self.smooth):
            later = range(max(found, default=-1) + 1, len(levels) - len(self.smooth) + number + 1)
            left = [i for i in later if self.active(run.schedule[i])]
            if not left:
                raise KinemaError(f"{len(levels)} steps are too few for the levels of {self.name}, {self.smooth}")
            found[min(left, key=lambda i: abs(levels[i] - level))] = 1 - number % 2
        return found

    # One noise.

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        if self.shared == 0:
            return x
        handed, state = run.carried[self], run.state[self]
        one = handed.get("one")
        if one is None:
            shape = (1, x.shape[1], 1, *x.shape[3:])
            one = torch.cat([torch.randn(shape, generator=g, device=g.device) for g in run.generators])
        state.one = one.to(x)
        return mixed(x, state.one, self.shared)

    def carry(self, run: Run, x: Tensor) -> Mapping[str, Tensor]:
        one = run.state[self].one
        return {} if one is None else {"one": one}

    # Attention.

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "spatial")

    def attend(
        self, step: Step, site: Site, q: Tensor, k: Tensor, v: Tensor, positions: Positions | None, next: Attention
    ) -> Tensor:
        assert step.run is not None
        state: _State = step.run.state[self]
        if site.kind == "spatial":
            frames = step.run.conditions.shape[2] if step.window is None else step.window.stop - step.window.first
            return self._across(q, k, v, frames, next) if self.across else next(q, k, v, positions)
        if not self.hierarchical or positions is None:
            return next(q, k, v, positions)
        tokens = frame_tokens(step, site, q, k, positions)
        out = torch.empty_like(q)
        for view in state.views.of(tokens, positions, lambda: self._views(tokens, positions)):
            out[:, :, view.q] = view.attend(q, k, v, next)
        return out

    def _across(self, q: Tensor, k: Tensor, v: Tensor, frames: int, next: Attention) -> Tensor:
        """Of layers whose frames stand in the batch, (B T, N, L, D)."""
        apart = [u.reshape(len(u) // frames, frames, *u.shape[1:]) for u in (q, k, v)]
        out = torch.empty_like(apart[0])
        for of_q, of_k in self._seen(frames):
            some = zip(apart, (of_q, of_k, of_k), strict=True)
            one, keys, values = (u[:, of].transpose(1, 2).flatten(2, 3) for u, of in some)  # (B, N, T L, D)
            found = next(one, keys, values, None)
            out[:, of_q] = found.reshape(*found.shape[:2], len(of_q), *q.shape[2:]).transpose(1, 2)
        return out.flatten(0, 1)

    def _seen(self, frames: int) -> list[tuple[list[int], list[int]]]:
        """Frames that ask, and those that they see."""
        every = list(range(frames))
        return groups(frames, self.own) if self.hierarchical else [(every, every)]

    def _views(self, tokens: FrameTokens, positions: Positions) -> list[View]:
        """The same for tokens; what is of no frame sees everything, and is seen by all."""
        found = []
        for of_q, of_k in self._seen(tokens.frames):
            asks, seen = (_among(u, frames) for u, frames in ((tokens.q, of_q), (tokens.k, of_k)))
            found.append(View.of(positions, asks.nonzero().flatten(), (seen | (tokens.k < 0)).nonzero().flatten()))
        rest = (tokens.q < 0).nonzero().flatten()
        if len(rest):
            found.append(View.of(positions, rest, torch.arange(len(tokens.k), device=tokens.k.device)))
        return found

    # Smoother.

    def clean(self, step: Step, x0: Tensor) -> Tensor:
        assert step.run is not None and step.x is not None
        state: _State = step.run.state[self]
        if step.index in state.steps:
            known, t = step.run.path, step.t
            noise = known.noise(step.x, (step.x - x0) / t, t)
            better = smoothed(step.run, x0, state.steps[step.index], WAYS[self.interpolation])
            state.next = known.add_noise(better, noise, step.t_next)
        return x0

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        state: _State = step.run.state[self]
        if state.next is None:
            return x
        found, state.next = step.run.hold(state.next).to(x), None
        step.run.solver.restart()
        return found


@dataclass(eq=False)
class _State:
    """Of one run."""

    steps: Mapping[int, int]  # step -> 1 where odd frames are smoothed, 0 where even ones are
    one: Tensor | None = None  # the noise that all frames share, (B, C, 1, H, W)
    next: Tensor | None = None  # where the latents go behind this step
    views: Kept[list[View]] = field(default_factory=Kept)


def mixed(x: Tensor, one: Tensor, share: float) -> Tensor:
    """sqrt(share) one + sqrt(1 - share) x: noise (B, C, T, H, W) with unit variance, of which frames share a part."""
    return math.sqrt(share) * one + math.sqrt(1 - share) * x


def key_frames(frames: int) -> list[int]:
    """Every (W - 1)-th frame and the last one, W = sqrt(frames) rounded down, 3 at least."""
    apart = max(math.isqrt(frames), 3) - 1
    return sorted({*range(0, frames, apart), frames - 1})


def groups(frames: int, own: bool = False) -> list[tuple[list[int], list[int]]]:
    """Frames that ask and frames that they see: key frames each other, those between two of them these two.

    own: each of those between sees itself, too.
    """
    keys = key_frames(frames)
    found = [(keys, keys)]
    for before, behind in pairwise(keys):
        between = list(range(before + 1, behind))
        if own:
            found += [([i], [before, i, behind]) for i in between]
        elif between:
            found.append((between, [before, behind]))
    return found


def interleaved(frames: np.ndarray, odd: int, way: object) -> np.ndarray:
    """Frames (T, H, W, 3) uint8, of which every odd one (1) or even one (0) is what lies between its neighbours."""
    assert callable(way)
    found, last = frames.copy(), len(frames) - 1
    for i in range(odd, len(frames), 2):
        if last and (odd == 0 or i < last):  # the authors leave an odd last frame as it is
            found[i] = way(frames[max(i - 1, 0)], frames[min(i + 1, last)])
    return found


def smoothed(run: Run, x0: Tensor, odd: int, way: object) -> Tensor:
    """The clean estimate with interleaved frames smoothed: x0 + code(smoothed) - code(as it was)."""
    backbone = run.backbone
    before = backbone.decode(x0, run.conditions)
    after = torch.from_numpy(np.stack([interleaved(clip, odd, way) for clip in before.numpy()]))
    changed = backbone.encode(as_video(after)) - backbone.encode(as_video(before))
    ahead = x0.shape[2] - changed.shape[2]  # latent frames that some models put ahead of a clip
    return x0 + torch.nn.functional.pad(changed.to(x0), (0, 0, 0, 0, ahead, 0))


def _among(u: Tensor, numbers: Sequence[int]) -> Tensor:
    return torch.isin(u, torch.tensor(list(numbers), device=u.device))

"""What the methods share that give a video the motion of a reference clip."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.technique import Technique
from kinema.layers.clips import clip_latents
from kinema.layers.motion_flow import attention_flow, flow_error
from kinema.layers.reading import clip_tokens, read_attention, self_attentions

if TYPE_CHECKING:
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run
    from kinema.core.technique import Step
    from kinema.core.windows import Window

FIRST = 0  # the block that reads the reference's keys and values


@dataclass(kw_only=True)
class Following:
    """The clip that is followed, and what is known of it in one run."""

    latents: Tensor | None  # of the reference, clean, (1, C, T, H, W); None where nothing is followed
    steps: list[Step]  # those in which the method acts
    block: int  # whose attention is compared
    grid: tuple[int, int, int]  # frames, rows and columns of tokens
    noise: Tensor | None = None  # that the run began with
    flow: Tensor | None = None  # of the reference, (1, T, T, S, 2), tokens
    injected: tuple[Tensor, Tensor] | None = None  # keys before rotary positions and values of this step, (B, N, L, D)


@dataclass(frozen=True, kw_only=True)
class MotionTransfer(Technique, ABC):
    """Base of the methods that optimise something until attention moves as it does in a reference clip."""

    files: ClassVar[tuple[str, ...]] = ("reference",)

    reference: str = ""  # a video or a folder of pictures; stretched to the size and length of the clip
    noise_range: tuple[float, float] = (1.0, 0.895)  # guided steps; the first 20% of CogVideoX 5B's 50
    iterations: int = 5  # steps of Adam before each guided step of the solver; 0 optimises nothing
    lr: tuple[float, float] = (0.002, 0.001)  # of Adam, at the first guided step and behind the last; no unit, above 0
    temperature: float = 2.0  # of the logits of attention, above 0; higher is closer to the best match
    block: int | None = None  # whose attention is compared; None is the middle one
    inject: bool = True  # whether the first block reads the keys and values of the reference in the guided steps

    def start(self, run: Run) -> None:
        if self.iterations < 0:
            raise KinemaError(f"iterations of {self.name} is {self.iterations}; use 0 or more")
        if self.temperature <= 0:
            raise KinemaError(f"temperature of {self.name} is {self.temperature:g}; use a number above 0")
        if min(self.lr) <= 0:
            lr = " to ".join(f"{rate:g}" for rate in self.lr)
            raise KinemaError(f"lr of {self.name} is {lr}; use numbers above 0")
        if self.block_range is not None:
            raise KinemaError(
                f"block_range of {self.name} is {self.block_range}; name the block it compares with block"
            )
        if run.chunk.count > 1:
            raise KinemaError(
                f"{self.name} follows one clip, and this video is made in {run.chunk.count} chunks; make it in one, or "
                f"leave {self.name} out"
            )
        blocks = self_attentions(run)
        block = max(b for b in blocks if b <= run.backbone.block_count // 2) if self.block is None else self.block
        if block not in blocks:
            raise KinemaError(f"block of {self.name} is {block}; use {blocks[0]} to {blocks[-1]}")
        frames, rows, columns = (n // p for n, p in zip(run.conditions.shape[2:], run.backbone.patch, strict=True))
        followed = self.optimises or self.injects
        if followed and frames < 2:
            raise KinemaError(f"{self.name} follows motion, and a video this short has none; ask for more frames")
        run.state[self] = Following(
            latents=clip_latents(run, self.reference, f"reference of {self.name}", least=2) if followed else None,
            steps=[step for step in run.schedule if self.active(step)],
            block=block,
            grid=(frames, rows, columns),
        )

    @property
    def optimises(self) -> bool:
        return self.iterations > 0

    @property
    def injects(self) -> bool:
        return self.inject

    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        run.state[self].noise = x
        return x

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        assert step.run is not None
        state: Following = step.run.state[self]
        if step.run.rests(step):
            return x
        if self.injects:
            state.injected = self._keys_and_values(step, x)
        if self.optimises and state.flow is None:
            state.flow = self._flow(step, _clean(state, x), [], hard=True, t=0.0, prompt="")[:1]
        return self.follow(step, x) if self.optimises else x

    @abstractmethod
    def follow(self, step: Step, x: Tensor) -> Tensor:
        """Optimises before a guided step; returns the latents with which it is made."""

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
        k, v = self.injected(step, site, k, v, positions)
        return next(q, k, v, positions)

    def injected(
        self, step: Step, site: Site, k: Tensor, v: Tensor, positions: Positions | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values; in the first block those of the reference stand in the place of the clip's."""
        assert step.run is not None
        state: Following = step.run.state[self]
        if state.injected is None or positions is None or site.block != FIRST:
            return k, v
        rows, tokens = clip_tokens(positions, "k")
        first, stop = _part(step.window, state.grid, step.run.backbone.patch[0])
        mine = tokens < stop - first  # others stand beside the clip
        rows, tokens = rows[mine], tokens[mine] + first
        keys, values = (u[:, :, tokens] for u in state.injected)
        return k.index_copy(2, rows, keys.to(k)), v.index_copy(2, rows, values.to(v))

    def error(self, step: Step, x: Tensor) -> Tensor:
        """How far attention moves otherwise than in the reference, squared tokens, when the model sees latents x.

        The sum over samples, so that the gradient of one does not depend on how many stand beside it.
        """
        assert step.run is not None
        return len(x) * flow_error(self._flow(step, x, [self]), step.run.state[self].flow)

    def optimised(self, step: Step, begin: Tensor, error: Callable[[Tensor], Tensor]) -> Tensor:
        """`begin` after some steps of Adam that make `error` of it smaller."""
        assert step.run is not None
        steps = step.run.state[self].steps
        done = [guided.index for guided in steps].index(step.index) / len(steps)
        with torch.enable_grad():
            u = begin.detach().clone().requires_grad_(True)
            adam = torch.optim.Adam([u], lr=self.lr[0] + done * (self.lr[1] - self.lr[0]))
            for _ in range(self.iterations):
                (u.grad,) = torch.autograd.grad(error(u), u)
                adam.step()
        return u.detach()

    def _flow(
        self, step: Step, x: Tensor, techniques: Sequence[Technique], hard: bool = False, **reading: Any
    ) -> Tensor:
        assert step.run is not None
        state: Following = step.run.state[self]
        (seen,) = read_attention(step.run, step, x, [state.block], techniques=techniques, **reading)
        q, k = (u[:, :, seen.clip] for u in seen.turned)
        return attention_flow(q, k, state.grid, self.temperature, hard)

    def _keys_and_values(self, step: Step, x: Tensor) -> tuple[Tensor, Tensor]:
        """Of the first block at the reference with the run's own noise, at the level of the step."""
        assert step.run is not None
        run, state = step.run, step.run.state[self]
        clean, known = _clean(state, x), run.conditions.known_frames
        noised = run.path.add_noise(clean, state.noise.to(x), step.t)
        noised = noised if known is None else torch.where(known, clean, noised)
        (seen,) = read_attention(run, step, noised, [FIRST])
        return seen.k[:, :, seen.clip], seen.v[:, :, seen.clip]


def _clean(state: Following, x: Tensor) -> Tensor:
    """The reference for every sample of latents x."""
    assert state.latents is not None
    return state.latents.to(x).expand_as(x)


def _part(window: Window | None, grid: tuple[int, int, int], patch: int) -> tuple[int, int]:
    """Which of the clip's tokens a call sees: the first, and the one behind the last."""
    size = grid[1] * grid[2]
    return (0, grid[0] * size) if window is None else (window.first // patch * size, window.stop // patch * size)

"""What a method is: a frozen dataclass whose hooks, by default, change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from kinema.core.attention import Positions, Site
    from kinema.core.run import Run

# What a branch of the guidance leaves out; a technique may name more with a mapping of its own.
STANDARD_BRANCHES: Mapping[str, frozenset[str]] = {
    "cond": frozenset(),
    "uncond": frozenset({"text"}),  # the negative prompt stands in for the prompt
}

HOOKS = (
    "init_noise", "before_step", "after_step", "velocity", "positions", "attend", "context", "tokens",
    "guide", "clean", "finish",
)  # fmt: skip
OWNED = ("guide", "context")


@dataclass(frozen=True)
class Step:
    """One solver step. Noise levels run from 1 (noise) to 0 (data)."""

    index: int
    count: int
    t: float  # noise level of the latents that go in
    t_next: float  # noise level of the latents that come out
    t_model: float | None = None  # level told to the model, where a scheduler rounds it; None is t
    run: Run | None = None
    branch: str = ""  # during a model call of its own: the branch of the guidance it is for

    @property
    def told(self) -> float:
        return self.t if self.t_model is None else self.t_model


@dataclass(frozen=True, kw_only=True)
class Technique:
    """Base of all methods. Subclasses override hooks; the base class keeps the window in which they act.

    A chained hook returns a new tensor of the same shape and never writes into the one it got. A nested hook gets
    `next` and calls it once, several times or not at all. What a run computes lives in `step.run.state[self]`,
    never on `self`, so that one object serves two threads.

    Shapes: latents x are (B, C, T, H, W); q, k, v are (B, N, L, D); positions are (L, 3) in latent cells.
    Raises: KinemaError at `start`, the only place that refuses values.
    """

    name: ClassVar[str] = ""
    branches: ClassVar[tuple[str, ...] | Mapping[str, frozenset[str]]] = ("cond",)
    conflicts: ClassVar[tuple[str, ...]] = ()  # names of techniques it cannot run with

    noise_range: tuple[float, float] = (1.0, 0.0)  # acts while noise_range[0] >= t >= noise_range[1]; no unit
    block_range: tuple[int, int] | None = None  # hooks of attention act in blocks first .. last; None is all

    # Opening.
    def start(self, run: Run) -> None:
        """Checks values against the run and opens its state. Raises KinemaError for anything that cannot work."""

    def wants(self, site: Site) -> bool:
        """Whether `attend` should be called at this attention site."""
        return site.kind in ("self", "joint")

    # Chained.
    def init_noise(self, run: Run, x: Tensor) -> Tensor:
        return x

    def before_step(self, step: Step, x: Tensor) -> Tensor:
        return x

    def after_step(self, step: Step, x: Tensor) -> Tensor:
        return x

    def clean(self, step: Step, x0: Tensor) -> Tensor:
        return x0

    def positions(self, step: Step, site: Site, positions: Positions) -> Positions:
        return positions

    def finish(self, run: Run, x: Tensor) -> Tensor:
        return x

    # Nested.
    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[[Tensor], Tensor]) -> Tensor:
        return next(x)

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
        return next(q, k, v, positions)

    # Answered.
    def context(self, step: Step, site: Site, frames: int) -> Tensor | None:
        """Which texts each latent frame reads at a site, (S, frames) bool, one row a text of `run.read_texts`.

        None leaves it at the request's own prompt. A frame may read several texts; every frame reads one at least.
        """
        return None

    def tokens(self, step: Step) -> Any:
        return None

    # Owned.
    def guide(self, step: Step, **branches: Tensor) -> Tensor:
        return branches["cond"]

    # Kept here so that no subclass restates it.
    def active(self, step: Step) -> bool:
        return self.noise_range[0] >= step.t >= self.noise_range[1]

    @classmethod
    def overrides(cls, hook: str) -> bool:
        return getattr(cls, hook) is not getattr(Technique, hook)

    @classmethod
    def dropped(cls) -> Mapping[str, frozenset[str]]:
        """Branch name -> conditions it leaves out."""
        if isinstance(cls.branches, Mapping):
            return cls.branches
        return {name: STANDARD_BRANCHES[name] for name in cls.branches}

"""What a method is: a frozen dataclass whose hooks, by default, change nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from torch import Tensor

from kinema.core.chunks import Chunk
from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone, Conditions
    from kinema.core.attending import Attention
    from kinema.core.attention import Positions, Site
    from kinema.core.features import Inside, Place
    from kinema.core.run import Run
    from kinema.core.tokens import Tokens
    from kinema.core.windows import Window
    from kinema.request import Request

# What a branch of the guidance leaves out; a technique may name more with a mapping of its own.
STANDARD_BRANCHES: Mapping[str, frozenset[str]] = {
    "cond": frozenset(),
    "uncond": frozenset({"text"}),  # the negative prompt stands in for the prompt
}

# What every model can be asked without: how its frames hang together. It then sees each latent frame alone.
ALWAYS_DROPPABLE = frozenset({"time"})

HOOKS = (
    "init_noise", "before_step", "after_step", "velocity", "reword", "positions", "attend", "features", "context",
    "tokens", "skip", "cache", "guide", "clean", "finish",
)  # fmt: skip
OWNED = ("guide", "context", "cache", "chunks")


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
    window: Window | None = None  # during a model call: the part of the clip that it sees; None is all of it
    text: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False)  # read in the prompt's place
    of: str = "video"  # in `guide`: whose velocities these are, the video's or those of its companion, by name
    x: Tensor | None = field(default=None, compare=False, repr=False)  # in `guide` and `clean`: the latents at hand

    @property
    def told(self) -> float:
        return self.t if self.t_model is None else self.t_model


@dataclass
class Call:
    """Where a series of model calls is, for a cache that asks from inside the network. It belongs to one run.

    A series is what may share something from call to call: those of one branch of the guidance, or of the branches
    that go through the network as one batch, in steps one after the other.
    """

    step: Step  # its `branch` is the branch, or the joined names of several
    x: Tensor | None = None  # latents that went in, (B, C, T, H, W); None before the first call
    count: int = 0  # calls before this one
    networks: tuple[Any, ...] = ()  # the run's own, with the cache in them
    own: tuple[Cache, ...] = ()  # caches of kinema's own in these networks


class Cache(Protocol):
    """What the hook `cache` may give instead of a cache of diffusers: one of kinema's own, for one series of calls."""

    def parts(self, network: Any) -> Sequence[Any]:
        """The modules of a network whose calls go to `around`. Raises: ValueError, what the network has not."""

    def around(self, part: int, forward: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Stands for the forward of one of these modules."""

    def predict(
        self, ask: Callable[..., Tensor], x: Tensor, t: float, inputs: Mapping[str, Tensor], conditions: Conditions
    ) -> Tensor:
        """Stands for a call of the network, `ask(x, t, inputs, conditions)`, which may have more rows than x."""

    def forget(self) -> None:
        """Lets go of what was kept, at the end of the series."""


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
    alike: ClassVar[bool] = False  # looks into every branch in the same way, so that it may see several as one batch
    files: ClassVar[tuple[str, ...]] = ()  # fields that name a file or folder to read, which a recipe takes note of
    follows_times: ClassVar[bool] = False  # shows events at their times, with other hooks than context and chunks
    windowed: ClassVar[bool] = False  # shows the model its clip in windows, which one technique of a run may do
    works_on: ClassVar[tuple[str, ...]] = ()  # branches of the guidance without which it would do nothing
    provides: ClassVar[frozenset[str]] = frozenset()  # conditions it brings along, which a branch may leave out

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

    def reword(self, step: Step, text: Tensor, inside: Inside) -> Tensor:
        """Text tokens that the network is about to read, (B', P, D), as its text encoder gives them."""
        return text

    def features(self, step: Step, place: Place, h: Tensor, inside: Inside) -> Tensor:
        """Features of the clip's tokens as they leave a block, (B', L, D); see core/features.py."""
        return h

    def finish(self, run: Run, x: Tensor) -> Tensor:
        return x

    # Nested.
    def velocity(self, step: Step, x: Tensor, branch: str, next: Callable[..., Tensor]) -> Tensor:
        """`next(x)` asks about the latents, `next(window.of(x), window)` about a part of them (core/windows.py).

        `next(x, text=run.encoded(text))` asks with another text in the place of the prompt, where the branch reads it.
        """
        return next(x)

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
        """Attention of one site, see core/attending.py: `next(q, k, v, positions, bias)`, and `next.turn`."""
        return next(q, k, v, positions)

    # Answered.
    def context(self, step: Step, site: Site, frames: int) -> Tensor | None:
        """Which texts each latent frame of the clip reads, (S, frames) bool, one row a text of `run.read_texts`.

        None leaves it at the request's own prompt. A frame may read several texts; every frame reads one at least.
        """
        return None

    def tokens(self, step: Step) -> Tokens | None:
        """Latent frames that stand beside the clip in the calls of this step; None is nothing.

        It is also asked once before the first step, so that what cannot be honoured is refused there.
        """
        return None

    def sees(self, run: Run) -> int:
        """Most latent frames that attention over time sees together, at places that count from 0; asked behind `start`.

        Who shows it less than the whole clip in its steps says so here: then the clip may have more frames than the
        model has places for.
        """
        return int(run.conditions.shape[2])

    def skip(self, step: Step, block: int) -> bool:
        """Whether a block of the network is left out in this call: what goes in comes out."""
        return False

    def rest(self, step: Step) -> bool:
        """Whether the model is not asked in this step: v = 0, unless `clean` says where the latents go."""
        return False

    # Owned.
    def guide(self, step: Step, **branches: Tensor) -> Tensor:
        return branches["cond"]

    def needs(self, step: Step) -> Sequence[str]:
        """The branches that `guide` is given in this step; others are not called. None at all is rest: v = 0."""
        return tuple(self.dropped())

    def cache(self, run: Run, call: Call) -> Any:
        """What the network keeps from a call for the next ones: the configuration of diffusers' cache, or a `Cache`.

        Asked for each series of calls, and once before the first step, so that what cannot be done is refused there.
        Outside the technique's noise range the model is called as it is.
        """
        return None

    def chunks(self, backbone: Backbone, request: Request) -> Sequence[Chunk]:
        """The passes of the loop in which the video is made, one behind the other; see `core/chunks.py`.

        The frames they add are those that the request asks for in num_frames.
        """
        return [Chunk(request=request)]

    # Answered, at the end of every chunk but the last.
    def carry(self, run: Run, x: Tensor) -> Mapping[str, Tensor]:
        """What the next chunk finds at `start` as `run.carried[self]`; x: the clean latents of this one.

        It lies on the disk while a video is made. In the first chunk there is nothing, nor while the chunks are only
        opened, all before the first begins, to find what cannot be done.
        """
        return {}

    # Kept here so that no subclass restates it.
    def active(self, step: Step) -> bool:
        return self.noise_range[0] >= step.t >= self.noise_range[1]

    def answered(self, hook: str, found: Tensor, shape: Sequence[int]) -> Tensor:
        """What a hook returned. Raises: KinemaError, naming both, for anything but a tensor of this shape."""
        if isinstance(found, Tensor) and found.shape == tuple(shape):
            return found
        what = f"a tensor of {tuple(found.shape)}" if isinstance(found, Tensor) else f"{found!r:.40}"
        raise KinemaError(
            f"the hook {hook!r} of {self.name or type(self).__name__} returned {what}; let it return a tensor of "
            f"{tuple(shape)}"
        )

    @classmethod
    def reads(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """The files and folders that values of fields name, field by field."""
        return {field: str(options[field]) for field in cls.files if options.get(field)}

    @classmethod
    def overrides(cls, hook: str) -> bool:
        return getattr(cls, hook) is not getattr(Technique, hook)

    def dropped(self) -> Mapping[str, frozenset[str]]:
        """Branch name -> conditions it leaves out."""
        if isinstance(self.branches, Mapping):
            return self.branches
        return {name: STANDARD_BRANCHES[name] for name in self.branches}

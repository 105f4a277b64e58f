"""What a claim is: arms that make the same videos in different ways, what is compared, and what must not get worse.

A file in `kinema.claims.methods` is one claim; it is data and nothing has to be listed anywhere. The rule by which a
claim holds stands once, in `kinema.claims.bench.verdict`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.metric import Metric, metrics
from kinema.world.prompts import read_prompts

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.metrics.viewing import Viewing
    from kinema.world.spec import SceneSpec

Better = Literal["higher", "lower"]
Numbers = dict[str, float | None]  # measure -> value; None where a clip gives none
# Measured while a clip is made, all less is better: wall and processor time of its steps, and peak memory in MB.
COSTS = ("seconds", "cpu_seconds", "memory")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What every arm is asked for once, with the same seed."""

    text: str
    request: Mapping[str, Any] = field(default_factory=dict)  # more fields of the request: a clip, its keep, ...
    reference: np.ndarray | None = None  # (T, H, W, 3) uint8, for metrics that compare with a given clip
    spec: SceneSpec | None = None  # the scene that the text describes, where it is known
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # technique -> more fields: a clip, ...
    texts: Mapping[str, str] = field(default_factory=dict)  # arm -> a prompt of its own; it is judged by `text`


Own = Callable[["Backbone", Case, int, int | None], Numbers]  # of a model, a case, its seed and steps


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to make the videos."""

    name: str
    techniques: tuple[str, ...] = ()  # NAME or NAME:field=value,... as on the command line
    steps: int | None = None  # solver steps; None is the claim's
    request: Mapping[str, Any] = field(default_factory=dict)  # fields of the request of this arm alone
    as_fast_as: str | None = None  # an arm: this one takes so few steps that it needs the same time
    own: Own | None = None  # gives numbers by itself and makes no video


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A measure of one arm less that of another, pair by pair.

    The difference counts in the direction that is better. `slack` and `share` of the other's mean are what it may lose;
    negative, what it has to gain.
    """

    measure: str  # a metric, one of COSTS, or one of the claim's own measures
    arm: str
    against: str
    to: str | None = None  # the arm whose clips a metric with a reference compares with; None: those of the cases
    better: Better | None = None  # None: the metric's own direction
    slack: float = 0.0  # in the unit of the measure
    share: float = 0.0  # no unit, 0.25 is a quarter of the other arm's mean

    @property
    def label(self) -> str:
        """What values of the measure are called."""
        return self.measure if self.to is None else f"{self.measure} to {self.to}"


def prompts_of_the_world(count: int, backbone: Backbone) -> list[Case]:
    """The first of the fixed list of held-out combinations."""
    return [Case(text=p.text, spec=p.spec) for p in read_prompts("adherence", count)]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of its method, and how it is measured here."""

    name: str  # the method's, as on the command line
    says: str  # what is claimed, a short phrase
    paper: str  # the paper's figure, with where it was measured
    arms: tuple[Arm, ...]
    baseline: str  # arm that time and memory are set beside
    method: str  # arm of the method
    main: Comparison  # what is claimed
    guards: tuple[Comparison, ...]  # what the main measure could cheat on, and what holds beside it
    parts: tuple[Comparison, ...] = ()  # what single parts of the method should add; told, and not decisive
    model: str = "mini"  # of the paper's kind
    steps: int = 30  # solver steps; arms of their own may count something else
    quick_steps: int = 10  # with --quick
    request: Mapping[str, Any] = field(default_factory=dict)  # fields of the request of all arms: num_frames, ...
    cases: Callable[[int, Backbone], Sequence[Case]] = prompts_of_the_world
    measures: Mapping[str, Callable[[Viewing, Case], float | None]] = field(default_factory=dict)  # of its own
    means: Mapping[str, str] = field(default_factory=dict)  # of numbers that an arm's `own` gives, what they say
    notes: Mapping[str, str] = field(default_factory=dict)  # model -> why it does not hold there, once examined

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        named = {self.baseline, self.method, *(arm.as_fast_as for arm in self.arms if arm.as_fast_as)}
        for each in self.comparisons:
            named |= {each.arm, each.against, *([each.to] if each.to else [])}
            measured = each.measure in (*COSTS, *self.measures) or any(arm.own for arm in self.arms)
            if not measured and not isinstance(metrics().get(each.measure), Metric):
                raise ValueError(f"{each.measure} is no metric of one clip, no cost and no measure of the claim's own")
            self.better(each)
        if len({*names}) < len(names) or not named <= {*names}:
            raise ValueError(f"claim {self.name!r} has the arms {names} and names {sorted(named)}; name each arm once")

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        return (self.main, *self.guards, *self.parts)

    def arm(self, name: str) -> Arm:
        return next(arm for arm in self.arms if arm.name == name)

    def better(self, comparison: Comparison) -> Better:
        """The direction of a comparison. Raises: ValueError where nothing says it."""
        found = metrics().get(comparison.measure)
        own = found.better if isinstance(found, Metric) else "lower" if comparison.measure in COSTS else None
        direction = comparison.better or own
        if direction is None:
            raise ValueError(f"nothing says whether more {comparison.measure} is better; give the comparison `better`")
        return direction


def claims() -> dict[str, Claim]:
    """All claims by the name of their method."""
    import kinema.claims.methods as folder

    modules = [importlib.import_module(f"{folder.__name__}.{m.name}") for m in pkgutil.iter_modules(folder.__path__)]
    return {module.CLAIM.name: module.CLAIM for module in modules}


def find(name: str) -> Claim:
    """The claim of a method. Raises: KinemaError with the nearest name when there is none."""
    known = claims()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are claims of {', '.join(known)}"
    raise KinemaError(f"nothing is claimed of {name!r}; {hint}")

"""What a metric is, and the list of all of them.

A metric is one number with a unit, a range and a direction. It registers itself from its own file:

    @metric("flicker", unit="grey levels", low=0, high=255, better="lower", source="...", sees="noise", ignores="none")
    def flicker(clip: Viewing) -> float: ...

`flicker` is then a `Metric`: called with frames it gives the number, and it is known to the command line, the table of
docs/metrics.md and the contract test. A `SetMetric` compares two sets of clips by their features.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.extractors.extractor import Extractor, Given, load_extractor
from kinema.metrics.viewing import Viewing

TOPICS = ("distribution", "temporal", "prompt", "control", "vbench", "sound")  # folders that hold metrics
Need = Literal["prompt", "reference", "sound"]
Features = Sequence[np.ndarray]  # of each clip (D,) or (T, D) float32; lists, arrays, or files that are read row by row


@dataclass(frozen=True, kw_only=True)
class Number:
    """What is told about every metric.

    `sees` and `ignores` name corruptions (`kinema.metrics.corruptions`): along five grades of the first the metric gets
    steadily worse (or, without a direction, steadily larger or smaller), the second changes it by at most 2%.
    """

    name: str
    unit: str
    low: float  # range, both ends included; -inf and inf where there is none
    high: float
    better: Literal["higher", "lower"] | None  # None: neither is better in itself
    source: str  # paper, year, arXiv id; or where the definition comes from
    sees: str
    ignores: str
    extractor: str | None = None  # the extractor it uses unless told otherwise
    offline: str | None = None  # another that fits and needs no hub, where the usual one does
    topic: str
    summary: str  # first sentence of the docstring
    clips: int = 3  # how many it takes to see its faults, when it is tried out


@dataclass(frozen=True, kw_only=True)
class Metric(Number):
    """A number of one clip."""

    needs: tuple[Need, ...] = ()
    function: Callable[..., float | None]

    def __call__(
        self,
        frames: np.ndarray | Viewing,
        *,
        extractor: str | Extractor | None = None,
        prompt: str | None = None,
        reference: np.ndarray | Viewing | None = None,
        fps: float = 8.0,
        sound: np.ndarray | None = None,
        sample_rate: int = 16000,
    ) -> float | None:
        """The number of one clip; None where the clip or its prompt gives nothing to measure.

        Args:
            frames: (T, H, W, 3) uint8, or a `Viewing`, which then brings all but `extractor`.
            extractor: another than the usual one, by name or loaded, where the metric uses one.
            prompt, reference, sound: what was asked for, the clip to compare with, the sound; where `needs` names it.

        Raises:
            KinemaError: when something that the metric needs is missing or has a wrong shape.
        """
        clip = frames if isinstance(frames, Viewing) else Viewing(frames, fps, sound, sample_rate, prompt)
        if reference is not None:
            clip.reference = reference if isinstance(reference, Viewing) else Viewing(reference, fps)
        for need in self.needs:
            if getattr(clip, need) is None:
                raise KinemaError(f"{self.name} needs a {need}; give one with {need}=")
        if self.extractor is None:
            if extractor is not None:
                raise KinemaError(f"{self.name} uses no extractor; leave extractor out")
            value = self.function(clip)
        else:
            found = extractor if isinstance(extractor, Extractor) else load_extractor(extractor or self.extractor)
            value = self.function(clip, found)
        return None if value is None else float(value)


@dataclass(frozen=True, kw_only=True)
class SetMetric(Number):
    """A number of a set of clips, most often beside a reference set; computed from features of an extractor."""

    extractor: str
    features: Given  # what of the extractor it reads: "clip", "frames" or "logits"
    needs: tuple[Need, ...] = ("reference",)
    least: int = 2  # clips in each set
    function: Callable[..., float]

    def __call__(self, made: Features, reference: Features | None = None) -> float:
        """The number of a set of clips by their features, one array for each clip.

        Raises: KinemaError when there are fewer than `least` clips in a set, or no reference where one is needed.
        """
        if "reference" in self.needs and reference is None:
            raise KinemaError(f"{self.name} needs features of a reference set")
        sets = [made] if "reference" not in self.needs or reference is None else [made, reference]
        if any(len(each) < self.least for each in sets):
            raise KinemaError(
                f"{self.name} has {' and '.join(str(len(s)) for s in sets)} clips; it needs at least {self.least} a set"
            )
        return float(self.function(*sets))


_METRICS: dict[str, Metric | SetMetric] = {}
M = TypeVar("M", Metric, SetMetric)


def _register(kind: type[M], name: str, told: dict[str, Any]) -> Callable[[Callable[..., Any]], M]:
    def register(function: Callable[..., Any]) -> M:
        known = _METRICS.get(name)
        if known is not None and known.function.__module__ != function.__module__:
            raise RuntimeError(f"metric {name!r} is registered twice")
        topic = function.__module__.rpartition(".")[0].rpartition(".")[2]
        summary = " ".join((function.__doc__ or "").partition("\n\n")[0].split())
        made = kind(name=name, topic=topic, summary=summary, function=function, **told)
        _METRICS[name] = made
        return made

    return register


def metric(name: str, **told: Any) -> Callable[[Callable[..., float | None]], Metric]:
    """Registers a function of a `Viewing` (and of an `Extractor`, where one is named); `told` as in `Metric`."""
    return _register(Metric, name, told)


def set_metric(name: str, **told: Any) -> Callable[[Callable[..., float]], SetMetric]:
    """Registers a function of the features of one or two sets; `told` as in `SetMetric`."""
    return _register(SetMetric, name, told)


def metrics() -> dict[str, Metric | SetMetric]:
    """All metrics by name. Imports every topic folder the first time."""
    import kinema.metrics

    for topic in TOPICS:
        for root in kinema.metrics.__path__:
            for module in pkgutil.iter_modules([f"{root}/{topic}"]):
                importlib.import_module(f"kinema.metrics.{topic}.{module.name}")
    return dict(sorted(_METRICS.items()))


def find(name: str) -> Metric | SetMetric:
    """The metric called `name`. Raises KinemaError with the nearest name when there is none."""
    known = metrics()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "`kinema metrics` lists all metrics and presets"
    raise KinemaError(f"there is no metric {name!r}; {hint}")

"""Five grades of a fault, and what a metric makes of them."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.metrics.corruptions.corruption import GRADES, corruptions
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.features import features
from kinema.metrics.metric import Metric, SetMetric
from kinema.metrics.viewing import Viewing

IGNORED = 0.02  # how far a metric may move under what it should ignore
EVERY = 3  # a metric of sets that reads frames is tried on one frame in three, so that it does not take minutes

_SEEN: dict[Hashable, np.ndarray] = {}  # (extractor, shape, SHA-256 of a frame) -> its features, for this process


@dataclass(frozen=True)
class Ladder:
    """What a metric says of clips as they are, with five grades of what it sees, and with what it ignores."""

    metric: Metric | SetMetric
    values: tuple[float, ...]  # without the fault, then the five grades
    ignored: float  # the worst grade of what it should ignore

    @property
    def steady(self) -> bool:
        """No grade is better than the one before, and the last is worse than none; without a direction: one way."""
        steps = np.diff(self.values)
        way = {"higher": -1, "lower": 1, None: np.sign(self.values[-1] - self.values[0])}[self.metric.better]
        slack = 1e-9 * max(map(abs, self.values))
        return bool((steps * way >= -slack).all() and (self.values[-1] - self.values[0]) * way > slack)

    @property
    def moved(self) -> float:
        """How far the ignored fault moves it, as a share of its value, or of what the fifth grade does if that is more.

        A metric that is near 0 where nothing is wrong would otherwise be asked for 2% of nothing.
        """
        least = max(abs(self.values[0]), abs(self.values[-1] - self.values[0]))
        return abs(self.ignored - self.values[0]) / least if least else math.inf

    @property
    def holds(self) -> bool:
        return self.steady and self.moved <= IGNORED


class Trial:
    """Clips without a fault and with every one, each made once: what one metric computes about them serves the next."""

    def __init__(self, clips: Sequence[Viewing], kept: int = 12) -> None:
        """Each clip becomes its own reference. `kept`: of the clips with a fault, how many sets stay in memory."""
        self.clean = [clip.but(reference=clip.but(reference=None)) for clip in clips]
        self.having = functools.lru_cache(maxsize=kept)(self._having)

    def _having(self, fault: str, grade: float) -> list[Viewing]:
        """The clips with that fault at that grade."""
        return corruptions()[fault](self.clean, grade)

    @functools.cached_property
    def thinned(self) -> Trial:
        """The same with one frame in `EVERY`."""
        return Trial([clip.but(frames=clip.frames[::EVERY], fps=clip.fps / EVERY) for clip in self.clean])


def ladder(
    metric: Metric | SetMetric,
    trial: Trial,
    extractor: Extractor | None = None,
    grades: Sequence[float] = GRADES,
) -> Ladder | None:
    """Measures; None when the metric does not apply to any of the clips.

    A metric that needs a reference gets each clip without the fault as its own, a metric of sets the set without it.
    `extractor`: another than the usual one, or than the one that works offline.
    """
    if metric.extractor is not None and extractor is None:
        extractor = load_extractor(metric.offline or metric.extractor)
    if isinstance(metric, SetMetric) and metric.features == "frames":
        trial = trial.thinned
    clean = _value(metric, trial.clean, trial.clean, extractor)
    if clean is None:
        return None
    values = [clean, *(_value(metric, trial.having(metric.sees, g), trial.clean, extractor) for g in grades)]
    ignored = _value(metric, trial.having(metric.ignores, 1.0), trial.clean, extractor)
    nan = math.nan  # a fault may leave nothing to measure; that holds no claim
    return Ladder(metric, tuple(nan if v is None else v for v in values), nan if ignored is None else ignored)


def _value(
    metric: Metric | SetMetric, clips: Sequence[Viewing], clean: Sequence[Viewing], extractor: Extractor | None
) -> float | None:
    """The mean over those clips that have what the metric needs, or the number of the set; None without any."""
    if isinstance(metric, SetMetric):
        assert extractor is not None
        return metric(*([rows(clip, extractor, metric) for clip in each] for each in (clips, clean)))
    there = [clip for clip in clips if all(getattr(clip, need) is not None for need in metric.needs)]
    found = [value for clip in there if (value := metric(clip, extractor=extractor)) is not None]
    return float(np.mean(found)) if found else None


def rows(clip: Viewing, extractor: Extractor, metric: SetMetric) -> np.ndarray:
    """What a metric of sets reads of a clip; a frame that is in several clips is looked at once."""
    if metric.features != "frames":
        return features(clip, extractor, metric.features)  # type: ignore[arg-type]
    return clip.once(("frames", extractor.label), functools.partial(_of_frames, clip.frames, extractor))


def _of_frames(frames: np.ndarray, extractor: Extractor) -> np.ndarray:
    """Features (T, D) of each frame."""
    keys = [(extractor.label, frame.shape, hashlib.sha256(frame.tobytes()).digest()) for frame in frames]
    new = {key: t for t, key in enumerate(keys) if key not in _SEEN}
    if new:
        _SEEN.update(zip(new, extractor.frames(frames[list(new.values())]), strict=True))
    return np.stack([_SEEN[key] for key in keys])

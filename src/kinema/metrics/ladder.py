"""Five grades of a fault, and what a metric makes of them."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from kinema.metrics.corruptions.corruption import GRADES, Corruption, corruptions
from kinema.metrics.extractors.extractor import Extractor, load_extractor
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


def ladder(metric: Metric | SetMetric, clips: Sequence[Viewing], extractor: Extractor | None = None) -> Ladder | None:
    """Measures; None when the metric does not apply to any of the clips.

    A metric that needs a reference gets each clip without the fault as its own, a metric of sets the set without it.
    `extractor`: another than the usual one, or than the one that works offline.
    """
    if metric.extractor is not None and extractor is None:
        extractor = load_extractor(metric.offline or metric.extractor)
    if "reference" in metric.needs:
        clips = [clip.but(reference=clip.but(reference=None)) for clip in clips]
    clips = [clip for clip in clips if all(getattr(clip, need) is not None for need in metric.needs)]
    if not clips:
        return None
    if isinstance(metric, SetMetric) and metric.features == "frames":
        clips = [clip.but(frames=clip.frames[::EVERY], fps=clip.fps / EVERY) for clip in clips]
    faults = corruptions()
    clean = _value(metric, clips, clips, extractor)
    if clean is None:
        return None
    sees: Corruption = faults[metric.sees]
    values = [clean, *(_value(metric, sees(clips, grade), clips, extractor) for grade in GRADES)]
    ignored = _value(metric, faults[metric.ignores](clips, 1.0), clips, extractor)
    nan = math.nan  # a fault may leave nothing to measure; that holds no claim
    return Ladder(metric, tuple(nan if v is None else v for v in values), nan if ignored is None else ignored)


def _value(
    metric: Metric | SetMetric, clips: Sequence[Viewing], clean: Sequence[Viewing], extractor: Extractor | None
) -> float | None:
    """The mean over clips, or the number of the set."""
    if isinstance(metric, SetMetric):
        assert extractor is not None
        sets = [features(metric, each, extractor) for each in (clips, clean)]
        return metric(*sets)
    found = [value for clip in clips if (value := metric(clip, extractor=extractor)) is not None]
    return float(np.mean(found)) if found else None


def features(metric: SetMetric, clips: Sequence[Viewing], extractor: Extractor) -> list[np.ndarray]:
    """What a metric of sets reads of each clip; a clip that is in several sets is read once."""

    def read(clip: Viewing) -> np.ndarray:
        if metric.features == "frames":
            return _of_frames(clip.frames, extractor)
        of = extractor.clip if metric.features == "clip" else extractor.logits
        return of(clip.frames, clip.fps)

    key = ("features", extractor.label, metric.features)
    return [clip.once(key, functools.partial(read, clip)) for clip in clips]


def _of_frames(frames: np.ndarray, extractor: Extractor) -> np.ndarray:
    """Features (T, D) of each frame; a frame that is in several clips is looked at once."""
    keys = [(extractor.label, frame.shape, hashlib.sha256(frame.tobytes()).digest()) for frame in frames]
    new = {key: t for t, key in enumerate(keys) if key not in _SEEN}
    if new:
        _SEEN.update(zip(new, extractor.frames(frames[list(new.values())]), strict=True))
    return np.stack([_SEEN[key] for key in keys])

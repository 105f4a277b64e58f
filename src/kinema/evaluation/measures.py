"""Which numbers are measured: metrics by name and by preset, each with the extractor it uses."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.extractors.extractor import extractors, find_extractor, load_extractor
from kinema.metrics.metric import TOPICS, Metric, SetMetric, find, metrics
from kinema.metrics.viewing import Viewing

GIVE = {
    "prompt": "prompts; give them with --prompts",
    "reference": "a reference; give a folder of clips with --reference",
    "sound": "sound, and no clip has any",
}
TRIAL_PROMPT = "a red ball rolls to the left on the grass"


@dataclass(frozen=True)
class Measure:
    """A metric with the extractor that it is to use."""

    metric: Metric | SetMetric
    extractor: str | None = None  # "NAME" or "NAME@MODEL"

    @classmethod
    def parse(cls, text: str) -> Measure:
        """From "NAME" or "NAME:EXTRACTOR". Raises: KinemaError when there is no such metric or extractor."""
        name, colon, extractor = text.partition(":")
        metric = find(name)
        if colon and metric.extractor is None:
            raise KinemaError(f"{name} uses no extractor; leave {colon + extractor!r} out")
        if colon and not extractor:
            raise KinemaError(f"{text!r} names no extractor after the colon; leave the colon out, or name one")
        if extractor:
            find_extractor(extractor)
        return cls(metric, extractor or metric.extractor)

    @property
    def label(self) -> str:
        """How results name it: the metric, with its extractor where it uses one."""
        if self.extractor is None:
            return self.metric.name
        name, _, model = self.extractor.partition("@")
        known = extractors().get(name)
        return f"{self.metric.name}:{name}" + (f"@{model}" if known and model not in ("", known.usual) else "")


@dataclass(frozen=True)
class Has:
    """What there is to measure with."""

    needs: frozenset[str]  # of "prompt", "reference", "sound"
    clips: int
    references: int


def presets() -> dict[str, str]:
    """Names that stand for several metrics, and what they stand for."""
    told = {
        "quick": "every metric of one clip that uses no network",
        "world": "every metric that uses kinema's own judge, for clips like those of kinema world",
        "all": "every metric",
    }
    return told | {topic: f"every metric of the topic {topic}" for topic in TOPICS if topic not in told}


def preset(name: str) -> list[Measure]:
    """The metrics that a preset stands for, each with its usual extractor."""
    return [Measure(metric, metric.extractor) for metric in metrics().values() if _belongs(metric, name)]


def _belongs(metric: Metric | SetMetric, name: str) -> bool:
    if name == "quick":
        return isinstance(metric, Metric) and (metric.extractor is None or _is_formula(metric.extractor))
    return name == "all" or name == metric.topic or (name == "world" and metric.extractor == "world")


def _is_formula(extractor: str) -> bool:
    """Whether an extractor is no network: optical flow without weights."""
    kind = extractors().get(extractor)
    return kind is not None and not kind.usual and kind.gives == {"flow"}


def needs(asked: Sequence[str]) -> set[str]:
    """All that the metrics asked for need: of "prompt", "reference", "sound". Raises: KinemaError for unknown ones."""
    found = [preset(text) if text in presets() else [Measure.parse(text)] for text in asked]
    return {need for measures in found for measure in measures for need in measure.metric.needs}


def choose(asked: Sequence[str], has: Has) -> tuple[list[Measure], dict[str, str]]:
    """What is measured, and for what a preset has left out, the reason by label.

    Every metric is tried once on a made-up clip, so that what is missing is known before the first clip is read.
    Raises: KinemaError, one sentence, when a metric named by itself cannot be measured, or nothing is left.
    """
    chosen: dict[str, Measure] = {}
    left_out: dict[str, str] = {}
    for text in asked:
        if text not in presets():
            measure = Measure.parse(text)
            check(measure, has)
            chosen[measure.label] = measure
            continue
        for measure in preset(text):
            if measure.label in chosen or measure.label in left_out:
                continue
            try:
                check(measure, has)
                chosen[measure.label] = measure
            except KinemaError as error:
                left_out[measure.label] = str(error)
    if not chosen:
        first = next(iter(left_out.values()), "no metric is named")
        raise KinemaError(f"nothing can be measured: {first}")
    return [chosen[label] for label in sorted(chosen)], {k: v for k, v in left_out.items() if k not in chosen}


def check(measure: Measure, has: Has) -> None:
    """Raises: KinemaError, one sentence, when the metric cannot be measured on what there is, or here."""
    metric = measure.metric
    for need in metric.needs:
        if need not in has.needs:
            raise KinemaError(f"{metric.name} needs {GIVE[need]}")
    if isinstance(metric, SetMetric):
        for count, what in ((has.clips, "clips"), (has.references, "reference clips")):
            if count < metric.least and (what == "clips" or "reference" in metric.needs):
                raise KinemaError(f"{metric.name} needs at least {metric.least} {what}, and there are {count}")
        loaded = load_extractor(measure.extractor or metric.extractor)
        if metric.features not in loaded.gives:
            raise KinemaError(
                f"{metric.name} reads {metric.features!r} of an extractor, and {loaded.name!r} gives "
                f"{', '.join(sorted(loaded.gives))}; name another"
            )
        return
    try:
        metric(_trial(), extractor=measure.extractor)
    except KinemaError:
        raise
    except Exception as error:  # whatever breaks a metric here would break it on every clip
        raise KinemaError(f"{metric.name} breaks down on a plain clip ({type(error).__name__}: {error})") from error


@functools.cache
def _trial() -> Viewing:
    """A square that moves to the left on a lawn, with a prompt, a sound, and itself as a reference."""
    frames = np.random.default_rng(0).integers(80, 100, (1, 64, 64, 3), np.uint8).repeat(17, 0)
    for time, frame in enumerate(frames):
        frame[24:40, 40 - 2 * time : 56 - 2 * time] = (200, 30, 30)
    sound = np.sin(np.arange(34_000, dtype=np.float32) / 6)
    clip = Viewing(frames, 8.0, sound, 16_000, prompt=TRIAL_PROMPT)
    clip.reference = clip.but()
    return clip

"""The work on one clip: decoded once, measured by every metric, its features taken, a few frames kept to show.

A task and its outcome are plain data, so that they travel between processes and machines.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import load, prompt_of
from kinema.evaluation.prompts import Asked
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.features import features
from kinema.metrics.metric import Metric, find
from kinema.metrics.vbench.total import DIMENSIONS
from kinema.metrics.viewing import Viewing
from kinema.video import Video

Kind = Literal["clip", "reference"]
STRIP_FRAMES = 4  # kept of each clip for the report
STRIP_HEIGHT = 90  # pixels
STRIP_WIDTH = 160  # pixels of one frame, at most
STRIP_GAP = 2  # pixels


@dataclass(frozen=True, kw_only=True)
class Task:
    """One clip to measure, or one of the reference set, of which only features are taken."""

    kind: Kind
    name: str
    path: str
    asked: Asked | None  # None: the prompt in the file, if any
    partner: str | None  # path of the reference clip
    metrics: tuple[tuple[str, str, str | None], ...]  # label, metric, extractor
    features: tuple[tuple[str, str], ...]  # extractor, what of it
    max_bytes: int  # of the frames of one clip


@dataclass(kw_only=True)
class Outcome:
    """What became of a task."""

    kind: Kind
    name: str
    failed: str | None = None  # why the clip could not be measured at all
    prompt: str | None = None
    shape: tuple[int, int, int] | None = None  # frames, rows, columns
    fps: float | None = None
    values: dict[str, float | None] = field(default_factory=dict)  # by label
    lacks: dict[str, str] = field(default_factory=dict)  # what is missing for a metric, as in `results.WITHOUT`
    errors: dict[str, str] = field(default_factory=dict)  # why a metric gave no number
    features: dict[str, np.ndarray] = field(default_factory=dict)  # by "EXTRACTOR/WHAT": (N, D) float32
    strip: bytes | None = None  # JPEG


def score(task: Task) -> Outcome:
    """Does a task. Whatever is wrong with the clip stands in the outcome.

    Raises: what makes every clip impossible here, as an extractor that does not load.
    """
    for name in {*(x for _, _, x in task.metrics if x), *(x for x, _ in task.features)}:
        load_extractor(name)
    for _, name, _ in task.metrics:
        _metric(name)
    done = Outcome(kind=task.kind, name=task.name)
    try:
        video = load(Path(task.path), task.max_bytes)
        done.shape, done.fps = video.frames.shape[:3], video.fps
        done.prompt = task.asked.prompt if task.asked else prompt_of(Path(task.path), video.metadata)
        clip = _viewing(video, done.prompt, task.asked.auxiliary if task.asked else None)
        _features(task, clip, done)
        if task.kind == "clip":
            _values(task, clip, done)
            done.strip = strip(video.frames)
    except Exception as error:
        return Outcome(kind=task.kind, name=task.name, failed=sentence(error))
    return done


def sentence(error: Exception) -> str:
    """What went wrong, on one line."""
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    text = " ".join(str(error).split())
    return text if isinstance(error, KinemaError) else f"{type(error).__name__}: {text}"


def _viewing(video: Video, prompt: str | None = None, auxiliary: dict[str, Any] | None = None) -> Viewing:
    return Viewing(video.frames, video.fps, video.sound, video.sample_rate, prompt=prompt, auxiliary=auxiliary)


def _features(task: Task, clip: Viewing, done: Outcome) -> None:
    for name, what in task.features:
        read: np.ndarray = features(clip, load_extractor(name), what)  # type: ignore[arg-type]
        found = np.asarray(read if what == "frames" else read[None], np.float32)
        if found.size == 0 or not np.isfinite(found).all():
            raise KinemaError(f"extractor {name!r} gives features that are no numbers")
        done.features[f"{name}/{what}"] = found


def _values(task: Task, clip: Viewing, done: Outcome) -> None:
    wrong = None
    if task.partner is not None and any("reference" in _metric(name).needs for _, name, _ in task.metrics):
        try:
            clip.reference = _viewing(load(Path(task.partner), task.max_bytes))
        except Exception as error:
            wrong = f"its reference: {sentence(error)}"
    for label, name, extractor in task.metrics:
        metric = _metric(name)
        lacking = _lacking(metric, clip, task.asked)
        done.values[label] = None
        if lacking == "reference" and wrong:
            done.errors[label] = wrong
        elif lacking:
            done.lacks[label] = lacking
        else:
            try:
                value = metric(clip, extractor=load_extractor(extractor) if extractor else None)
                if value is not None and not math.isfinite(value):
                    raise KinemaError(f"it gave {value}, which is no finite number")
                done.values[label] = None if value is None else rounded(value)
            except Exception as error:
                done.errors[label] = sentence(error)


def _lacking(metric: Metric, clip: Viewing, asked: Asked | None) -> str | None:
    """What the clip does not have that the metric needs."""
    dimensions = None if asked is None else asked.dimensions
    if dimensions is not None and metric.name in DIMENSIONS and metric.name.removeprefix("vbench_") not in dimensions:
        return "dimension"
    return next((need for need in metric.needs if getattr(clip, need) is None), None)


def rounded(value: float) -> float:
    """To 12 digits: the last bits of a sum may depend on where in memory the numbers lie."""
    return float(f"{value:.12g}")


@functools.cache
def _metric(name: str) -> Metric:
    found = find(name)
    assert isinstance(found, Metric)
    return found


def strip(frames: np.ndarray) -> bytes:
    """A few frames (T, H, W, 3), spread evenly over the clip, side by side as a small JPEG."""
    from PIL import Image

    picked = frames[np.linspace(0, len(frames) - 1, min(len(frames), STRIP_FRAMES)).round().astype(int)]
    scale = min(STRIP_HEIGHT / frames.shape[1], STRIP_WIDTH / frames.shape[2])
    size = max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale))
    sheet = Image.new("RGB", (len(picked) * (size[0] + STRIP_GAP) - STRIP_GAP, size[1]), "white")
    for place, frame in enumerate(picked):
        small = Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS)
        sheet.paste(small, (place * (size[0] + STRIP_GAP), 0))
    out = io.BytesIO()
    sheet.save(out, format="JPEG", quality=80)
    return out.getvalue()


@contextmanager
def one_thread() -> Iterator[None]:
    """Every library computes on one thread: sums are taken in the same order wherever a clip is scored."""
    import torch

    from kinema.core.optional import library

    before = torch.get_num_threads()
    with library("threadpoolctl").threadpool_limits(1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

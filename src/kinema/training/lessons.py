"""Lessons: for a while, most clips of a training come from an easy part of its cache.

What changes only a little of the picture is learned late when everything is shown at once: with nine camera moves
and two events in a row, `mini` did not know left from right after 127,000 clips, and with still cameras and single
events after 10,000. "Curriculum Learning", Bengio et al., 2009.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from kinema.core.errors import KinemaError
from kinema.training.latents import LatentCache
from kinema.world.vocabulary import CAMERAS


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One of them; they follow each other, and after the last one all clips are drawn alike."""

    until: int  # clips seen when it ends, counted from the start of the training
    share: float = 0.75  # of the clips that fit the lesson, 0..1; the others are drawn from all
    cameras: tuple[str, ...] = CAMERAS  # moves that fit
    min_events: int = 0  # events in a row that fit, from
    max_events: int = 4  # to

    def __post_init__(self) -> None:
        unknown = [move for move in self.cameras if move not in CAMERAS]
        if unknown or not self.cameras:
            raise ValueError(f"cameras of a lesson are {unknown or 'none'}; use some of {', '.join(CAMERAS)}")
        if self.until < 1 or not 0 <= self.share <= 1:
            raise ValueError("until of a lesson must be 1 or more, and share 0 to 1")
        if not 0 <= self.min_events <= self.max_events:
            raise ValueError(f"a lesson has events from {self.min_events} to {self.max_events}; use 0 or more, rising")

    def fits(self, scene: Mapping[str, Any]) -> bool:
        """Whether a scene, as `SceneSpec.to_dict` gives it, belongs to the lesson."""
        return scene["camera"]["move"] in self.cameras and self.min_events <= len(scene["events"]) <= self.max_events


def check_order(lessons: Sequence[Lesson]) -> None:
    """Raises: ValueError when a lesson ends before the one in front of it."""
    ends = [lesson.until for lesson in lessons]
    if ends != sorted(set(ends)):
        raise ValueError(f"lessons end at {ends} clips; each must end after the one before it")


class Timetable:
    """Draws the clips of each batch.

    A lesson that no clip fits draws from all of them while the cache grows, because one may still come. `full` is the
    number of clips at which it stops growing.
    """

    def __init__(self, lessons: Sequence[Lesson], cache: LatentCache, full: int) -> None:
        self.lessons, self.cache, self.full = tuple(lessons), cache, full
        self._fitting: dict[Lesson, list[int]] = {}
        self._looked_at: dict[Lesson, int] = {}  # clips of the cache that were asked whether they fit

    def draw(self, seen: int, count: int, generator: torch.Generator) -> list[int]:
        """`count` indices into the cache, after `seen` clips of the training.

        Raises: KinemaError when the cache is full and no clip fits one of the lessons that are left.
        """
        if len(self.cache) >= self.full:
            self._refuse_empty(lesson for lesson in self.lessons if seen < lesson.until)
        anywhere = torch.randint(len(self.cache), (count,), generator=generator).tolist()
        lesson = next((lesson for lesson in self.lessons if seen < lesson.until), None)
        fitting = self._fits(lesson) if lesson is not None else []
        if lesson is None or not fitting:
            return anywhere
        chosen = torch.rand(count, generator=generator) < lesson.share
        among = torch.randint(len(fitting), (count,), generator=generator).tolist()
        return [fitting[k] if easy else i for easy, k, i in zip(chosen.tolist(), among, anywhere, strict=True)]

    def _refuse_empty(self, lessons: Iterable[Lesson]) -> None:
        for lesson in lessons:
            if not self._fits(lesson):
                raise KinemaError(
                    f"none of the {len(self.cache)} clips of the cache fits the lesson until {lesson.until} "
                    f"({lesson.min_events} to {lesson.max_events} events, cameras {', '.join(lesson.cameras)}); "
                    "widen the lesson, or take a curriculum that has such clips"
                )

    def _fits(self, lesson: Lesson) -> list[int]:
        found = self._fitting.setdefault(lesson, [])
        for i in range(self._looked_at.get(lesson, 0), len(self.cache)):
            if lesson.fits(self.cache.scene_dict(i)):
                found.append(i)
        self._looked_at[lesson] = len(self.cache)
        return found

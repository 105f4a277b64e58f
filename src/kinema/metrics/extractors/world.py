"""kinema's own networks as an extractor: they ship with kinema and know the world's clips, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from kinema.metrics import things
from kinema.metrics.answers import answers
from kinema.metrics.event_times import EventTimer
from kinema.metrics.extractors.extractor import Box, Extractor, extractor
from kinema.metrics.judge import Judge
from kinema.metrics.questions import Question
from kinema.metrics.sight import Sight
from kinema.metrics.viewing import Viewing


@extractor("world", gives=("clip", "logits", "depth", "mask", "answers", "boxes", "captions"))
class World(Extractor):
    """Features of `kinema.metrics.judge`: 13 frames spread evenly over the clip, 64 pixels a side, 128 numbers.

    Its classes are the judge's event words, first event slot. Objects and nearness are seen by `kinema.metrics.sight`
    in single frames, 128 pixels along the longer edge. Its numbers are comparable with each other only. A model is a
    folder with the folders `judge`, `sight` and `event_times`; each is read when it is first asked for.
    """

    def _folder(self, name: str) -> Path | None:
        return Path(self.model) / name if self.model else None

    @cached_property
    def judge(self) -> Judge:
        return Judge.load(self._folder("judge"))

    @cached_property
    def sight(self) -> Sight:
        return Sight.load(self._folder("sight"))

    @cached_property
    def timer(self) -> EventTimer:
        return EventTimer.load(self.judge, self._folder("event_times"))

    def clip(self, frames: np.ndarray, fps: float) -> np.ndarray:
        return self.judge.features([frames])[0].numpy()

    def logits(self, frames: np.ndarray, fps: float) -> np.ndarray:
        found: np.ndarray = self.judge.logits([frames])["event"][0, 0].numpy()
        return found

    @property
    def classes(self) -> tuple[str, ...]:
        return self.judge.config.events

    def knows(self, phrase: str) -> bool:
        return things.knows(self.judge, phrase)

    def boxes(self, frames: np.ndarray, phrases: Sequence[str]) -> list[list[Box]]:
        return things.boxes(frames, self.mask(frames), self.judge, phrases)

    def captions(self, frames: np.ndarray) -> list[str]:
        return things.captions(frames, self.judge)

    def depth(self, frames: np.ndarray) -> np.ndarray:
        return self.sight.see(frames)[1]

    def mask(self, frames: np.ndarray) -> np.ndarray:
        return self.sight.see(frames)[0]

    def answers(self, frames: np.ndarray, fps: float, questions: Sequence[Question]) -> np.ndarray:
        return answers(Viewing(frames, fps), self, questions)

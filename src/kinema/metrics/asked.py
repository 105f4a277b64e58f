"""What the prompt of a clip asks for, beside what an extractor reads in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kinema.core.errors import KinemaError
from kinema.metrics.agreement import Row, beyond, compare
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import Judge, Reading, event_word
from kinema.metrics.viewing import Viewing
from kinema.timeline import Prompt, Timeline
from kinema.world.reading import ReadCaption, parse_caption


@dataclass(frozen=True)
class Span:
    """Something that happens from `start` to `end`, seconds from the first frame; `word` as the judge says it."""

    word: str
    start: float
    end: float


@dataclass(frozen=True)
class Asked:
    """What a prompt asks for: its words, and its events with their times where it says them."""

    text: str  # the prompt without times
    words: ReadCaption
    timeline: Timeline
    spans: tuple[Span, ...]  # empty where the prompt says no times

    def shares(self, seconds: float) -> tuple[Span, ...]:
        """The events with their times; where the prompt says none they share the clip evenly, as in a timeline."""
        words = [event_word(label) for label in self.words.events]
        return self.spans or _shared(words, 0.0, seconds)


def parse(prompt: str, seconds: float | None = None, fps: float | None = None) -> Asked:
    """Reads a prompt, with or without times; in frames or percent they are of a clip of so many seconds.

    Raises: KinemaError when its times are wrong.
    """
    read = Prompt.parse(prompt)
    timeline = read.timeline.in_seconds(seconds, fps)
    words = parse_caption(read.text)
    labels: list[str] = []
    spans: list[Span] = []
    if timeline.timed:  # in the order of their times, whatever "after" and "before" say in the text
        for event in timeline:
            found = parse_caption(event.text).events
            labels += found
            spans += _shared([event_word(label) for label in found], event.start or 0.0, event.end or 0.0)
        words = replace(words, events=tuple(labels))
    return Asked(read.text, words, timeline, tuple(spans))


def asked(clip: Viewing) -> Asked:
    """What the clip's prompt asks for; nothing where there is no prompt."""
    return clip.once(("asked", clip.prompt), lambda: parse(clip.prompt or "a video", clip.seconds, clip.fps))


def judge_of(extractor: Extractor) -> Judge:
    """The judge that an extractor has. Raises: KinemaError when it has none."""
    judge = getattr(extractor, "judge", None)
    if not isinstance(judge, Judge):
        raise KinemaError(f"extractor {extractor.name!r} reads no objects and events; use world")
    return judge


def reading(clip: Viewing, extractor: Extractor) -> Reading:
    """What the extractor's judge reads in the whole clip."""
    judge = judge_of(extractor)
    return clip.once(("reading", extractor.label), lambda: judge.read(clip.frames, clip.fps))


def rows(clip: Viewing, extractor: Extractor) -> dict[str, Row]:
    """Asked beside read, by attribute, without those that the prompt does not name or the judge cannot tell."""
    words = asked(clip).words
    strange = beyond(words, judge_of(extractor).config)
    compared = compare(words, reading(clip, extractor))
    return {row.attribute: row for row in compared if row.right is not None and row.attribute not in strange}


def _shared(words: list[str], start: float, end: float) -> tuple[Span, ...]:
    share = (end - start) / max(len(words), 1)
    return tuple(Span(word, start + i * share, start + (i + 1) * share) for i, word in enumerate(words))

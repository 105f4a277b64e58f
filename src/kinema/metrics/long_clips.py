"""Readers of clips that are longer than those the judge knows: it looks at parts of the length it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinema.metrics.asked import Span, asked, judge_of
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import Reading
from kinema.metrics.viewing import Viewing

SECONDS = 25 / 8  # of the clips that the judge was trained on
FACTS = ("kind", "colour", "ground", "sky")


def part(clip: Viewing, middle: float) -> np.ndarray:
    """The frames of `SECONDS` around a time in seconds, moved into the clip where they would go beyond it."""
    count = min(round(SECONDS * clip.fps), len(clip))
    first = int(np.clip(round(middle * clip.fps - count / 2), 0, len(clip) - count))
    return clip.frames[first : first + count]


def read_at(clip: Viewing, extractor: Extractor, middles: Sequence[float]) -> list[Reading]:
    """What the judge reads around each of these times."""
    times = tuple(round(middle, 6) for middle in middles)

    def read() -> list[Reading]:
        return judge_of(extractor).read_batch([part(clip, middle) for middle in times], clip.fps)

    return clip.once(("read_at", extractor.label, times), read)


def events_in_time(clip: Viewing, extractor: Extractor) -> list[bool]:
    """Of each event that the prompt asks for, whether the judge reads its word in the middle of the event's time.

    Events without times share the clip evenly. Empty where the prompt asks for none that the judge can tell.
    """
    spans = _told(clip, extractor)
    found = read_at(clip, extractor, [(span.start + span.end) / 2 for span in spans]) if spans else []
    return [span.word in {guess.word for guess in read.events} for span, read in zip(spans, found, strict=True)]


def share_in_time(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of the events of the prompt that are read in their time; None where there are none."""
    found = events_in_time(clip, extractor)
    return sum(found) / len(found) if found else None


def all_in_time(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when every event of the prompt is read in its time, and so all of them in order, else 0."""
    found = events_in_time(clip, extractor)
    return float(all(found)) if found else None


def facts(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of kind, colour, ground and sky that are read as asked, over parts that follow each other.

    With more than one thing read, the first counts. None where the prompt names none of them.
    """
    words = asked(clip).words
    wanted = {name: getattr(words, name) for name in FACTS if getattr(words, name) is not None}
    count = max(1, round(clip.seconds / SECONDS))
    found = read_at(clip, extractor, [(i + 0.5) * clip.seconds / count for i in range(count)])
    right = [_fact(read, name) == word for read in found for name, word in wanted.items()]
    return sum(right) / len(right) if right else None


def _fact(read: Reading, name: str) -> str | None:
    if name in ("kind", "colour"):
        return getattr(read.objects[0], name).word if read.objects else None
    word: str = getattr(read, name).word
    return word


def _told(clip: Viewing, extractor: Extractor) -> list[Span]:
    known = judge_of(extractor).config.events
    return [span for span in asked(clip).shares(clip.seconds) if span.word in known]

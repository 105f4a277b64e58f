"""Readers of clips that are longer than those the judge knows: it looks at parts of the length it was trained on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinema.core.windows import windows
from kinema.metrics.asked import Span, asked, judge_of
from kinema.metrics.event_times import EventTimer, TimedEvent, timer_of
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import Reading
from kinema.metrics.viewing import Viewing

SECONDS = 25 / 8  # of the clips that the judge was trained on
SURE = 0.8  # of a word, from which it counts as read
FACTS = ("kind", "colour", "ground", "sky")

# How times are read; the shares and lengths were chosen on rendered clips (`python -m kinema.claims.long_events`).
STRIDE = 0.25  # seconds from one part to the next
TICK = 1 / 16  # seconds between the moments at which parts are asked
AGREED = 0.4  # of the parts, from which something happens at a moment
GAP, LEAST = 0.5, 0.5  # seconds: a shorter pause is none, a shorter event is none


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


def is_long(clip: Viewing) -> bool:
    """Whether it is longer than the clips that the judge was trained on."""
    return len(clip) > round(SECONDS * clip.fps)


def event_times(clip: Viewing, extractor: Extractor) -> list[TimedEvent]:
    """The events of a long clip in the order of their starts, with start and end in seconds; see `read_times`.

    Raises: KinemaError for another extractor than `world`, whose judge reads events.
    """
    timer = timer_of(extractor)
    return clip.once(("long_event_times", extractor.label), lambda: read_times(timer, clip.frames, clip.fps))


def read_times(timer: EventTimer, frames: np.ndarray, fps: float) -> list[TimedEvent]:
    """Events of frames (T, H, W, 3) uint8 of any length and number, from parts that overlap.

    Every part tells its own events with their times. At each moment the parts that see it vote, those most that have it
    in their middle, as an event cut by a part's edge is easily taken for another; an event lasts as long as the votes
    for its word reach `AGREED`. `confidence` is the mean of these votes.
    """
    parts = windows(len(frames), round(SECONDS * fps), max(1, round(STRIDE * fps)))
    length = (len(frames) - 1) / fps
    moments = np.arange(round(length / TICK) + 1) * TICK
    votes = {word: np.zeros(len(moments)) for word in timer.judge.config.events}
    seen = np.zeros(len(moments))
    for window, events in zip(parts, timer.read([frames[w.first : w.stop] for w in parts], fps), strict=True):
        begin, end = window.first / fps, (window.stop - 1) / fps
        before = moments - begin if window.first > 0 else np.where(moments <= end, end - begin, 0)
        behind = end - moments if window.stop < len(frames) else np.where(moments >= begin, end - begin, 0)
        trust = np.minimum(before, behind).clip(0, (end - begin) / 2)
        seen += trust
        for event in events:
            there = (moments >= begin + event.start) & (moments <= begin + event.end)
            votes[event.word] += there * trust * event.confidence
    found = [event for word, share in votes.items() for event in agreed(word, moments, share / seen)]
    return sorted(found, key=lambda event: (event.start, event.end))


def agreed(word: str, moments: np.ndarray, share: np.ndarray) -> list[TimedEvent]:
    """The times in which a word's share of the votes, one for each moment, is enough."""
    turns = np.flatnonzero(np.diff(share >= AGREED, prepend=False, append=False))
    spans: list[list[int]] = []
    for first, stop in turns.reshape(-1, 2).tolist():
        if spans and moments[first] - moments[spans[-1][1] - 1] <= GAP:
            spans[-1][1] = stop
        else:
            spans.append([first, stop])
    return [
        TimedEvent(word, float(moments[first]), float(moments[stop - 1]), round(float(share[first:stop].mean()), 4))
        for first, stop in spans
        if moments[stop - 1] - moments[first] >= LEAST
    ]


def events_in_time(clip: Viewing, extractor: Extractor) -> list[bool]:
    """Of each event that the prompt asks for, whether the judge surely reads its word somewhere in its time.

    Of rendered events of 2.4 s, anywhere in spans of 6.25 s, 96% are found so, and each other word in 5% of the spans.
    Events without times share the clip evenly. Empty where the prompt asks for none that the judge can tell.
    """
    return [span.word in words for span, words in words_in_time(clip, extractor)]


def words_in_time(clip: Viewing, extractor: Extractor) -> list[tuple[Span, set[str]]]:
    """The events of the prompt that the judge can tell, each with the words that it surely reads in its time."""
    known, found = judge_of(extractor).config.events, []
    for span in asked(clip).shares(clip.seconds):
        if span.word in known:
            reads = read_at(clip, extractor, middles(span.start, span.end, SECONDS / 2))
            found.append((span, {guess.word for read in reads for guess in read.events if guess.confidence >= SURE}))
    return found


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
    found = read_at(clip, extractor, middles(0.0, clip.seconds))
    right = [_fact(read, name) == word for read in found for name, word in wanted.items()]
    return sum(right) / len(right) if right else None


def _fact(read: Reading, name: str) -> str | None:
    if name in ("kind", "colour"):
        return getattr(read.objects[0], name).word if read.objects else None
    word: str = getattr(read, name).word
    return word


def middles(start: float, end: float, stride: float = SECONDS) -> list[float]:
    """The middles of parts that fill this time evenly, about `stride` apart; all in seconds."""
    room = max(end - start - SECONDS, 0.0)
    count = round(room / stride) + 1
    if count == 1:
        return [(start + end) / 2]
    return [start + SECONDS / 2 + i * room / (count - 1) for i in range(count)]

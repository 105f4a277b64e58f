"""Times of events: how far they lie from the times that the prompt says, as in "0-1.5s: ... | 1.5-3s: ..."."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Protocol

import numpy as np

from kinema.metrics import long_clips
from kinema.metrics.asked import asked, judge_of
from kinema.metrics.event_times import TimedEvent, event_times
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

OVERLAP = 0.5  # from which intersection over union on a read event counts as the one asked for


class Timed(Protocol):
    """Something that happens, `start` and `end` in seconds."""

    @property
    def word(self) -> str: ...
    @property
    def start(self) -> float: ...
    @property
    def end(self) -> float: ...


def matched(wanted: Sequence[Timed], found: Sequence[Timed]) -> list[tuple[Timed, Timed | None]]:
    """Each wanted event with a found one of the same word, None where there is none.

    Of those of one word as many as can be, in their order, and so that starts and ends are least far apart in all.
    """
    pairs: dict[int, Timed] = {}
    for word in {event.word for event in wanted}:
        ours = [i for i, event in enumerate(wanted) if event.word == word]
        theirs = [event for event in found if event.word == word]
        pairs |= {ours[i]: theirs[j] for i, j in _nearest([wanted[i] for i in ours], theirs)}
    return [(event, pairs.get(i)) for i, event in enumerate(wanted)]


def _nearest(wanted: Sequence[Timed], found: Sequence[Timed]) -> tuple[tuple[int, int], ...]:
    @cache
    def best(i: int, j: int) -> tuple[int, float, tuple[tuple[int, int], ...]]:  # minus the count, seconds apart, pairs
        if i == len(wanted) or j == len(found):
            return 0, 0.0, ()
        count, away, rest = best(i + 1, j + 1)
        a, b = wanted[i], found[j]
        away += abs(a.start - b.start) + abs(a.end - b.end)
        return min((count - 1, away, ((i, j), *rest)), best(i + 1, j), best(i, j + 1))

    return best(0, 0)[2]


def iou(a: Timed, b: Timed) -> float:
    """Intersection over union of two spans of time, 0 to 1."""
    shared = min(a.end, b.end) - max(a.start, b.start)
    union = max(a.end, b.end) - min(a.start, b.start)
    return max(shared, 0.0) / union if union > 0 else float(a.start == b.start)


def precision_recall(wanted: Sequence[Timed], found: Sequence[Timed], overlap: float = OVERLAP) -> tuple[float, float]:
    """Share of the found events that overlap a wanted one of the same word by IoU >= `overlap`; and the reverse."""
    hits = [[a.word == b.word and iou(a, b) >= overlap for b in found] for a in wanted]
    table = np.array(hits, bool).reshape(len(wanted), len(found))
    return (float(table.any(0).mean()) if found else 0.0), (float(table.any(1).mean()) if wanted else 0.0)


def untold(clip: Viewing, extractor: Extractor) -> str:
    """Why the judge cannot tell the times of what the prompt asks for; "" when it can."""
    config, words = judge_of(extractor).config, [span.word for span in asked(clip).spans]
    if not words:
        return "the prompt names no event that the judge knows"
    if unknown := sorted(set(words) - set(config.events)):
        return f"the judge cannot tell {', '.join(unknown)}"
    if len(words) > config.event_slots and not long_clips.is_long(clip):
        return f"the judge tells {config.event_slots} events in {clip.seconds:g} s, and there are {len(words)}"
    return ""


def doubt(clip: Viewing, extractor: Extractor) -> str:
    """Why the times are less sure than those in clips like the judge's own; "" where they are not.

    In rendered clips of two things the judge misses three events in ten, in those of one thing one in twelve.
    """
    things, most = len(asked(clip).words.objects), judge_of(extractor).config.objects
    return (
        f"less sure, as the prompt names {things} things and the judge was trained on {most}" if things > most else ""
    )


def times(clip: Viewing, extractor: Extractor) -> Sequence[TimedEvent]:
    """The events of a clip of any length, with start and end in seconds."""
    return long_clips.event_times(clip, extractor) if long_clips.is_long(clip) else event_times(clip, extractor)


def pairs(clip: Viewing, extractor: Extractor) -> list[tuple[Timed, Timed | None]]:
    """Events asked for at a time, beside those read; empty where the judge cannot tell them, see `untold`."""
    return [] if untold(clip, extractor) else matched(asked(clip).spans, times(clip, extractor))


def _error(clip: Viewing, extractor: Extractor, end: str) -> float | None:
    errors = [abs(getattr(b, end) - getattr(a, end)) for a, b in pairs(clip, extractor) if b is not None]
    return float(np.mean(errors)) if errors else None


TOLD: dict[str, Any] = dict(extractor="world", needs=("prompt",), sees="wrong_times", ignores="synonyms")
CHAPTERS = '"VidChapters-7M", 2023, arXiv:2309.13952'


@metric("event_start_error", unit="s", low=0, high=float("inf"), better="lower", source=CHAPTERS, **TOLD)
def event_start_error(clip: Viewing, extractor: Extractor) -> float | None:
    """How far events start from when the prompt asks for them, in the mean over those that are found.

    VidChapters counts boundaries within some seconds; this is the error itself. None where the prompt says no times or
    no event is found: look at `event_iou` beside it, where an event that is missing counts as 0.
    """
    return _error(clip, extractor, "start")


@metric("event_end_error", unit="s", low=0, high=float("inf"), better="lower", source=CHAPTERS, **TOLD)
def event_end_error(clip: Viewing, extractor: Extractor) -> float | None:
    """How far events end from when the prompt asks for it, in the mean over those that are found."""
    return _error(clip, extractor, "end")


@metric("event_iou", unit="share of time", low=0, high=1, better="higher", source=CHAPTERS, **TOLD)
def event_iou(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean over the events asked for of the overlap in time, intersection over union, with the event that is read.

    0 for an event that is not found; None where the prompt says no times or names what the judge cannot tell.
    """
    overlaps = [0.0 if b is None else iou(a, b) for a, b in pairs(clip, extractor)]
    return float(np.mean(overlaps)) if overlaps else None


@metric("event_f1", unit="share of events", low=0, high=1, better="higher", source=CHAPTERS, **TOLD)
def event_f1(clip: Viewing, extractor: Extractor) -> float | None:
    """Harmonic mean of precision and recall of events: word and time right, intersection over union at least 0.5.

    VidChapters reports precision and recall at 0.3, 0.5, 0.7 and 0.9, of segments without words.
    """
    if not pairs(clip, extractor):
        return None
    precision, recall = precision_recall(asked(clip).spans, times(clip, extractor))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

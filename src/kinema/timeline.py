"""What happens when: events in order, with or without times, read from a prompt.

Two forms are understood. "a, then b" is events in order without times ("then" after a comma, a semicolon, a full
stop or "and"). "0-2s: a | 2-4s: b" is events with times in seconds; it is read strictly, and every error names the
column. Anything else is one event.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from kinema.core.errors import KinemaError

_THEN = re.compile(r"(?:\s*[,;.]\s*(?:and\s+)?|\s+and\s+)then\b\s*,?\s*", re.IGNORECASE)
_NUMBER = r"\d+(?:\.\d+)?"
_LOOKS_TIMED = re.compile(rf"\s*-?{_NUMBER}\s*s?\s*(?:-|–)\s*-?{_NUMBER}\s*s?\s*:", re.IGNORECASE)
_RANGE = re.compile(rf"\s*({_NUMBER})-({_NUMBER})s:\s*")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happens. `start` and `end` are seconds from the first frame, both known or both None.

    Raises: KinemaError when the text is empty or the times are not 0 <= start < end.
    """

    text: str
    start: float | None = None
    end: float | None = None

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise KinemaError("an event has no text; say what happens")
        if (self.start is None) != (self.end is None):
            raise KinemaError(f"the event {self.text!r} has only one of start and end; give both or none")
        if self.start is not None and self.end is not None and not 0 <= self.start < self.end < float("inf"):
            raise KinemaError(
                f"the event {self.text!r} lasts from {self.start:g} to {self.end:g} s; it must end after it starts"
            )


@dataclass(frozen=True)
class Timeline:
    """Events in order. Either all have times, which do not overlap, or none has. A gap between two is allowed.

    Raises: KinemaError when there is no event, when only some have times, or when two overlap.
    """

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if not self.events:
            raise KinemaError("a timeline needs at least one event")
        if len({event.start is None for event in self.events}) > 1:
            raise KinemaError("some events have times and some have not; give times to all of them or to none")
        for before, after in zip(self.events, self.events[1:], strict=False):
            if before.end is not None and after.start is not None and after.start < before.end:
                raise KinemaError(
                    f"the event {after.text!r} starts at {after.start:g} s, before the one ahead of it ends "
                    f"at {before.end:g} s"
                )

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __str__(self) -> str:
        """The form that `parse` reads back."""
        if not self.timed:
            return ", then ".join(event.text for event in self.events)
        return " | ".join(f"{_seconds(e.start)}-{_seconds(e.end)}s: {e.text}" for e in self.events)

    @property
    def timed(self) -> bool:
        """Whether the events have times."""
        return self.events[0].start is not None

    @classmethod
    def parse(cls, text: str) -> Timeline:
        """Reads either form. Raises: KinemaError, one sentence that names the column (counted from 1)."""
        if not text.strip():
            raise KinemaError("the prompt is empty; say what the video shows")
        if is_timed(text):
            return cls(tuple(_timed_events(text)))
        parts = [part for part in (part.strip() for part in _THEN.split(text)) if part]
        if not parts:
            raise KinemaError(f"the prompt {text.strip()!r} names no event; say what the video shows")
        return cls(tuple(Event(text=part) for part in parts))

    def over(self, seconds: float) -> Timeline:
        """With times: events without them share `seconds` evenly; events with them must end within it.

        Raises: KinemaError when `seconds` is not positive, or when an event ends later than that.
        """
        if not 0 < seconds < float("inf"):
            raise KinemaError(f"the length is {seconds} s; use more than 0")
        if self.timed:
            last = self.events[-1]
            if last.end is not None and last.end > seconds + 1e-9:
                raise KinemaError(f"the event {last.text!r} ends at {last.end:g} s; the video is {seconds:g} s long")
            return self
        count = len(self.events)
        return Timeline(
            tuple(
                replace(event, start=seconds * i / count, end=seconds * (i + 1) / count)
                for i, event in enumerate(self.events)
            )
        )

    def at(self, time: float) -> Event | None:
        """The event at `time` in seconds (an event includes its start and not its end), or None in a gap.

        Raises: KinemaError when the events have no times; call `over` first.
        """
        if not self.timed:
            raise KinemaError("these events have no times; give the timeline a length with over(seconds)")
        for event in self.events:
            if event.start is not None and event.end is not None and event.start <= time < event.end:
                return event
        return None


@dataclass(frozen=True)
class Prompt:
    """A prompt: `text` as a model without a sense of time gets it, and its timeline."""

    text: str
    timeline: Timeline

    @classmethod
    def parse(cls, text: str) -> Prompt:
        """Reads a prompt; times leave the text and stay in the timeline. Raises: KinemaError as `Timeline.parse`."""
        timeline = Timeline.parse(text)
        plain = ", then ".join(event.text for event in timeline) if timeline.timed else text.strip()
        return cls(plain, timeline)


def is_timed(text: str) -> bool:
    """Whether a prompt means to give times: one of its parts between bars starts like "0-2s:"."""
    return any(_LOOKS_TIMED.match(part) for part in text.split("|"))


def _timed_events(text: str) -> Iterator[Event]:
    column, before = 1, 0.0
    for part in text.split("|"):
        at = column + len(part) - len(part.lstrip())
        found = _RANGE.match(part)
        if found is None:
            raise KinemaError(f"column {at}: expected seconds as in '0-2s: text', found {part.strip()[:20]!r}")
        start, end = float(found[1]), float(found[2])
        if not start < end:
            raise KinemaError(f"column {at}: the event ends at {end:g} s and starts at {start:g} s; end it later")
        if start < before:
            raise KinemaError(f"column {at}: the event starts at {start:g} s, before the last one ends ({before:g} s)")
        what = part[found.end() :].strip()
        if not what:
            raise KinemaError(f"column {column + found.end()}: the event has no text; say what happens after the colon")
        yield Event(text=what, start=start, end=end)
        before = end
        column += len(part) + 1


def _seconds(value: float | None) -> str:
    """Shortest decimal that reads back as the same number, never with an exponent."""
    text = format(Decimal(repr(value or 0.0)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

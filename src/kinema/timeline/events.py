"""Events and their order: what is allowed, how they lie in a video, and the text that says them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from torch import Tensor

Unit = Literal["s", "f", "%"]  # seconds, frames, percent of the video
CLOSE = 1e-9  # seconds by which two times may differ and still be one
MOST = 1000  # events of a timeline


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happens. `start` and `end` count from the first frame in the timeline's unit, or both are None.

    `meanwhile`: it happens at the same time as the event ahead of it. Raises: KinemaError when the text is empty or
    the times are not 0 <= start < end.
    """

    text: str
    start: float | None = None
    end: float | None = None
    meanwhile: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", " ".join(self.text.split()))
        if not self.text:
            raise KinemaError("an event has no text; say what happens")
        if (self.start is None) != (self.end is None):
            raise KinemaError(f"the event {self.text!r} has only one of start and end; give both or none")
        if self.start is not None and self.end is not None and not 0 <= self.start < self.end < float("inf"):
            raise KinemaError(
                f"the event {self.text!r} lasts from {self.start:g} to {self.end:g}; it must end after it starts"
            )

    @property
    def span(self) -> tuple[float, float]:
        """Start and end. Raises: KinemaError when it has no times."""
        if self.start is None or self.end is None:
            raise KinemaError(f"the event {self.text!r} has no times; give the timeline a length with over(seconds)")
        return self.start, self.end


@dataclass(frozen=True)
class Timeline:
    """Events in order. Either all have times or none has; only one that happens meanwhile overlaps. Gaps are allowed.

    Raises: KinemaError for events that no text could say: none at all, times for some only, an overlap, a text that
    would be read as two events.
    """

    events: tuple[Event, ...]
    unit: Unit = "s"  # of start and end

    def __post_init__(self) -> None:
        if not self.events:
            raise KinemaError("a timeline needs at least one event")
        if len({event.start is None for event in self.events}) > 1:
            raise KinemaError("some events have times and some have not; give times to all of them or to none")
        order = Order()
        for event in self.events:
            if (wrong := order.fault(event, self.unit)) is not None:
                raise KinemaError(wrong)
        if not self.timed and self.unit != "s":
            raise KinemaError("the events have no times, and so no unit but the usual one, 's'")
        if not _comes_back(self):
            what = "what parts events, as '|' or ', then' do, or looks like times"
            raise KinemaError(f"an event's text holds {what}; make two events of it")

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __str__(self) -> str:
        """The form that `parse` reads back."""
        if not self.timed:
            return plain(self.events)
        return " | ".join(f"{self._range(e)} {'meanwhile ' * e.meanwhile}{_escaped(e.text)}" for e in self.events)

    def _range(self, event: Event) -> str:
        start, end = (_decimal(value) for value in event.span)
        if self.unit == "s":
            return f"{start}-{end}s:"
        return f"[{start}:{end}]" if self.unit == "f" else f"[{start}%:{end}%]"

    @property
    def timed(self) -> bool:
        """Whether the events have times."""
        return self.events[0].start is not None

    @classmethod
    def parse(cls, text: str) -> Timeline:
        """Reads either form. Raises: KinemaError, one sentence that names the column (counted from 1)."""
        from kinema.timeline.reading import read

        return cls(*read(text))

    def over(self, seconds: float, fps: float | None = None) -> Timeline:
        """With times in seconds: events without times share `seconds` evenly, those with times must end within it.

        `fps`, frames per second, is needed for times in frames.
        Raises: KinemaError when `seconds` is not positive, or when an event ends later than that.
        """
        if not 0 < seconds < float("inf"):
            raise KinemaError(f"the length is {seconds} s; use more than 0")
        if not self.timed:
            return Timeline(_shared(self.events, seconds))
        timeline = self.in_seconds(seconds, fps)
        for event in timeline:
            if event.span[1] > seconds + CLOSE:
                raise KinemaError(
                    f"the event {event.text!r} ends at {event.span[1]:g} s; the video is {seconds:g} s long"
                )
        return timeline

    def in_seconds(self, seconds: float | None = None, fps: float | None = None) -> Timeline:
        """The same times in seconds, of a video of so many; without times it stays as it is.

        Raises: KinemaError for times in frames without `fps`, and for parts of the video without `seconds`.
        """
        if self.unit == "f" and fps is None:
            raise KinemaError("the timeline counts frames; say how many there are in a second")
        if self.unit == "%" and seconds is None:
            raise KinemaError("the timeline counts parts of the video; say how many seconds it has")
        if self.unit == "s":
            return self
        return Timeline(_scaled(self.events, 1.0 / (fps or 1.0) if self.unit == "f" else (seconds or 0.0) / 100))

    def later(self, seconds: float) -> Timeline:
        """The same events so many seconds later; without times it stays as it is. Times are seconds."""
        if not seconds or not self.timed:
            return self
        return Timeline(tuple(replace(e, start=e.span[0] + seconds, end=e.span[1] + seconds) for e in self))

    def at(self, time: float) -> tuple[Event, ...]:
        """The events at `time`, in the timeline's unit; none in a gap. An event includes its start and not its end.

        Raises: KinemaError when the events have no times; call `over` first.
        """
        return tuple(event for event in self.events if event.span[0] <= time < event.span[1])

    def sharing(self, text: str) -> Timeline:
        """The same events, `text` (what all of them show) ahead of the words of each; "" changes nothing."""
        text = text.strip().rstrip(".,;|").rstrip()
        return replace(self, events=tuple(replace(e, text=f"{text}, {e.text}") for e in self)) if text else self

    def completed(self) -> Timeline:
        """The same events with texts that say who does it and where, as `kinema.timeline.sentences` reads English."""
        from kinema.timeline.sentences import completed

        return replace(self, events=completed(tuple(self.events)))

    def behind(self, ahead: Timeline) -> Timeline:
        """The same events, complete behind those of another timeline, whose times do not matter."""
        untimed = [replace(event, start=None, end=None) for event in (*ahead, *self)]
        done = Timeline(tuple(untimed)).completed().events[len(ahead) :]
        return replace(self, events=tuple(replace(e, text=d.text) for e, d in zip(self, done, strict=True)))

    def frames(self, num_frames: int, fps: float, frames_per_latent: int = 1) -> Tensor:
        """Which latent frames of a video belong to which event, (events, latent frames) bool.

        Latent frame 0 is frame 0, each other one `frames_per_latent` frames. It belongs to an event where the middle
        of its time does, so that events end to end share the frames without one left over; it belongs to none in a
        gap, to several where events overlap. Raises: KinemaError as `over`, and for an event without any frame.
        """
        import torch

        timeline = self.over(num_frames / fps, fps)
        middle = middles(num_frames, fps, frames_per_latent)
        start, end = torch.tensor([event.span for event in timeline], dtype=torch.float64).T[..., None]
        table: Tensor = (start - CLOSE <= middle) & (middle < end - CLOSE)
        for event, row in zip(timeline, table, strict=True):
            if not row.any():
                raise too_short(event, frames_per_latent / fps)
        return table


def middles(num_frames: int, fps: float, frames_per_latent: int = 1) -> Tensor:
    """The middles of the times of a video's latent frames, (latent frames,) float64, in seconds."""
    import torch

    k = frames_per_latent
    latent = torch.arange((num_frames - 1) // k + 1, dtype=torch.float64)
    return torch.where(latent == 0, 0.5, (latent - 1) * k + 1 + k / 2) / fps


@dataclass(frozen=True)
class Prompt:
    """A prompt: `text` as a model without a sense of time gets it, and its timeline, each event complete."""

    text: str
    timeline: Timeline

    @classmethod
    def parse(cls, text: str) -> Prompt:
        """Reads a prompt; times leave the text and stay in the timeline. Raises: KinemaError as `Timeline.parse`."""
        timeline = Timeline.parse(text)
        return cls(plain(timeline) if timeline.timed else text.strip(), timeline.completed())


@dataclass
class Order:
    """Events as they are read, one after the other; each must be able to stand behind those ahead of it."""

    count: int = 0
    latest: float = 0.0  # when the last of those ahead ends
    begun: float = 0.0  # when the one ahead starts

    def fault(self, event: Event, unit: Unit) -> str | None:
        """Why the next event cannot stand where it does; None when it can."""
        ahead, self.count = self.count, self.count + 1
        if ahead == MOST:
            return f"there are more than {MOST} events; use at most {MOST}"
        if event.meanwhile and ahead == 0:
            return f"the event {event.text!r} happens meanwhile, and there is none ahead of it"
        if event.start is None or event.end is None:
            return None
        wrong = self._of_times(event, event.start, event.end, unit)
        self.latest, self.begun = max(self.latest, event.end), event.start
        return wrong

    def _of_times(self, event: Event, start: float, end: float, unit: Unit) -> str | None:
        starts = f"the event {event.text!r} starts at {_said(start, unit)}"
        if unit == "%" and end > 100:
            return f"the event {event.text!r} ends at {_said(end, unit)}; use at most 100%"
        if unit == "f" and not (float(start).is_integer() and float(end).is_integer()):
            return f"the event {event.text!r} lasts from {_said(start, unit)} to {_said(end, unit)}; use whole frames"
        if not event.meanwhile and start < self.latest:
            ends = f"before the one ahead of it ends at {_said(self.latest, unit)}"
            return f"{starts}, {ends}; begin its text with 'meanwhile' if both happen at once"
        if event.meanwhile and start < self.begun:
            return f"{starts}, before the one ahead of it; put it first"
        if event.meanwhile and start >= self.latest:
            meant = f"the event {event.text!r} happens meanwhile and starts at {_said(start, unit)}"
            return f"{meant}, when all ahead of it has ended; leave 'meanwhile' out"
        return None


def too_short(event: Event, seconds: float) -> KinemaError:
    """That an event belongs to no latent frame, which lasts so many seconds."""
    start, end = event.span
    return KinemaError(
        f"the event {event.text!r} lasts from {start:g} to {end:g} s, too short for a frame of its own; a latent frame "
        f"is {seconds:g} s"
    )


def plain(events: Sequence[Event] | Timeline) -> str:
    """Events as one sentence without times."""
    first, *others = events
    return first.text + "".join(f", {'meanwhile' if e.meanwhile else 'then'} {e.text}" for e in others)


def _comes_back(timeline: Timeline) -> bool:
    """Whether the text of a timeline is read as the same timeline."""
    from kinema.timeline.reading import read

    try:
        return read(str(timeline)) == (timeline.events, timeline.unit)
    except KinemaError:
        return False


def _shared(events: Sequence[Event], seconds: float) -> tuple[Event, ...]:
    """Events that follow each other get equal parts of the time, those that happen meanwhile the same part."""
    place, places = -1, []
    for event in events:
        place += not event.meanwhile
        places.append(place)
    part = [seconds * i / (place + 1) for i in range(place + 2)]
    return tuple(replace(e, start=part[i], end=part[i + 1]) for e, i in zip(events, places, strict=True))


def _scaled(events: Sequence[Event], scale: float) -> tuple[Event, ...]:
    return tuple(replace(e, start=e.span[0] * scale, end=e.span[1] * scale) for e in events)


def _escaped(text: str) -> str:
    return text.replace("|", r"\|")


def _said(value: float, unit: Unit) -> str:
    return {"s": f"{value:g} s", "f": f"frame {value:g}", "%": f"{value:g}%"}[unit]


def _decimal(value: float) -> str:
    """Shortest decimal that reads back as the same number, never with an exponent."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

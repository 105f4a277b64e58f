"""What was asked for and when, beside what became of it: a picture, and the judge's reading of the times of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.take import Take
    from kinema.video import Video


@dataclass(frozen=True)
class Read:
    """An event that was asked for; `found` is its start and end as the judge reads them, None if it is missing."""

    word: str
    start: float
    end: float
    found: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        found = self.found
        return {
            "event": self.word,
            "start": self.start,
            "end": self.end,
            "read_start": None if found is None else round(found[0], 3),
            "read_end": None if found is None else round(found[1], 3),
            "start_error": None if found is None else round(found[0] - self.start, 3),
            "end_error": None if found is None else round(found[1] - self.end, 3),
        }

    def __str__(self) -> str:
        said = f"{self.word}: asked for at {self.start:.2f}-{self.end:.2f} s"
        if self.found is None:
            return f"{said}, not read"
        start, end = self.found
        errors = f"onset {start - self.start:+.2f} s, offset {end - self.end:+.2f} s"
        return f"{said}, read at {start:.2f}-{end:.2f} s: {errors}"


def check_sheet(sheet: str | None) -> Path | None:
    """Where the picture goes. Raises: KinemaError when it cannot be written there."""
    from kinema.files import check_writable
    from kinema.video import PICTURES

    if sheet is None:
        return None
    path = Path(sheet)
    if path.suffix.lower() not in PICTURES:
        raise KinemaError(f"cannot write {path}: use {', '.join(PICTURES)}")
    check_writable(path)
    if path.is_dir():
        raise KinemaError(f"cannot write {path}: it is a folder")
    return path


def write_sheet(
    video: Video,
    made: Any,
    path: Path,
    columns: int | None = None,
    count: int | None = None,
    bars: bool | None = None,
) -> None:
    """The frames of a video on one picture; made: its recipe, or None.

    `bars`: under what was asked for and when; None is where several things happen, at times, or frames were given.
    """
    from kinema.cli.making import making_of, timeline_of
    from kinema.files import replacing
    from kinema.timeline.sheet import timeline_sheet
    from kinema.video import contact_sheet

    timeline, making = timeline_of(made), making_of(made, video)
    if bars is None:
        several = timeline is not None and (timeline.timed or len(timeline) > 1)
        bars = several or bool(making.given or making.boxes)
    if bars:
        sheet = timeline_sheet(video, timeline, making, columns=columns, count=count)
    else:
        sheet = contact_sheet(video, columns=columns, count=count, says=making.says)
    with replacing(path) as temporary:
        sheet.save(temporary)


def read_times(video: Video, asked: str, card: Mapping[str, Any], model: str) -> tuple[list[Read], str]:
    """The events of a prompt with times as the judge reads them, and what makes them doubtful; or none, and why.

    card: of the model, which says what clips it was trained on; the judge knows those of kinema's world only.
    """
    if why := _strange(video, card, model):
        return [], why
    from kinema.metrics.extractors.extractor import load_extractor
    from kinema.metrics.prompt.event_timing import doubt, pairs, untold
    from kinema.metrics.viewing import Viewing

    clip, world = Viewing(video.frames, video.fps, prompt=asked), load_extractor("world")
    if why := untold(clip, world):
        return [], why
    read = [Read(w.word, w.start, w.end, None if r is None else (r.start, r.end)) for w, r in pairs(clip, world)]
    return read, doubt(clip, world)


def _strange(video: Video, card: Mapping[str, Any], model: str) -> str:
    """Why a clip is nothing that the judge knows; "" when it does."""
    data = card.get("data")
    if not isinstance(data, dict) or "world" not in data:
        return f"the judge knows clips of kinema's world only, and model {model!r} was not trained on them"
    size = data.get("height", video.height), data.get("width", video.width)
    if (video.height, video.width) != size:
        return f"the judge knows clips of {size[1]}x{size[0]}, and this one is {video.width}x{video.height}"
    return ""


@dataclass(frozen=True)
class Seen:
    """What is told of a video beside its own numbers."""

    sheet: Path | None = None
    read: tuple[Read, ...] = ()
    why: str = ""  # the times of events are not read, or doubtful
    even: bool = False  # the events say no times, and share the video evenly

    def to_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {} if self.sheet is None else {"sheet": str(self.sheet)}
        if self.read or self.why:
            told |= {"events": [event.to_dict() for event in self.read]}
            told |= {
                "events_not_read": None if self.read else self.why,
                "events_doubt": (self.why or None) if self.read else None,
                "events_share_evenly": self.even,
            }
        return told

    def lines(self) -> Iterator[str]:
        if self.why:
            yield f"times of events: {self.why if self.read else f'not read, as {self.why}'}"
        if self.read and self.even:
            yield "times of events: the prompt says none, and each event is asked for in an even share of the video"
        yield from map(str, self.read)
        if self.sheet is not None:
            yield str(self.sheet)


def look(take: Take, path: Path, sheet: Path | None) -> Seen:
    """Looks at a video that was written: its picture, where one is wanted, and the times of its events.

    Events without times are read where there are several and a technique follows them, each in its share of the time.
    """
    from kinema.cli.making import making_of
    from kinema.video import Video

    events = take.request.events
    several = events is not None and (events.timed or len(events) > 1)
    if sheet is None and not several:
        return Seen()
    video = Video.load(path)
    if sheet is not None:
        write_sheet(video, take.made, sheet)
    making = making_of(take.made, video)
    if events is None or not several or not (events.timed or making.followed):
        return Seen(sheet)
    asked = in_time(take.request.asked, video, making.opening)
    read, why = read_times(video, asked, take.backbone.folder.card, take.request.model)
    return Seen(sheet, tuple(read), why, not events.timed)


def in_time(asked: str, video: Video, opening: float = 0.0) -> str:
    """A prompt with the times of its events in a video, of which the first `opening` seconds were there before."""
    from kinema.timeline import Timeline

    said, seconds = Timeline.parse(asked), video.seconds - opening
    timed = said.in_seconds(seconds, video.fps) if said.timed else said.over(seconds)
    return str(timed.later(opening))

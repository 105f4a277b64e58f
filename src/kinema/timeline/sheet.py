"""A picture of a video and its timeline: above each row of frames a bar says what was asked for at that time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from kinema import lettering
from kinema.core.footage import Footage
from kinema.lettering import LINE, Colour
from kinema.timeline.events import CLOSE, Timeline

if TYPE_CHECKING:
    from PIL import Image

BACK, TEXT, FAINT, GAP_IN_TIME = (24, 24, 27), (212, 212, 216), (150, 150, 158), (52, 52, 58)
COLOURS = ((37, 99, 235), (180, 83, 9), (4, 120, 87), (157, 23, 77), (109, 40, 217), (15, 118, 110), (185, 28, 28))
GIVEN = (113, 113, 122)
EDGE = 4  # pixels left free around things
MOST, NARROWEST = 32, 640  # frames that are all shown, and width of a sheet, pixels
UNFOLLOWED = "striped: asked for at these times, and no technique here follows times"


@dataclass(frozen=True)
class Box:
    """Where on the picture (0..1) words were asked for, from `start` to `end` seconds."""

    words: str
    left: float
    top: float
    right: float
    bottom: float
    start: float
    end: float


@dataclass(frozen=True)
class Making:
    """How a video was made, as far as its sheet shows it. Times are seconds."""

    given: tuple[tuple[float, float], ...] = ()  # parts of the video that were given
    opening: float = 0.0  # how long the clip is that the video goes on from; events count from its end
    followed: bool = True  # whether anything followed the times of the events
    boxes: tuple[Box, ...] = ()
    says: str = ""  # model, seed and techniques


@dataclass(frozen=True)
class Bar:
    """What is drawn from `start` to `end` seconds."""

    name: str
    words: str
    start: float
    end: float
    colour: Colour
    striped: bool = False


def timeline_sheet(
    video: Footage,
    timeline: Timeline | None,
    making: Making = Making(),
    columns: int | None = None,
    count: int | None = None,
    cell: int = 128,
) -> Image.Image:
    """Frames of a video, each the first of its share of the time, under bars with what was given and asked for then.

    `columns` and `count` (frames; default: all of a short clip, else every second, third ...) are counts, `cell` is the
    longer side of a frame, pixels. Events without times share the video. Raises: KinemaError as `Timeline.over`.
    """
    from PIL import Image

    shared, bars = bars_of(video, timeline, making)
    each = len(video) / min(len(video), count) if count else every(len(video))  # frames
    count = -int(-len(video) // each)
    columns = max(1, min(columns or fullest(count), count))
    scale = cell / max(video.height, video.width)
    w, h = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    across = max(columns * (w + EDGE) + EDGE, NARROWEST)
    lanes = lanes_of([(bar.start, bar.end) for bar in bars])
    top = list(_legend(shared, bars, making, across))
    rows = [range(first, min(first + columns, count)) for first in range(0, count, columns)]
    foot = lettering.wrapped(making.says, across - 2 * EDGE)

    def time_of(place: float) -> float:
        return place * each / video.fps

    used = [
        max((n for n, b in zip(lanes, bars, strict=True) if b.start < time_of(r.stop) and b.end > time_of(r.start)),
            default=0) + 1
        for r in rows
    ]  # fmt: skip
    heights = [lanes_used * LINE + h + LINE + 2 * EDGE for lanes_used in used]
    sheet = Image.new("RGB", (across, 2 * EDGE + len(top) * LINE + sum(heights) + len(foot) * LINE), BACK)
    y = EDGE
    for words, bar in top:
        _legend_line(sheet, y, words, bar)
        y += LINE
    y += EDGE
    for row, lanes_used, height in zip(rows, used, heights, strict=True):

        def x_of(time: float, row: range = row) -> float:
            stop = min(row.stop, len(video) / each)
            return EDGE + (min(max(time * video.fps / each, row.start), stop) - row.start) * (w + EDGE)

        _bars(sheet, bars, lanes, y, x_of)
        for place in row:
            index = int(place * each + CLOSE)
            at = EDGE + (place - row.start) * (w + EDGE), y + lanes_used * LINE
            picture = Image.fromarray(video.frames[index]).resize((w, h), Image.Resampling.LANCZOS)
            sheet.paste(picture, at)
            _boxes(sheet, [b for b in making.boxes if b.start <= index / video.fps < b.end], at, (w, h))
            given = any(start - CLOSE <= index / video.fps < end - CLOSE for start, end in making.given)
            said = f"{index / video.fps:.2f} s{', given' * given}"
            lettering.write(sheet, (at[0] + 2, at[1] + h), said, FAINT if given else TEXT)
        y += height
    for line in foot:
        lettering.write(sheet, (EDGE, y), line, FAINT)
        y += LINE
    return sheet


def every(frames: int) -> int:
    """Of how many frames one is shown, so that a sheet shows all of a short clip, and of others at even times."""
    return -(-frames // MOST)


def fullest(count: int) -> int:
    """Columns, seven to ten, that leave the fewest places empty."""
    return count if count <= 10 else min(range(7, 11), key=lambda columns: (-count % columns, columns))


def bars_of(video: Footage, timeline: Timeline | None, making: Making) -> tuple[str, list[Bar]]:
    """The words that all events share, and what there is to draw: the given parts, and each event's own words."""
    bars = [Bar("", "given", start, end, GIVEN) for start, end in making.given]
    if timeline is None:
        return "", bars
    timed = timeline.over(video.seconds - making.opening, video.fps)
    shared, words = parted([event.text for event in timed])
    for i, (event, own) in enumerate(zip(timed, words, strict=True)):
        start, end = (time + making.opening for time in event.span)
        bars.append(Bar(str(i + 1), own, start, end, COLOURS[i % len(COLOURS)], not making.followed))
    return shared, bars


def parted(texts: Sequence[str]) -> tuple[str, list[str]]:
    """The words that several texts begin with, two or more of them, and what each says behind; "" where there are none.

    They end at their last comma, where they have one: "a ball, it" rolls, "a ball, it" jumps is "a ball", "it rolls".
    """
    common = [
        words[0] for words in takewhile(lambda words: len(set(words)) == 1, zip(*map(str.split, texts), strict=False))
    ]
    commas = [i for i, word in enumerate(common) if word.endswith(",")]
    ahead = commas[-1] + 1 if commas else len(common)
    own = [" ".join(text.split()[ahead:]) for text in texts]
    if len(texts) < 2 or ahead < 2 or not all(own):
        return "", list(texts)
    return " ".join(common[:ahead]).rstrip(","), own


def lanes_of(spans: Sequence[tuple[float, float]]) -> list[int]:
    """On which line each bar is drawn, so that those that overlap in time do not on the picture."""
    ends: list[float] = []
    lanes = []
    for start, end in spans:
        lane = next((i for i, before in enumerate(ends) if before <= start + CLOSE), len(ends))
        ends[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes


def _legend(shared: str, bars: Sequence[Bar], making: Making, across: int) -> Iterator[tuple[str, Bar | None]]:
    """The lines at the top, each with the bar that it explains."""
    for line in lettering.wrapped(f"{shared} ..." if shared else "", across - 2 * EDGE):
        yield line, None
    if making.given:
        times = ", ".join(f"{start:.2f}-{end:.2f} s" for start, end in making.given)
        yield lettering.cut(f"given  {times}", across - 2 * EDGE - LINE), bars[0]
    for bar in bars[len(making.given) :]:
        words = f"{bar.name}  {bar.start:.2f}-{bar.end:.2f} s  {bar.words}"
        yield lettering.cut(words, across - 2 * EDGE - LINE), bar
    if any(bar.striped for bar in bars):
        yield UNFOLLOWED, None


def _legend_line(sheet: Image.Image, y: int, words: str, bar: Bar | None) -> None:
    if bar is None:
        lettering.write(sheet, (EDGE, y), words, TEXT)
        return
    _filled(sheet, (EDGE, y + 3, EDGE + 10, y + 13), bar)
    lettering.write(sheet, (EDGE + LINE, y), words, TEXT)


def _bars(sheet: Image.Image, bars: Sequence[Bar], lanes: Sequence[int], top: int, x: Callable[[float], float]) -> None:
    """The bars above one row; x: second -> pixels, no further than the row goes."""
    from PIL import ImageDraw

    draw = ImageDraw.Draw(sheet)
    draw.rectangle((x(0), top, x(float("inf")) - EDGE, top + LINE - 2), fill=GAP_IN_TIME)
    for bar, lane in zip(bars, lanes, strict=True):
        left, right = x(bar.start), x(bar.end)
        if right - left < 1 + EDGE:
            continue
        y = top + lane * LINE
        _filled(sheet, (round(left), y, round(right) - EDGE, y + LINE - 2), bar)
        words = lettering.cut(f"{bar.name} {bar.words}".strip(), right - left - EDGE - 4)
        lettering.write(sheet, (left + 3, y), words, (255, 255, 255))


def _filled(sheet: Image.Image, box: tuple[int, int, int, int], bar: Bar) -> None:
    """A rectangle of a bar's colour, or stripes of it."""
    from PIL import Image, ImageDraw

    left, top, right, bottom = box
    w, h = right - left + 1, bottom - top + 1
    part = Image.new("RGB", (w, h), bar.colour)
    if bar.striped:
        dark: Colour = tuple(channel // 2 for channel in bar.colour)  # type: ignore[assignment]
        draw = ImageDraw.Draw(part)
        for x in range(-h, w, 8):
            draw.line((x, h, x + h, 0), fill=dark, width=3)
    sheet.paste(part, (left, top))


def _boxes(sheet: Image.Image, boxes: Sequence[Box], at: tuple[int, int], size: tuple[int, int]) -> None:
    """Outlines on one frame, each with its words."""
    from PIL import ImageDraw

    (x, y), (w, h) = at, size
    for box in boxes:
        left, top = x + box.left * (w - 1), y + box.top * (h - 1)
        ImageDraw.Draw(sheet).rectangle(
            (left, top, x + box.right * (w - 1), y + box.bottom * (h - 1)), outline=(255, 255, 255)
        )
        words = lettering.cut(box.words, x + w - left - 3)
        lettering.write(sheet, (left + 4, top + 2), words, (0, 0, 0))
        lettering.write(sheet, (left + 3, top + 1), words, (255, 255, 255))

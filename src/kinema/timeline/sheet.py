"""A picture of a video and its timeline: above each row of frames a bar says what was asked for at that time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kinema.core.footage import Footage
from kinema.timeline.events import Timeline

if TYPE_CHECKING:
    from PIL import Image

BACK, TEXT, GAP_IN_TIME = (24, 24, 27), (212, 212, 216), (52, 52, 58)
COLOURS = ((37, 99, 235), (180, 83, 9), (4, 120, 87), (157, 23, 77), (109, 40, 217), (15, 118, 110), (185, 28, 28))
LINE, EDGE = 16, 4  # pixels: height of a line of words or a bar, and what is left free around things


def timeline_sheet(
    video: Footage, timeline: Timeline, columns: int = 8, count: int | None = None, cell: int = 128
) -> Image.Image:
    """Frames of a video, each from the middle of its share of the time, under bars with the events of that time.

    `columns` and `count` (frames, default at most 24) are counts, `cell` is the longer side of a frame, pixels. Events
    without times share the video. Raises: KinemaError as `Timeline.over`.
    """
    from PIL import Image, ImageDraw, ImageFont

    timed = timeline.over(video.seconds, video.fps)
    count = max(1, min(len(video), count or 24))
    columns = max(1, min(columns, count))
    scale = cell / max(video.height, video.width)
    w, h = max(1, round(video.width * scale)), max(1, round(video.height * scale))
    lanes = lanes_of(timed)
    high = (max(lanes) + 1) * (LINE + 1)  # of the bars of a row
    across, row_high = columns * (w + EDGE) + EDGE, high + h + LINE + 2 * EDGE
    rows = -(-count // columns)
    font = ImageFont.load_default(11)
    sheet = Image.new("RGB", (across, EDGE + len(timed) * LINE + EDGE + rows * row_high), BACK)
    draw = ImageDraw.Draw(sheet)
    draw.font = font
    for i, event in enumerate(timed):
        start, end = event.span
        y = EDGE + i * LINE
        draw.rectangle((EDGE, y + 2, EDGE + 10, y + 12), fill=COLOURS[i % len(COLOURS)])
        words = f"{i + 1}   {start:.2f}-{end:.2f} s   {event.text}"
        draw.text((EDGE + 16, y), cut(words, font, across - 2 * EDGE - 16), fill=TEXT)
    for row in range(rows):
        top = 2 * EDGE + len(timed) * LINE + row * row_high
        first, stop = row * columns, min(count, (row + 1) * columns)

        def x_of(time: float, first: int = first, stop: int = stop) -> float:
            return EDGE + (min(max(time / video.seconds * count, first), stop) - first) * (w + EDGE)

        _bars(draw, timed, lanes, top, x_of)
        for place in range(first, stop):
            index = math.floor((place + 0.5) * len(video) / count)
            x = EDGE + (place - first) * (w + EDGE)
            picture = Image.fromarray(video.frames[index]).resize((w, h), Image.Resampling.LANCZOS)
            sheet.paste(picture, (x, top + high))
            draw.text((x + 2, top + high + h), f"{index / video.fps:.2f} s", fill=TEXT)
    return sheet


def lanes_of(timeline: Timeline) -> list[int]:
    """On which line each event's bar is drawn, so that those that overlap in time do not on the picture."""
    ends: list[float] = []
    lanes = []
    for event in timeline:
        start, end = event.span
        lane = next((i for i, before in enumerate(ends) if before <= start), len(ends))
        ends[lane : lane + 1] = [end]
        lanes.append(lane)
    return lanes


def _bars(draw: Any, timed: Timeline, lanes: list[int], top: int, x: Callable[[float], float]) -> None:
    """The bars above one row, whose left end is at `x(0)`; x: second -> pixels, no further than the row goes."""
    font = draw.getfont()
    for lane in range(max(lanes) + 1):
        y = top + lane * (LINE + 1)
        draw.rectangle((x(0), y, x(float("inf")) - EDGE, y + LINE - 2), fill=GAP_IN_TIME)
    for i, (event, lane) in enumerate(zip(timed, lanes, strict=True)):
        left, right = (x(time) for time in event.span)
        if right - left < 1:
            continue
        y = top + lane * (LINE + 1)
        draw.rectangle((left, y, right - EDGE, y + LINE - 2), fill=COLOURS[i % len(COLOURS)])
        words = cut(f"{i + 1} {event.text}", font, right - left - EDGE - 4)
        draw.text((left + 3, y), words, fill=(255, 255, 255))


def cut(text: str, font: Any, width: float) -> str:
    """As much of a text as fits into so many pixels, with "..." where something is left out."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..." if text else ""

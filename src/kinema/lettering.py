"""Words on pictures: drawn four times as large and shrunk, so that letters and spaces stand where they should."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

SIZE, LINE = 13, 18  # pixels: of the letters, and from line to line
SPACE = 0.32  # of a letter's size, between words
FINER = 4  # how much larger words are drawn

Colour = tuple[int, int, int]


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(SIZE * FINER)


def length(text: str) -> float:
    """How wide a text is, pixels."""
    words = text.split(" ")
    return sum(float(_font().getlength(word)) / FINER for word in words) + (len(words) - 1) * SPACE * SIZE


def write(image: Image.Image, place: tuple[float, float], text: str, fill: Colour) -> None:
    """Writes a line of text onto an RGB picture; place: its upper left corner, pixels."""
    from PIL import Image, ImageDraw

    wide = int(length(text)) + 2
    large = Image.new("L", (wide * FINER, LINE * FINER))
    draw, x = ImageDraw.Draw(large), 0.0
    for word in text.split(" "):
        draw.text((x, 0), word, fill=255, font=_font())
        x += _font().getlength(word) + SPACE * SIZE * FINER
    mask = large.resize((wide, LINE), Image.Resampling.BOX)
    image.paste(fill, (round(place[0]), round(place[1])), mask)


def cut(text: str, width: float) -> str:
    """As much of a text as fits into so many pixels, with "..." where something is left out."""
    if length(text) <= width:
        return text
    while text and length(f"{text}...") > width:
        text = text[:-1].rstrip()
    return f"{text}..." if text else ""


def wrapped(text: str, width: float) -> list[str]:
    """Text in lines of at most so many pixels; a word that is wider has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and length(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines

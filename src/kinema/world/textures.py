"""Pictures for flat objects: letters, a few built-in drawings, and any image file with an alpha channel.

Letters are white (the renderer gives them the colour of their object, which may change), drawings have the colour of
their object, image files their own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kinema.world.spec import ObjectSpec
from kinema.world.vocabulary import COLOURS

TEXTURE = 96  # pixels along each side
FINE = 4  # drawn this many times larger, then made smaller
DRAWINGS = ("star", "heart", "flower", "fish", "house", "tree")


def texture_of(thing: ObjectSpec) -> Tensor | None:
    """The texture of an object, RGBA (4, h, w) in 0..1, None for solid kinds.

    Raises:
        ValueError: when a letter is not one character, or a picture is neither a drawing nor a readable image.
    """
    if thing.kind == "letter":
        return letter(thing.text)
    if thing.kind == "picture":
        if thing.text not in DRAWINGS:
            return image_file(thing.text)
        tint = torch.tensor([*COLOURS[thing.colour], 1.0])
        return drawing(thing.text) * tint[:, None, None]
    return None


@lru_cache(maxsize=64)
def letter(text: str) -> Tensor:
    """One character, as large as fits the square."""
    from PIL import Image, ImageDraw, ImageFont

    if len(text) != 1 or not text.isalnum():
        raise ValueError(f"the text of a letter is {text!r}; use one letter or digit")
    side = TEXTURE * FINE
    font = ImageFont.load_default(size=side)
    canvas = Image.new("L", (2 * side, 2 * side), 0)
    ImageDraw.Draw(canvas).text((side // 2, side // 4), text, fill=255, font=font, stroke_width=side // 40)
    box = canvas.getbbox()
    glyph = canvas.crop(box)
    scale = 0.96 * side / max(glyph.size)
    glyph = glyph.resize((max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))))
    alpha = Image.new("L", (side, side), 0)
    alpha.paste(glyph, ((side - glyph.width) // 2, side - glyph.height))  # stands on the ground
    return tinted(np.ones((side, side)), np.asarray(alpha, dtype=np.float64) / 255)


@lru_cache(maxsize=16)
def drawing(name: str) -> Tensor:
    """A built-in drawing: a bright shape with darker details."""
    from PIL import Image, ImageDraw

    side = TEXTURE * FINE
    alpha, shade = Image.new("L", (side, side), 0), Image.new("L", (side, side), 255)
    fill, detail = ImageDraw.Draw(alpha), ImageDraw.Draw(shade)

    def scaled(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * side, y * side) for x, y in points]

    def disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, value: int) -> None:
        draw.ellipse((*scaled([(x - r, y - r)])[0], *scaled([(x + r, y + r)])[0]), fill=value)

    if name == "star":
        turns = [(math.pi * k / 5, 0.52 if k % 2 == 0 else 0.22) for k in range(10)]
        fill.polygon(scaled([(0.5 + r * math.sin(a), 0.53 - r * math.cos(a)) for a, r in turns]), fill=255)
    elif name == "heart":
        angles = [2 * math.pi * k / 80 for k in range(80)]
        curve = [
            (16 * math.sin(a) ** 3, 13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a))
            for a in angles
        ]
        fill.polygon(scaled([(0.5 + x / 34, 0.44 - y / 32) for x, y in curve]), fill=255)
    elif name == "flower":
        for k in range(6):
            disc(fill, 0.5 + 0.3 * math.sin(math.pi * k / 3), 0.5 + 0.3 * math.cos(math.pi * k / 3), 0.19, 255)
        disc(fill, 0.5, 0.5, 0.2, 255)
        disc(detail, 0.5, 0.5, 0.14, 110)
    elif name == "fish":
        fill.ellipse((0.02 * side, 0.25 * side, 0.72 * side, 0.75 * side), fill=255)
        fill.polygon(scaled([(0.62, 0.5), (0.98, 0.22), (0.98, 0.78)]), fill=255)
        disc(detail, 0.2, 0.44, 0.05, 60)
    elif name == "house":
        fill.polygon(scaled([(0.5, 0.02), (0.98, 0.42), (0.02, 0.42)]), fill=255)
        fill.polygon(scaled([(0.14, 0.4), (0.86, 0.4), (0.86, 1.0), (0.14, 1.0)]), fill=255)
        detail.polygon(scaled([(0.42, 0.66), (0.6, 0.66), (0.6, 1.0), (0.42, 1.0)]), fill=100)
        detail.polygon(scaled([(0.5, 0.02), (0.98, 0.42), (0.02, 0.42)]), fill=170)
    elif name == "tree":
        for top, width, bottom in ((0.0, 0.28, 0.36), (0.2, 0.38, 0.6), (0.42, 0.48, 0.86)):
            fill.polygon(scaled([(0.5, top), (0.5 + width, bottom), (0.5 - width, bottom)]), fill=255)
        fill.polygon(scaled([(0.43, 0.8), (0.57, 0.8), (0.57, 1.0), (0.43, 1.0)]), fill=255)
        detail.polygon(scaled([(0.43, 0.86), (0.57, 0.86), (0.57, 1.0), (0.43, 1.0)]), fill=110)
    else:
        raise ValueError(f"the drawing is {name!r}; use one of {', '.join(DRAWINGS)}")
    return tinted(np.asarray(shade, dtype=np.float64) / 255, np.asarray(alpha, dtype=np.float64) / 255)


def tinted(shade: np.ndarray, alpha: np.ndarray) -> Tensor:
    """RGBA from grey and alpha, averaged down to TEXTURE pixels."""

    def small(a: np.ndarray) -> np.ndarray:
        mean: np.ndarray = a.reshape(TEXTURE, FINE, TEXTURE, FINE).mean((1, 3))
        return mean

    grey = small(shade)
    return torch.from_numpy(np.stack([grey, grey, grey, small(alpha)]).astype(np.float32))


def image_file(path: str) -> Tensor:
    """An image file with its alpha channel, at most 256 pixels a side."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(path)) as opened:
            image = opened.convert("RGBA")
    except (OSError, UnidentifiedImageError, ValueError) as error:
        raise ValueError(
            f"cannot read the picture {path!r}; use an image file or one of {', '.join(DRAWINGS)}"
        ) from error
    image.thumbnail((256, 256))
    return torch.from_numpy(np.asarray(image, dtype=np.float32).copy() / 255).permute(2, 0, 1)

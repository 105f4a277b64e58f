"""Pictures as people give them, made ready: upright, RGB, opaque."""

from __future__ import annotations

import base64
import binascii
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kinema.core.errors import KinemaError

DATA = "data:image/png;base64,"  # how pictures stand inside a request


def open_picture(source: Any, what: str = "image") -> Image.Image:
    """An RGB picture from a path, a `data:` address with base64, a PIL image or an array (H, W, 3) uint8.

    Turned upright as the camera noted it; transparent parts become black. `what` names the field in errors.
    Raises: KinemaError, one sentence, when there is no such file or it is not a picture.
    """
    if isinstance(source, Image.Image):
        return upright(source)
    if isinstance(source, np.ndarray):
        if source.dtype != np.uint8 or source.ndim != 3 or source.shape[2] != 3:
            raise KinemaError(f"{what} is an array {source.shape} {source.dtype}; use (height, width, 3) uint8")
        return Image.fromarray(source)
    text = str(source)
    shown = text if len(text) <= 80 else text[:60] + "..."
    try:
        with opened(text) as picture:
            return upright(picture)
    except FileNotFoundError:
        raise KinemaError(f"{what} {shown!r} does not exist; give the path of a picture") from None
    except IsADirectoryError:
        raise KinemaError(f"{what} {shown!r} is a folder; give the path of a picture") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise KinemaError(f"{what} {shown!r} cannot be read as a picture; use PNG, JPEG or WebP") from error


def opened(source: str) -> Image.Image:
    """A path or a `data:` address as Pillow opens it; what it raises for a bad one is the caller's to tell."""
    return Image.open(io.BytesIO(_data(source)) if source.startswith("data:") else Path(source))


def address(picture: Image.Image) -> str:
    """A picture as a `data:` address, without loss."""
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return DATA + base64.b64encode(data.getvalue()).decode("ascii")


def cut(picture: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of a picture, cut to the proportions of a size and brought to it, pixels."""
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def _data(address: str) -> bytes:
    header, _, body = address.partition(",")
    try:
        if not header.endswith(";base64"):
            raise ValueError(header)
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("not a base64 data address") from error


def upright(picture: Image.Image) -> Image.Image:
    """The picture in RGB, turned as its camera noted; transparent parts become black."""
    turned = ImageOps.exif_transpose(picture)
    if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
        opaque = Image.new("RGBA", turned.size, (0, 0, 0, 255))
        turned = Image.alpha_composite(opaque, turned.convert("RGBA"))
    return turned.convert("RGB")

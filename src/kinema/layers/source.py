"""A clip of any length as a source: some frames at a time, without holding the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from kinema.core.errors import KinemaError
from kinema.files import reason
from kinema.formats import (
    FOLDER_FPS,
    folder_card,
    folder_pictures,
    folder_sound,
    gif_pictures,
    gif_timing,
    load_sound,
    open_container,
)
from kinema.layers.shots import shots
from kinema.video import PICTURES, load_picture, open_clip

SHORT_SIDE = 512  # pixels; larger frames are shrunk to it as they are read


@dataclass(frozen=True)
class Survey:
    """What is known of a clip when it has been read once."""

    frames: int
    fps: float
    height: int  # pixels, of the clip itself
    width: int
    shots: tuple[tuple[int, int], ...]  # first frame and the one after the last of each


@dataclass(eq=False)
class Source:
    """A video, a folder of pictures, one picture, or a `data:` address, read forwards and never as a whole.

    Frames are (n, H, W, 3) uint8, upright, with the shorter side SHORT_SIDE pixels at most. What was read last is kept,
    so that pieces which overlap are decoded once; going back further begins anew at the first frame.
    """

    path: str
    survey: Survey
    _pictures: Iterator[np.ndarray] | None = None  # those from frame `_next` on
    _next: int = 0
    _last: dict[int, np.ndarray] = field(default_factory=dict)  # frames of the piece that was read last

    @classmethod
    def open(cls, path: str, what: str = "source", cuts: bool = True) -> Source:
        """Reads the clip once. what: names the field in errors. cuts: whether it is cut into its shots.

        Raises: KinemaError, one sentence, when it is not there, cannot be read, or changes its size on the way.
        """
        if not path:
            raise KinemaError(f"{what} is empty; give a video, a folder of pictures, or a data: address")
        return cls(path, _surveyed(path, what, cuts, _stamp(path)))

    def __len__(self) -> int:
        return self.survey.frames

    def again(self) -> Source:
        """The same clip, read at another place."""
        return Source(self.path, self.survey)

    def frames(self, wanted: list[int] | range) -> np.ndarray:
        """The frames of these numbers, which do not fall; the last one stands for all behind the end."""
        numbers = [min(i, len(self) - 1) for i in wanted]
        kept = {i: self._frame(i) for i in sorted({*numbers})}
        self._last = kept
        return np.stack([kept[i] for i in numbers])

    def _frame(self, number: int) -> np.ndarray:
        if number in self._last:
            return self._last[number]
        if self._pictures is None or number < self._next:
            self._pictures, self._next = pictures(self.path), 0
        for picture in self._pictures:
            self._next += 1
            if self._next > number:
                return shrunk(picture)
        raise KinemaError(f"{shown(self.path)} has become shorter while it was read; leave it as it is")

    def sound(self) -> tuple[np.ndarray | None, int]:
        """All of its sound, (S,) or (S, 2) float32 or None, and samples per second."""
        path = Path(self.path)
        if self.path.startswith("data:") or path.suffix.lower() in (".gif", *PICTURES):
            return None, 16000
        return folder_sound(path) if path.is_dir() else load_sound(path)


def pictures(source: str) -> Iterator[np.ndarray]:
    """All frames (H, W, 3) uint8, one after the other."""
    path = Path(source)
    if source.startswith("data:"):
        yield from open_clip(source, "source")
    elif path.is_dir():
        yield from map(load_picture, folder_pictures(path))
    elif path.suffix.lower() in PICTURES:
        yield load_picture(path)
    elif path.suffix.lower() == ".gif":
        shown, stored = gif_timing(path)[1], -1
        with closing(gif_pictures(path)) as found:  # type: ignore[type-var]
            for number in shown.tolist():
                while stored < number:
                    picture, stored = next(found), stored + 1
                yield picture
    else:
        with open_container(path) as (_, decoded, _):
            yield from decoded


def rate(source: str) -> float:
    """Frames per second, as it says; of what says none, those of a folder."""
    path = Path(source)
    if source.startswith("data:"):
        return FOLDER_FPS
    if path.is_dir():
        return folder_card(path)[0]
    if path.suffix.lower() in PICTURES:
        return 1.0
    if path.suffix.lower() == ".gif":
        return gif_timing(path)[0]
    with open_container(path) as (fps, _, _):
        return fps


def shrunk(picture: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 whose shorter side is SHORT_SIDE at most."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = SHORT_SIDE / min(height, width)
    if scale >= 1:
        return np.ascontiguousarray(picture)
    size = round(width * scale), round(height * scale)
    return np.asarray(Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.BOX))


def spread(first: int, stop: int, count: int) -> list[int]:
    """`count` numbers, evenly from `first` to `stop` - 1; all of them where there are no more."""
    if stop - first <= count:
        return list(range(first, stop))
    return [first + math.floor(i * (stop - 1 - first) / (count - 1) + 0.5) for i in range(count)]


def shown(source: str) -> str:
    """A source as errors name it."""
    return source if len(source) <= 80 else f"{source[:60]}..."


@lru_cache(maxsize=8)
def _surveyed(source: str, what: str, cuts: bool, stamp: object) -> Survey:
    sizes: dict[tuple[int, int], int] = {}
    count = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal count
        for picture in pictures(source):
            sizes.setdefault((picture.shape[0], picture.shape[1]), count)
            if len(sizes) > 1:
                raise KinemaError(f"frame {count} of {shown(source)} has another size than those ahead of it")
            count += 1
            yield shrunk(picture) if cuts else picture

    try:
        fps = rate(source)
        found = tuple(shots(counted(), fps)) if cuts else ((0, sum(1 for _ in counted())),)
    except OSError as error:
        raise KinemaError(f"cannot read {what} {shown(source)}: {reason(error)}") from error
    height, width = next(iter(sizes))
    return Survey(count, fps, height, width, found)


def _stamp(source: str) -> object:
    """Changes when the clip does. Raises: KinemaError when it is not there."""
    if source.startswith("data:"):
        return None
    path = Path(source)
    if not path.exists():
        raise KinemaError(f"there is no file or folder {path}")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return tuple((p.name, p.stat().st_mtime_ns, p.stat().st_size) for p in files if p.is_file())

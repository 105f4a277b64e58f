"""Buckets: the few sizes and lengths that clips of all kinds are cut to, so that those of one make a batch.

Aspect buckets are those of NovelAI's training of Stable Diffusion (2022,
github.com/NovelAI/novelai-aspect-ratio-bucketing): near one area, with sides that the network takes; here of a fixed
list of aspects. Lengths are the same along time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from kinema.core.errors import KinemaError
from kinema.request import Request

if TYPE_CHECKING:
    from kinema.backbones.base import DiffusersBackbone

# Width by height: those of screens, films, photographs and telephones.
ASPECTS = tuple(
    Fraction(*sides) for sides in ((1, 2), (9, 16), (2, 3), (3, 4), (1, 1), (4, 3), (3, 2), (16, 9), (2, 1))
)
PARTS = 4  # of the longest length that are lengths, too


@dataclass(frozen=True, kw_only=True)
class BucketSettings:
    """Sizes that a user's clips are cut to; None and () take what the model says."""

    height: int | None = None  # pixels; with `width` the area of all buckets, and one of them
    width: int | None = None
    num_frames: int | None = None  # of the longest clips
    lengths: tuple[int, ...] = ()  # frames of the clips; (): quarters of num_frames
    all_aspects: bool = True  # False: one shape, height x width
    fps: float | None = None  # frames per second at which clips are read

    def __post_init__(self) -> None:
        numbers = {"height": self.height, "width": self.width, "num_frames": self.num_frames, "fps": self.fps}
        for name, value in (*numbers.items(), *(("lengths", n) for n in self.lengths)):
            if value is not None and value <= 0:
                raise ValueError(f"{name} is {value}; use more than 0")
        if self.num_frames is not None and max((*self.lengths, 0)) > self.num_frames:
            raise ValueError(f"lengths go to {max(self.lengths)}, num_frames is {self.num_frames}; leave it out")


@dataclass(frozen=True, order=True)
class Bucket:
    """Frames, and pixels of a side, of the clips in it."""

    num_frames: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.num_frames}x{self.height}x{self.width}"


@dataclass(frozen=True)
class Buckets:
    """All of a training."""

    shapes: tuple[tuple[int, int], ...]  # (height, width) in pixels
    lengths: tuple[int, ...]  # frames, rising; 1 only where the model makes single frames
    fps: float

    @classmethod
    def of(cls, backbone: DiffusersBackbone, settings: BucketSettings) -> Buckets:
        """Of what a model makes. Raises: KinemaError for what it does not."""
        d = backbone.defaults
        height, width = settings.height or d.height, settings.width or d.width
        longest = settings.num_frames or max((*settings.lengths, 0)) or d.num_frames
        asked = Request(prompt="a", num_frames=longest, height=height, width=width)
        backbone.settle([asked])  # refuses in its own words what it does not make
        if settings.lengths:
            for frames in settings.lengths:
                backbone.settle([asked.changed(num_frames=frames)])
            lengths = set(settings.lengths)
        else:
            makes = [n for n in range(2, longest + 1) if _settles(backbone, asked.changed(num_frames=n))]
            marks = [1 + (longest - 1) * part / PARTS for part in range(1, PARTS + 1)]
            lengths = {max(n for n in makes if n <= mark) for mark in marks if makes and makes[0] <= mark}
        if _settles(backbone, asked.changed(num_frames=1)):
            lengths.add(1)
        shapes = {(height, width)}
        if settings.all_aspects:
            near = (_shape(aspect, height * width, _sides(backbone)) for aspect in ASPECTS)
            shapes |= {(h, w) for h, w in near if _settles(backbone, asked.changed(height=h, width=w))}
        return cls(tuple(sorted(shapes)), tuple(sorted(lengths)), float(settings.fps or d.fps))

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """The shape nearest to a picture's, by the logarithm of width by height."""
        return min(self.shapes, key=lambda shape: abs(math.log(width / height * shape[0] / shape[1])))

    def length(self, frames: int) -> int | None:
        """The longest that so many frames fill; None where they fill none but that of a picture."""
        fitting = [n for n in self.lengths if n <= frames and (n > 1 or frames == 1)]
        return max(fitting, default=None)


def _sides(backbone: DiffusersBackbone) -> tuple[int, int]:
    """What height and width are multiples of, pixels."""
    return backbone.pixels_per_cell * backbone.patch[1], backbone.pixels_per_cell * backbone.patch[2]


def _shape(aspect: Fraction, area: int, multiples: Sequence[int]) -> tuple[int, int]:
    """Height and width of an aspect near an area, pixels."""
    sides = math.sqrt(area / aspect), math.sqrt(area * aspect)
    height, width = (max(1, round(side / unit)) * unit for side, unit in zip(sides, multiples, strict=True))
    return height, width


def _settles(backbone: DiffusersBackbone, request: Request) -> bool:
    try:
        backbone.settle([request])
    except KinemaError:
        return False
    return True

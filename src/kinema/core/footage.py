"""Frames with their rate and perhaps a sound: what a video is, whoever looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kinema.core.errors import KinemaError


@dataclass(eq=False)
class Footage:
    """`frames` is (T, H, W, 3) uint8 sRGB with T at least 1, `fps` is frames per second, `sound` is None, (S,) mono or
    (S, 2) stereo float32 in -1..1 with `sample_rate` samples per second.

    Raises: KinemaError, when a shape, a type or a rate is none of these.
    """

    frames: np.ndarray
    fps: float = 8.0
    sound: np.ndarray | None = None
    sample_rate: int = 16000

    def __post_init__(self) -> None:
        self.frames = np.asarray(self.frames)
        if self.frames.ndim != 4 or self.frames.shape[-1] != 3 or 0 in self.frames.shape:
            raise KinemaError(f"frames have shape {self.frames.shape}; give (T, H, W, 3) with at least one frame")
        if self.frames.dtype != np.uint8:
            raise KinemaError(f"frames are {self.frames.dtype}; give uint8 in 0..255")
        self.fps = float(self.fps)
        if not 0.001 <= self.fps <= 1000:
            raise KinemaError(f"fps is {self.fps}; use 0.001 to 1000")
        if self.sound is not None:
            self.sound = np.asarray(self.sound, dtype=np.float32)
            if self.sound.ndim not in (1, 2) or (self.sound.ndim == 2 and self.sound.shape[1] not in (1, 2)):
                raise KinemaError(f"sound has shape {self.sound.shape}; give (S,) for mono or (S, 2) for stereo")
            if not np.isfinite(self.sound).all():
                raise KinemaError("sound holds values that are not numbers; give float32 in -1..1")
            if not 8000 <= self.sample_rate <= 96000:
                raise KinemaError(f"sample_rate is {self.sample_rate}; use 8000 to 96000 samples per second")

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height(self) -> int:
        """Rows, pixels."""
        return int(self.frames.shape[1])

    @property
    def width(self) -> int:
        """Columns, pixels."""
        return int(self.frames.shape[2])

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self) / self.fps


@dataclass(frozen=True)
class Finish:
    """What the frames of a video become as they leave: stretched to a size, with a sound that kinema did not make."""

    height: int  # pixels
    width: int
    sound: Callable[[], tuple[np.ndarray | None, int]]  # as `Footage` has it, and samples per second

    def frames(self, frames: np.ndarray) -> Iterator[np.ndarray]:
        """Frames (n, H, W, 3) uint8 one by one, (1, H', W', 3) each, so that no more of them is held."""
        from PIL import Image

        for frame in frames:
            if frame.shape[:2] != (self.height, self.width):
                picture = Image.fromarray(np.ascontiguousarray(frame))
                frame = np.asarray(picture.resize((self.width, self.height), Image.Resampling.LANCZOS))
            yield frame[None]


def as_video(frames: Tensor) -> Tensor:
    """Frames (B, T, H, W, 3) uint8 -> video (B, 3, T, H, W) float32 in -1..1, as autoencoders take it."""
    return frames.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0

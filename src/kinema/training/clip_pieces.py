"""Clips of any size, length and rate as pieces of a bucket: read at one rate, cut to shape, cut to length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from kinema.core.errors import KinemaError
from kinema.evaluation.clips import load, read_header
from kinema.formats import MAX_BYTES, open_container
from kinema.training.buckets import Bucket, Buckets
from kinema.training.clip_folder import CaptionedClip
from kinema.video import PICTURES, load_picture


def check_header(clip: CaptionedClip) -> None:
    """Raises: KinemaError for a file that can be seen to be empty, broken or cut short without decoding it."""
    with _named(clip):
        if is_picture(clip.path):
            load_picture(clip.path)
        else:
            read_header(clip.path)


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES and path.is_file()


def pieces(clip: CaptionedClip, buckets: Buckets, most: int | None = None) -> Iterator[tuple[Bucket, np.ndarray]]:
    """The pieces of a clip, frames (T, H, W, 3) uint8 each, one after the other and without overlap.

    Each is of the longest length; a clip that does not fill it is one piece of the longest length that it fills. What
    is left over at the end is not used. most: pieces at most; None for all.
    Raises: KinemaError, with the clip's name, when it cannot be read or is too short.
    """
    with _named(clip), _opened(clip.path) as (fps, frames):
        cut: list[np.ndarray] = []
        shape, count = (0, 0), 0
        for frame in frames if fps is None else at_rate(frames, fps, buckets.fps):
            shape = shape if cut or count else buckets.shape(*frame.shape[:2])
            cut.append(fitted(frame, *shape))
            if len(cut) == buckets.lengths[-1]:
                yield Bucket(len(cut), *shape), np.stack(cut)
                count, cut = count + 1, []
                if count == most:
                    return
        length = buckets.length(len(cut)) if fps is not None else 1
        if count == 0 and (length is None or length not in buckets.lengths):
            raise KinemaError(_too_short(len(cut), fps is None, buckets))
        if count == 0 and length is not None:
            yield Bucket(length, *shape), np.stack(cut[:length])


def _too_short(frames: int, picture: bool, buckets: Buckets) -> str:
    shortest = min(n for n in buckets.lengths if n > 1 or len(buckets.lengths) == 1)
    if picture:
        return f"it is a picture, and the model makes clips of {shortest} frames or more; take it out"
    return f"it is too short, {frames} frames at {buckets.fps:g} fps where the shortest clips have {shortest}"


def at_rate(frames: Iterator[np.ndarray], fps: float, wanted: float) -> Iterator[np.ndarray]:
    """Frames at another rate, so that they last as long: at the middle of each new frame's time, the one shown then.

    Frames are left out or shown again, and none is blended with another.
    """
    given = 0  # frames given out
    for index, frame in enumerate(frames):
        while (given + 0.5) * fps / wanted < index + 1:
            yield frame
            given += 1


def fitted(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """A frame (H, W, 3) uint8 scaled until it covers height x width, the middle cut out."""
    from PIL import Image, ImageOps

    if frame.shape[:2] == (height, width):
        return frame
    picture = ImageOps.fit(Image.fromarray(np.ascontiguousarray(frame)), (width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[float | None, Iterator[np.ndarray]]]:
    """Frames per second, None for a single picture, and the frames; those of a container are decoded one by one."""
    if is_picture(path):
        yield None, iter([load_picture(path)])
    elif path.is_dir() or path.suffix.lower() == ".gif":
        video = load(path, MAX_BYTES)
        yield video.fps, iter(video.frames)
    else:
        read_header(path)
        with open_container(path) as (fps, frames, _):
            yield fps, frames


@contextmanager
def _named(clip: CaptionedClip) -> Iterator[None]:
    """Errors tell which clip they are about."""
    try:
        yield
    except KinemaError as error:
        message = str(error).replace(str(clip.path), "it")
        raise KinemaError(f"{clip.name} cannot be trained on: {message}") from error

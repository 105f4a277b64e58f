"""The parts of a video that is longer than one pass of the loop, as a technique plans them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.footage import Finish, Footage
    from kinema.request import Request


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One pass of the loop, of those that make a video one behind the other."""

    request: Request  # of this pass alone: its prompt, its seed, and its length in num_frames
    overlap: int = 0  # frames at its beginning that are not shown, as the video has them already
    given: bool = False  # whether the model gets the last `overlap` frames of the video so far as these, clean
    shown: int | None = None  # frames that it adds to the video; None is all behind the overlap
    opening: Footage | None = None  # of the first chunk: what the video begins with, ahead of everything that is made
    finish: Finish | None = None  # of the first chunk: what the frames of the whole video become when they are written
    notes: Any = field(default=None, compare=False, repr=False)  # of the technique that planned it
    index: int = 0  # its place, and how many there are; the rollout knows, and so it does what follows
    count: int = 1
    first: int = 0  # the frame of what is made, those that a video begins with not counted, which its own first one is
    frames: int | None = None  # how many are made in all; None for one chunk whose model says it


def seed_of(seed: int | None, index: int) -> int | None:
    """The seed of a chunk. The first has the video's own, so that a video of one chunk is what it is without."""
    if seed is None or index == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {index}".encode()).digest()[:6], "big")


def split(
    request: Request,
    frames: int,
    size: int,
    overlap: int,
    *,
    given: bool = False,
    asks: Callable[[range, range], dict[str, Any]] | None = None,
    opening: Footage | None = None,
) -> list[Chunk]:
    """A video of `frames` frames in chunks of `size`, each of which repeats the last `overlap` frames of the one ahead.

    What the last one makes beyond the video's end is not shown. `asks` says what a chunk asks for otherwise than the
    request, given the frames of the video that it makes and those of them that it adds. A picture or clip of the
    request belongs to its first chunk, with an `opening` to none. A video that one chunk holds is the request as it is.
    Raises: KinemaError for an overlap that leaves nothing to be made.
    """
    if not 0 <= overlap < size:
        raise KinemaError(f"chunks of {size} frames cannot repeat {overlap}; use an overlap of 0 to {size - 1}")
    there = 0 if opening is None else len(opening)
    first = [range(min(size, frames))] if opening is None else []
    new = [*first, *(range(i, min(i + size - overlap, frames)) for i in range(there or size, frames, size - overlap))]
    if len(new) == 1 and opening is None:
        return [Chunk(request=request)]
    chunks = []
    for i, added in enumerate(new):
        begins = i == 0 and opening is None
        repeats = 0 if begins else overlap
        changes: dict[str, Any] = {"num_frames": size, "seconds": None, "seed": seed_of(request.seed, i)}
        if not begins:
            changes |= dict(image=None, last_image=None, video=None, keep=None)
        if asks is not None:
            changes |= asks(range(added.start - repeats, added.start - repeats + size), added)
        asked = request.changed(**changes)
        chunk = Chunk(request=asked, overlap=repeats, given=given and repeats > 0, shown=len(added))
        chunks.append(chunk if i else replace(chunk, opening=opening))
    return chunks

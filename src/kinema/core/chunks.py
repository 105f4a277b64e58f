"""The parts of a video that is longer than one pass of the loop, as a technique plans them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinema.core.errors import KinemaError

if TYPE_CHECKING:
    from kinema.core.footage import Footage
    from kinema.request import Request


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One pass of the loop, of those that make a video one behind the other."""

    request: Request  # of this pass alone: its prompt, its seed, and its length in num_frames
    overlap: int = 0  # frames at its beginning that are not shown, as the video has them already
    given: bool = False  # whether the model gets the last `overlap` frames of the video so far as these, clean
    shown: int | None = None  # frames that it adds to the video; None is all behind the overlap
    opening: Footage | None = None  # of the first chunk: what the video begins with, ahead of everything that is made
    index: int = 0  # its place, and how many there are; the rollout knows
    count: int = 1


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
    prompt: Callable[[range], str] | None = None,
    opening: Footage | None = None,
) -> list[Chunk]:
    """A video of `frames` frames in chunks of `size`, each of which repeats the last `overlap` frames of the one ahead.

    What the last one makes beyond the video's end is not shown. `prompt` says what to ask for in a chunk that adds
    these frames of the video; None is the request's own prompt. A picture or clip of the request belongs to its first
    chunk, with an `opening` to none. A video that one chunk holds is the request as it is, but for its prompt.
    Raises: KinemaError for an overlap that leaves nothing to be made.
    """
    if not 0 <= overlap < size:
        raise KinemaError(f"chunks of {size} frames cannot repeat {overlap}; use an overlap of 0 to {size - 1}")
    there = 0 if opening is None else len(opening)
    first = [range(min(size, frames))] if opening is None else []
    new = [*first, *(range(i, min(i + size - overlap, frames)) for i in range(there or size, frames, size - overlap))]
    chunks = []
    for i, span in enumerate(new):
        changes = {} if prompt is None else {"prompt": prompt(span)}
        if len(new) > 1 or opening is not None:
            changes |= {"num_frames": size, "seed": seed_of(request.seed, i)}
        begins = i == 0 and opening is None
        if not begins:
            changes |= dict(image=None, last_image=None, video=None, keep=None)
        chunk = request.changed(**changes) if changes else request
        repeats = 0 if begins else overlap
        chunks.append(Chunk(request=chunk, overlap=repeats, given=given and repeats > 0, shown=len(span)))
    if opening is not None and chunks:
        from dataclasses import replace

        chunks[0] = replace(chunks[0], opening=opening)
    return chunks

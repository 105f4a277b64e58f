"""Faults of a whole set of clips: copies, clips mixed with others, some that are worse, another order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kinema.core.optional import opencv
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.corruptions.motion import shuffle
from kinema.metrics.corruptions.picture import blur
from kinema.metrics.viewing import Viewing


@corruption("fewer_modes", of="set")
def fewer_modes(clips: list[Viewing], grade: float) -> list[Viewing]:
    """Of n clips only n^(1 - grade) are kept, at grade 1 a single one; copies of them replace the others."""
    order = np.random.default_rng(0).permutation(len(clips))
    kept = order[: round(len(clips) ** (1 - grade))]
    return [clips[i] if i in kept else clips[kept[i % len(kept)]] for i in range(len(clips))]


@corruption("reordered", of="set")
def reordered(clips: list[Viewing], grade: float) -> list[Viewing]:
    """The same clips in another order; the grade changes nothing."""
    return [clips[i] for i in np.random.default_rng(0).permutation(len(clips))]


@corruption("mixed", of="set")
def mixed(clips: list[Viewing], grade: float) -> list[Viewing]:
    """In that share of the clips every second pair of frames comes from the next clip, which has the same size then."""
    cv2, found = opencv(), list(clips)
    for i in np.random.default_rng(0).permutation(len(clips))[: round(grade * len(clips))]:
        clip, other = clips[i], clips[(i + 1) % len(clips)].frames
        frames = clip.frames.copy()
        for t in np.flatnonzero(np.arange(len(frames)) % 4 >= 2):
            frames[t] = cv2.resize(other[t % len(other)], (clip.width, clip.height), interpolation=cv2.INTER_AREA)
        found[i] = clip.but(frames=frames)
    return found


@corruption("some_blurred", of="set")
def some_blurred(clips: list[Viewing], grade: float) -> list[Viewing]:
    """That share of the clips is blurred, as strongly as `blur` does at grade 1."""
    return _some(clips, grade, blur)


@corruption("some_shuffled", of="set")
def some_shuffled(clips: list[Viewing], grade: float) -> list[Viewing]:
    """In that share of the clips all frames change places.

    Within one clip which frames change places matters more than how many, so that `shuffle` is no steady fault in time.
    """
    return _some(clips, grade, shuffle)


def _some(clips: list[Viewing], grade: float, fault: Callable[[Viewing, float], Viewing]) -> list[Viewing]:
    """That share of the clips with the fault at grade 1; those of a lower grade are among those of a higher one."""
    chosen = set(np.random.default_rng(0).permutation(len(clips))[: round(grade * len(clips))].tolist())
    return [fault(clip, 1.0) if i in chosen else clip for i, clip in enumerate(clips)]

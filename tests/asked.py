"""What techniques are asked for in tests that take all of them: options, prompts, and who must stand beside whom."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from kinema.core.registry import techniques
from kinema.core.technique import Technique
from kinema.guidance.cfg import CFG
from kinema.long.gen_l_video import GenLVideo
from kinema.video import clip_address

EVENTS = "a red ball rolls, then a blue cube falls"
# Techniques that do nothing alone.
BESIDE = {"cfg_cache": lambda: [CFG()], "anchor_memory": lambda: [GenLVideo(window=2, stride=1)]}
BESIDE |= {"controlvideo": lambda: [part("gen1")]}


@cache
def clip() -> str:
    """A small clip in which a square moves to the right."""
    frames = np.full((13, 32, 32, 3), 60, dtype=np.uint8)
    for i, frame in enumerate(frames):
        frame[10:22, i : i + 12] = (220, 30, 30)
    return clip_address(frames)


def options(name: str) -> dict[str, Any]:
    """Values for the fields without which a technique cannot work."""
    if name == "paint_with_words":
        return {"regions": "ball: 0.0 0.0 0.6 0.6"}
    if name == "composed":
        return {"prompts": ("a blue cube",), "weights": (0.5,)}
    if name in ("ac3d", "vd3d"):
        return {"camera": "orbit:40deg"}
    if name == "magcache":  # what a model's card says otherwise
        return {"ratios": (1.0, 0.99, 0.98)}
    if name == "gen1":
        return {"source": clip(), "structure": "grey"}
    read = [field for field in techniques()[name].cls.files if field not in ("adapter", "content")]
    return dict.fromkeys(read[:1], clip())


def part(name: str) -> Technique:
    return techniques()[name].cls(**options(name))


def parts(name: str) -> list[Technique]:
    """A technique, and what must stand beside it."""
    return [part(name), *BESIDE.get(name, list)()]

"""VSTAR: texts that change from frame to frame, and frames that look at their neighbours, make one clip change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kinema.claims.bench.claim import Arm, Case, Claim, Comparison
from kinema.claims.long_clips import READERS
from kinema.timeline import Event, Timeline
from kinema.world.prompts import read_prompts
from kinema.world.words import GROUND_PHRASES

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.metrics.viewing import Viewing


def dusk(count: int, backbone: Backbone) -> list[Case]:
    """Held-out combinations that bounce while day turns to sunset and night."""
    found = []
    for prompt in read_prompts("adherence", count):
        one = prompt.spec.objects[0]
        text = f"the {one.colour} {one.kind} bounces {GROUND_PHRASES[prompt.spec.ground][0]}"
        told = tuple(Event(text=f"{text} {sky}") for sky in ("by day", "at sunset", "at night"))
        found.append(Case(text=str(Timeline(told))))
    return found


def darkening(clip: Viewing, case: Case) -> float:
    """Spearman's correlation of darkness with time: 1 when every frame is darker than the one ahead of it."""
    level = clip.frames.mean((1, 2, 3))
    return -float(np.corrcoef(np.argsort(np.argsort(level)), np.arange(len(level)))[0, 1])


def darker(clip: Viewing, case: Case) -> float:
    """How much darker the last second is than the first, grey levels."""
    level, second = clip.frames.mean((1, 2, 3)), round(clip.fps)
    return float(level[:second].mean() - level[-second:].mean())


CLAIM = Claim(
    name="vstar",
    says="one clip goes from day to night, and moves",
    paper="longer and more dynamic than open models in one pass, to people; no figure for change",
    arms=(
        Arm(name="one text"),
        Arm(name="texts alone", techniques=("vstar:scale=0.0",)),
        Arm(name="vstar", techniques=("vstar",)),
    ),
    baseline="one text",
    method="vstar",
    main=Comparison(measure="darkening", arm="vstar", against="one text", better="higher"),
    guards=(
        Comparison(measure="darker", arm="vstar", against="one text", better="higher", slack=-10.0),
        Comparison(measure="path", arm="vstar", against="one text", better="higher", share=0.1),
        Comparison(measure="jumps", arm="vstar", against="one text", better="lower", slack=0.5),
    ),
    parts=(
        Comparison(measure="darker", arm="vstar", against="texts alone", better="higher", share=0.1),
        Comparison(measure="path", arm="vstar", against="texts alone", better="higher", share=0.1),
    ),
    request={"num_frames": 49},
    cases=dusk,
    measures={"darkening": darkening, "darker": darker, **READERS},
    steps=16,
    quick_steps=4,
    notes={
        "mini": "Texts that change bring the change, and looking at neighbours makes it larger; but less moves than "
        "with the texts alone. A latent frame is four frames of a clip of thirteen, and a neighbour already half a "
        "second away, which may be why.",
    },
)

"""What claims on long videos and on events in turn share: scenes to ask for, and what is read in the clips."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from kinema.claims.bench.claim import COSTS, Case, Own
from kinema.metrics import long_clips, subject
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.timeline import Event, Timeline
from kinema.world.prompts import read_prompts
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone
    from kinema.metrics.viewing import Viewing
    from kinema.world.spec import SceneSpec

Measure = Callable[["Viewing", Case], float | None]
SAYINGS = {  # of events that can follow each other
    "bounce": "bounces",
    "jump": "jumps",
    "grow": "grows",
    "shrink": "shrinks",
    "left": "rolls to the left",
    "right": "rolls to the right",
}


def reader(read: Callable[[Viewing, Extractor], float | None]) -> Measure:
    """A reader as a measure of a claim, with kinema's own networks."""

    @functools.wraps(read)
    def measure(clip: Viewing, case: Case) -> float | None:
        return read(clip, load_extractor("world"))

    return measure


READERS = {
    "hue_drift": reader(subject.hue_drift),
    "area_drift": reader(subject.area_drift),
    "backdrop_drift": reader(subject.backdrop_drift),
    "path": reader(subject.path),
    "jumps": reader(subject.jumps),
    "facts": reader(long_clips.facts),
    "share_in_time": reader(long_clips.share_in_time),
    "all_in_time": reader(long_clips.all_in_time),
}


def scene(spec: SceneSpec, event: str) -> str:
    """One thing of a scene and what it does, in words."""
    thing = f"the {spec.objects[0].colour} {spec.objects[0].kind}"
    return f"{thing} {SAYINGS[event]} {GROUND_PHRASES[spec.ground][0]} {SKY_PHRASES[spec.sky][0]}"


def endless(count: int, backbone: Backbone) -> list[Case]:
    """Held-out combinations that bounce from the first frame to the last."""
    return [Case(text=scene(prompt.spec, "bounce")) for prompt in read_prompts("adherence", count)]


def in_turn(events: int) -> Callable[[int, Backbone], list[Case]]:
    """Cases of held-out combinations to which so many different things happen, one behind the other.

    Each event's text says the whole scene; they share the clip evenly, from its first frame to its last.
    """

    def cases(count: int, backbone: Backbone) -> list[Case]:
        found = []
        for number, prompt in enumerate(read_prompts("adherence", count)):
            chosen = random.Random(number).sample(list(SAYINGS), events)
            told = tuple(Event(text=scene(prompt.spec, name)) for name in chosen)
            found.append(Case(text=str(Timeline(told))))
        return found

    return cases


def bar(**values: float) -> Own:
    """An arm that makes nothing and has these values: what another arm has to reach."""
    return lambda backbone, case, seed, steps: {**dict.fromkeys(COSTS), **values}

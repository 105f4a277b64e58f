"""What claims about edits share: rendered clips to edit, and new words for them."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from kinema.claims.bench.claim import Case
from kinema.claims.bench.scenes import FIRST_SEED, drawn
from kinema.video import clip_address
from kinema.world.caption import noun_phrase, verb
from kinema.world.sample import is_held_out, sample_spec
from kinema.world.spec import SceneSpec
from kinema.world.vocabulary import COLOURS, GROUNDS
from kinema.world.words import GROUND_PHRASES, SKY_PHRASES

if TYPE_CHECKING:
    from kinema.backbones.protocol import Backbone

HARD = {("white", "snow"), ("green", "grass"), ("blue", "water")}  # which are hard to see


@functools.lru_cache(maxsize=4)
def sources(count: int) -> tuple[SceneSpec, ...]:
    """Scenes of one thing to which one thing happens, before a camera that stands still; none was trained on."""
    seen = (sample_spec(seed, "first", "held_out") for seed in itertools.count(FIRST_SEED + 10_000))
    fit = (s for s in seen if len(s.events) == 1 and s.camera.move == "still" and s.ground != "water")
    return tuple(itertools.islice(fit, count))


def edited(count: int, backbone: Backbone) -> Sequence[Case]:
    """A scene is to become the same thing in another colour on another ground; it goes on doing what it does."""
    cases = []
    for number, spec in enumerate(sources(count)):
        rng, thing = random.Random(number), spec.objects[0]
        pairs = [
            (colour, ground)
            for colour in COLOURS
            for ground in GROUNDS
            if colour != thing.colour and ground not in (spec.ground, "water") and (colour, ground) not in HARD
            if not is_held_out(thing.kind, colour, ground)
        ]
        colour, ground = rng.choice(pairs)
        wanted = replace(spec, objects=(replace(thing, colour=colour, size="medium"),), ground=ground)
        what = f"{noun_phrase(wanted.objects[0], None, 'a')} {verb(wanted, wanted.events[0], None)}"
        text = f"{what} {GROUND_PHRASES[ground][0]} {SKY_PHRASES[spec.sky][0]}"
        clip = drawn(spec)[0]
        given = {"gen1": {"source": clip_address(clip)}}
        cases.append(Case(text=text, spec=wanted, reference=clip, options=given))
    return cases

"""What VBench's dimensions ask for: things, colours, places, actions and styles that a prompt names.

VBench's own prompt file says it beside the prompt (`auxiliary_info`); `Viewing.auxiliary` holds that. Without it the
prompt is read: first in the forms of VBench's prompts ("a bird and a cat", "a red bicycle", "a car on the left of a
bus, front view", "A person is clapping", "alley"), then as a caption of kinema's world. What a prompt does not name so
is not asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kinema.metrics.judge import event_word
from kinema.metrics.viewing import Viewing
from kinema.world.reading import ReadCaption, parse_caption

COLOURS = ("white", "red", "pink", "blue", "silver", "purple", "orange", "green", "gray", "yellow", "black", "grey")
SIDES = ("left", "right", "top", "bottom")
STYLE = re.compile(
    r"style|painting|black and white|pixel art|watercolou?r|sketch|cartoon|anime|drawing|engraving", re.I
)
PLACE_WORDS = 3  # a prompt of at most so many words is the name of a place ("train station platform")
PLACED = re.compile(
    r"^(?P<a>.+?)(?: is)? (?:on|to) the (?P<side>left|right|top|bottom) of (?P<b>.+?)(?:[,.].*)?$", re.I
)


@dataclass(frozen=True)
class Relation:
    """Thing `a` is on this side of thing `b`: left, right, top or bottom."""

    a: str
    side: str
    b: str


def asked_things(clip: Viewing) -> tuple[str, ...]:
    """The kinds of things asked for, for example ("bird", "cat"), without their colours."""
    for dimension in ("multiple_objects", "object_class"):
        if told := _told(clip, dimension).get("object"):
            return tuple(part.strip() for part in str(told).split(" and "))
    if relation := asked_relation(clip):
        return tuple(_without_colour(thing) for thing in (relation.a, relation.b))
    if found := re.fullmatch(r"an? (.+) and an? (.+)", _plain(clip)):
        return tuple(_without_colour(thing) for thing in found.groups())
    world = _world(clip)
    if (found := re.fullmatch(r"an? (\w+(?: \w+){0,2})", _plain(clip))) and not world.events:
        return (_without_colour(found[1]),)
    return tuple(thing.kind for thing in world.objects if thing.kind)


def asked_colour(clip: Viewing) -> tuple[str, str] | None:
    """The colour asked for and the thing that is to have it; of several the first."""
    told = _told(clip, "color").get("color")
    found = re.fullmatch(rf"an? ({'|'.join(COLOURS)}) (.+)", _plain(clip))
    if told and found:
        return str(told), found[2]
    world = _world(clip)
    if found and not world.events:
        return found[1], found[2]
    return (world.colour, world.kind) if world.kind and world.colour else None


def asked_relation(clip: Viewing) -> Relation | None:
    """Which of two things is to be on which side of the other; colours stay with the things."""
    told = _told(clip, "spatial_relationship")
    if told:
        side = next((side for side in SIDES if side in str(told.get("relationship"))), None)
        return Relation(str(told["object_a"]), side, str(told["object_b"])) if side else None
    found = PLACED.match(_plain(clip))
    if not found:
        return None
    before, after = (parse_caption(found[name]).objects for name in ("a", "b"))
    if before and after:  # in a caption of the world other words stand around them
        a, b = (" ".join(filter(None, (thing.colour, thing.kind))) for thing in (before[-1], after[0]))
        return Relation(a, found["side"], b)
    return Relation(_bare(found["a"]), found["side"], _bare(found["b"]))


def asked_place(clip: Viewing) -> str | None:
    """Words that all have to be said of the place: "train railway", or of the world "grass night"."""
    if told := _told(clip, "scene").get("scene"):
        return str(told)
    plain = _plain(clip)
    if plain and len(plain.split()) <= PLACE_WORDS and not re.match(r"(an?|the) ", plain):
        return plain
    world = _world(clip)
    return " ".join(filter(None, (world.ground, world.sky))) or None


def asked_action(clip: Viewing) -> str | None:
    """What a person is to do, or in the world the first thing that is to happen, as the judge names it."""
    if found := re.search(r"\bperson is (.+)$", _plain(clip)):
        return found[1]
    events = _world(clip).events
    return event_word(events[0]) if events else None


def asked_style(clip: Viewing) -> str | None:
    """The last part of the prompt, after a comma, where it names a style."""
    if told := _told(clip, "appearance_style").get("appearance_style"):
        return str(told)
    _, comma, last = (clip.prompt or "").rpartition(",")
    return last.strip() if comma and STYLE.search(last) else None


def _told(clip: Viewing, dimension: str) -> Mapping[str, Any]:
    """What the prompt file says for a dimension; VBench's wraps some of it twice."""
    told = (clip.auxiliary or {}).get(dimension)
    while isinstance(told, Mapping) and isinstance(told.get(dimension), Mapping):
        told = told[dimension]
    return told if isinstance(told, Mapping) else {}


def _plain(clip: Viewing) -> str:
    return (clip.prompt or "").strip().rstrip(".").lower()


def _world(clip: Viewing) -> ReadCaption:
    return clip.once(("words", clip.prompt), lambda: parse_caption(clip.prompt or ""))


def _bare(thing: str) -> str:
    return re.sub(r"^(?:an?|the) ", "", thing.strip())


def _without_colour(thing: str) -> str:
    return re.sub(rf"^(?:{'|'.join(COLOURS)}) ", "", _bare(thing))

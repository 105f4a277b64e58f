"""Captions of scenes: a small grammar with synonyms, word orders and tenses, short or dense.

`caption` writes, `parse_caption` (in `kinema.world.reading`) reads; both share the tables of
`kinema.world.words`, and reading gives back what was written.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Literal, TypeVar

from kinema.core.camera import in_turn
from kinema.world.reading import ReadCaption, parse_caption
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec, SceneSpec
from kinema.world.textures import DRAWINGS
from kinema.world.words import (
    ACTION_PHRASES,
    CAMERA_PHRASES,
    DIRECTION_PHRASES,
    GROUND_PHRASES,
    MATERIAL_WORDS,
    NOUNS,
    SIZE_WORDS,
    SKY_PHRASES,
    STILL_PHRASES,
)

__all__ = ["ReadCaption", "caption", "parse_caption", "timed_caption", "timeline"]

T = TypeVar("T")
Style = Literal["short", "dense"]
Form = Literal["simple", "progressive", "gerund"]

# How often the short style names what it may leave out.
NAME_SIZE, NAME_MATERIAL, NAME_DAY, NAME_SKY, NAME_MOVE, NAME_STILL = 0.5, 0.7, 0.6, 0.93, 0.95, 0.2
NAME_LEGS = 0.7  # in both styles


def caption(spec: SceneSpec, seed: int, style: Style = "short") -> str:
    """Describe a scene in English; the same scene, seed and style give the same words.

    "short" is one sentence (sometimes two) that always names kind, colour, ground and the events in order, and
    mostly the sky and the camera. "dense" is a paragraph that names everything. Of a camera with legs both mostly say
    which way it moves, and never how far.

    Raises:
        ValueError: when the style is unknown.
    """
    if style not in ("short", "dense"):
        raise ValueError(f"style is {style!r}; use short or dense")
    rng = random.Random(seed * 2 + (style == "dense"))
    text = short(spec, rng) if style == "short" else dense(spec, rng)
    return finish(text, rng)


def timeline(spec: SceneSpec) -> list[dict[str, float | str]]:
    """The events of a clip as plain dicts: start and end in seconds, and a text for each."""
    return [
        {
            "start": event.start,
            "end": event.end,
            "text": f"{noun_phrase(spec.objects[event.subject], None, 'the')} {verb(spec, event, None)}",
        }
        for event in spec.events
    ]


def timed_caption(spec: SceneSpec) -> str:
    """A scene as a prompt that says when its events happen, in plain words: "0.1-1.4s: ... | 1.5-2.9s: ..."."""
    place = f"{GROUND_PHRASES[spec.ground][0]} {SKY_PHRASES[spec.sky][0]}"
    parts = [f"{e['start']:g}-{e['end']:g}s: {e['text']}" for e in timeline(spec)]
    if not parts:
        return f"{noun_phrase(spec.objects[0], None, 'a')} {place}"
    parts[0] += f" {place}"
    if spec.camera.legs:
        return " | ".join(parts)
    third, _, where = ("stays", "", "still") if spec.camera.move == "still" else CAMERA_PHRASES[spec.camera.move][0]
    parts[-1] += f", the camera {third} {where}".rstrip()
    return " | ".join(parts)


def short(spec: SceneSpec, rng: random.Random) -> str:
    form: Form = "gerund" if rng.random() < 0.12 else "progressive" if rng.random() < 0.15 else "simple"
    ground = choose(rng, GROUND_PHRASES[spec.ground], 0.5)
    sky = ""
    if rng.random() < (NAME_DAY if spec.sky == "day" else NAME_SKY):
        sky = choose(rng, SKY_PHRASES[spec.sky], 0.5)
    seen: set[int] = set()
    order = rng.random()
    if order < 0.3:  # the place first
        place = f"{ground} {sky}".strip() if rng.random() < 0.7 else f"{sky} {ground}".strip()
        text = f"{place}, {clauses(spec, rng, form, seen)}"
    elif order < 0.65 and len(spec.events) > 1:  # the place after the first event
        text = clauses(spec, rng, form, seen, after_first=ground)
        text += f" {sky}" if sky else ""
    else:
        text = f"{clauses(spec, rng, form, seen)} {ground}"
        text += f" {sky}" if sky else ""
    rest = unseen(spec, rng, seen)
    if rest:
        text += f", {rest}"
    return with_camera(spec, rng, text)


def dense(spec: SceneSpec, rng: random.Random) -> str:
    """A paragraph: what stands where, what happens, how the camera moves."""
    things = [noun_phrase(thing, rng, "a", full=True) for thing in spec.objects]
    ground, sky = choose(rng, GROUND_PHRASES[spec.ground], 0.4), choose(rng, SKY_PHRASES[spec.sky], 0.4)
    listed = listing(things)
    verb_be = "is" if len(things) == 1 else "are"
    first = rng.choice(
        (
            f"there {verb_be} {listed} {ground} {sky}",
            f"{ground} {sky} there {verb_be} {listed}",
            f"a scene {sky}: {listed} {ground}",
        )
    )
    sentences = [first]
    relation = relation_phrase(spec, rng)
    if relation:
        sentences.append(relation)
    previous: int | None = None
    for i, event in enumerate(spec.events):
        alone = len(spec.objects) == 1
        who = "it" if alone or event.subject == previous else noun_phrase(spec.objects[event.subject], rng, "the")
        lead = "" if len(spec.events) == 1 else ("first " if i == 0 else rng.choice(("then ", "after that ", "next ")))
        sentences.append(f"{lead}{who} {verb(spec, event, rng)}")
        previous = event.subject
    if spec.camera.move == "still" and not spec.camera.legs:
        sentences.append(rng.choice(STILL_PHRASES))
    elif (not spec.camera.legs or rng.random() < NAME_LEGS) and (said := camera_does(spec.camera, rng, 0.5)):
        sentences.append(f"the camera {rng.choice(('', 'slowly '))}{said[0]}")
    return ". ".join(sentences)


def clauses(spec: SceneSpec, rng: random.Random, form: Form, seen: set[int], after_first: str = "") -> str:
    """The events in order; `seen` collects the objects that were named."""
    if not spec.events:
        seen.add(0)
        thing = noun_phrase(spec.objects[0], rng, "a")
        return thing if rng.random() < 0.7 else f"there is {thing}"
    parts: list[str] = []
    previous: int | None = None
    for i, event in enumerate(spec.events):
        who = ""
        if event.subject != previous:
            article = "the" if event.subject in seen else rng.choice(("a", "a", "the"))
            who = noun_phrase(spec.objects[event.subject], rng, article) + " "
        elif i and form == "simple" and rng.random() < 0.25:
            who = "it "
        seen.add(event.subject)
        part = who + verb(spec, event, rng, form, bare=bool(i) and not who, seen=seen)
        if i == 0 and after_first:
            part += f" {after_first}"
        parts.append(part)
        previous = event.subject
    text = parts[0]
    for part in parts[1:]:
        text += rng.choice((", then ", " and then ", ", then ", " then ", " and afterwards ")) + part
    return text


def unseen(spec: SceneSpec, rng: random.Random, seen: set[int]) -> str:
    """Objects to which nothing happens, and where they stand."""
    missing = [i for i in range(len(spec.objects)) if i not in seen]
    parts = []
    for i in missing:
        where = relation(spec, i, 0)
        anchor = noun_phrase(spec.objects[0], rng, "the")
        parts.append(f"{noun_phrase(spec.objects[i], rng, 'a')} {where} {anchor}")
    return "with " + listing(parts) if parts else ""


def relation(spec: SceneSpec, a: int, b: int) -> str:
    """Where object a starts, seen from object b by the first camera."""
    (ax, ay), (bx, by) = spec.objects[a].position, spec.objects[b].position
    c, s = math.cos(spec.camera.azimuth), math.sin(spec.camera.azimuth)
    right, depth = (ax - bx) * c + (ay - by) * s, (ay - by) * c - (ax - bx) * s
    if abs(right) >= abs(depth):
        return "to the right of" if right > 0 else "to the left of"
    return "behind" if depth > 0 else "in front of"


def relation_phrase(spec: SceneSpec, rng: random.Random) -> str:
    """Where every other object stands, seen from the first; empty for one object."""
    if len(spec.objects) < 2:
        return ""
    parts = []
    for i in range(1, len(spec.objects)):
        thing, anchor = noun_phrase(spec.objects[i], rng, "the"), noun_phrase(spec.objects[0], rng, "the")
        parts.append(f"{thing} is {relation(spec, i, 0)} {anchor}")
    return listing(parts)


def with_camera(spec: SceneSpec, rng: random.Random, text: str) -> str:
    """Adds the camera before or after the sentence, or leaves it out."""
    camera = spec.camera
    if camera.move == "still" and not camera.legs:
        if rng.random() >= NAME_STILL:
            return text
        phrase = rng.choice(STILL_PHRASES)
        return f"{text}, {phrase}" if rng.random() < 0.5 else f"{text}. {phrase}"
    if rng.random() >= (NAME_LEGS if camera.legs else NAME_MOVE) or (said := camera_does(camera, rng, 0.6)) is None:
        return text
    does, doing = said
    order = rng.random()
    if order < 0.35:
        return f"{text} while the camera {does}"
    if order < 0.55:
        return f"{text}, the camera {does}"
    if order < 0.75:
        return f"{text}. the camera {does}"
    if order < 0.87:
        return f"{text}, camera {doing}"
    return f"the camera {does}. {text}"


def camera_does(camera: CameraSpec, rng: random.Random, plain: float) -> tuple[str, str] | None:
    """What a camera that moves "does", and what it is "doing"; None where there is no word for a move of it.

    plain: how often it is said in the plainest words, 0..1.
    """
    moves = [(joint, leg.way.replace("rise up", "rise")) for joint, leg in in_turn(camera.legs)]
    moves = moves or [("", camera.move)]
    if any(move not in CAMERA_PHRASES for _, move in moves):  # down from where it stands
        return None
    said = [(joint, choose(rng, CAMERA_PHRASES[move], plain)) for joint, move in moves]
    does, doing = ("".join(f"{joint}{words[i]} {words[2]}".rstrip() for joint, words in said) for i in (0, 1))
    return does, doing


def noun_phrase(thing: ObjectSpec, rng: random.Random | None, article: str, full: bool = False) -> str:
    """For example "a small red striped ball"; without a generator the plainest words."""
    noun = NOUNS[thing.kind][0] if rng is None else choose(rng, NOUNS[thing.kind], 0.8)
    words = []
    if rng is not None and (full or rng.random() < NAME_SIZE) and (full or thing.size != "medium"):
        words.append(choose(rng, SIZE_WORDS[thing.size], 0.6))
    if thing.kind != "picture" or thing.text in DRAWINGS:  # other pictures have colours of their own
        words.append(thing.colour)
    if rng is not None and thing.material != "matte" and (full or rng.random() < NAME_MATERIAL):
        words.append(choose(rng, MATERIAL_WORDS[thing.material], 0.7))
    words.append(noun)
    if thing.kind == "letter":
        words.append(thing.text)
    if thing.kind == "picture":
        words.append(f"of a {thing.text}" if thing.text in DRAWINGS else "")
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([article, *words]).strip()


def verb(
    spec: SceneSpec,
    event: EventSpec,
    rng: random.Random | None,
    form: Form = "simple",
    bare: bool = False,
    seen: set[int] | None = None,
) -> str:
    """The predicate of an event, for example "is rolling to the left"; `bare` leaves out the "is"."""
    phrases = ACTION_PHRASES[event.action]
    third, ing = phrases[0] if rng is None else choose(rng, phrases, 0.65)
    text = third if form == "simple" else ing if form == "gerund" or bare else f"is {ing}"
    if event.direction:
        ways = DIRECTION_PHRASES[event.direction]
        text += " " + (ways[0] if rng is None else rng.choice(ways))
    if event.action == "change colour":
        text += f" {event.colour}"
    if event.target is not None:
        article = "the" if rng is None or (seen is not None and event.target in seen) or seen is None else "a"
        if seen is not None:
            seen.add(event.target)
        text += " " + noun_phrase(spec.objects[event.target], rng, article)
    return text


def finish(text: str, rng: random.Random) -> str:
    """Capitals and a full stop, as people write, or plain as people type."""
    if rng.random() < 0.4 and ". " not in text:
        return text
    sentences = [s[0].upper() + s[1:] for s in text.split(". ")]
    return ". ".join(sentences) + "."


def listing(parts: Sequence[str]) -> str:
    """a, b and c"""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def choose(rng: random.Random, items: Sequence[T], first: float) -> T:
    """The first item with probability `first`, else one of the others."""
    if len(items) == 1 or rng.random() < first:
        return items[0]
    return items[1 + int(rng.random() * (len(items) - 1))]

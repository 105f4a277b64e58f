"""Faults of what was asked for: other words and other times. The frames stay as they are.

A prompt is read with `kinema.world.reading`, changed and said again; one in which nothing is understood stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kinema.metrics.asked import Span, asked
from kinema.metrics.corruptions.corruption import corruption
from kinema.metrics.viewing import Viewing
from kinema.timeline import Event, Timeline
from kinema.world.reading import ReadCaption, ReadObject
from kinema.world.vocabulary import CAMERAS, COLOURS, GROUNDS, SKIES
from kinema.world.words import (
    ACTION_PHRASES,
    CAMERA_PHRASES,
    DIRECTION_PHRASES,
    GROUND_PHRASES,
    NOUNS,
    SKY_PHRASES,
    STILL_PHRASES,
)

# In these orders the next word is the wrong one; what the words mean is never alike.
KINDS = ("ball", "cube", "cone", "ring", "cylinder")
EVENTS = ("bounce", "grow", "jump", "shrink", "fall")
OF_FRAMES = ("mask", "objects", "flow", "reading", "still paths", "event_times")  # no prompt changes what these are
WAYS = {"left": "right", "right": "left", "towards": "away", "away": "towards"}


@corruption("wrong_words")
def wrong_words(clip: Viewing, grade: float) -> Viewing:
    """That share of what the prompt asks for is something else: kind, colour, ground, sky, events, camera."""
    words = asked(clip).words
    claims = claims_of(words)
    random.Random(0).shuffle(claims)
    for claim in claims[: round(grade * len(claims))]:
        words = claim(words)
    return _with(clip, words) if claims else clip


@corruption("synonyms")
def synonyms(clip: Viewing, grade: float) -> Viewing:
    """The prompt asks for the same in other words; the grade changes nothing."""
    return _with(clip, asked(clip).words, word=-1)


@corruption("wrong_times")
def wrong_times(clip: Viewing, grade: float) -> Viewing:
    """The prompt asks for its events later than before, at grade 1 by half of the clip's length."""
    later = grade * clip.seconds / 2
    moved = [
        replace(span, start=round(span.start + later, 3), end=round(span.end + later, 3)) for span in asked(clip).spans
    ]
    return _with(clip, asked(clip).words, spans=moved) if moved else clip


@corruption("wrong_order")
def wrong_order(clip: Viewing, grade: float) -> Viewing:
    """The prompt asks for the same events in another order: turned round from the end on, at grade 1 all of them."""
    events = asked(clip).words.events
    kept = len(events) - round(grade * len(events))
    order = (*events[:kept], *reversed(events[kept:]))
    return _with(clip, replace(asked(clip).words, events=order)) if order != events else clip


Change = Callable[[ReadCaption], ReadCaption]


def claims_of(words: ReadCaption) -> list[Change]:
    """For each thing that a prompt asks for, what asks for another one in its place."""
    found: list[Change] = []
    for i, thing in enumerate(words.objects):
        if thing.kind in KINDS:
            found.append(_Other("kind", i, _after(thing.kind, KINDS)))
        if thing.colour is not None:
            found.append(_Other("colour", i, _after(thing.colour, tuple(COLOURS), 4)))
    for name, known in (("ground", GROUNDS), ("sky", SKIES), ("camera", CAMERAS)):
        if (word := getattr(words, name)) is not None:
            found.append(_Other(name, -1, _after(word, known)))
    taken = set(words.events)
    for i, label in enumerate(words.events):
        action, _, way = label.partition(" ")
        turned = [f"{action} {w}" for w in (WAYS.get(way, ""), *WAYS)] if way in WAYS else []
        other = next((word for word in (*turned, *EVENTS) if word not in taken), label)
        taken.add(other)
        found.append(_Other("events", i, other))
    return found


@dataclass(frozen=True)
class _Other:
    """Asks for `word` in place of what a prompt says; `place` counts objects or events."""

    name: str
    place: int
    word: str

    def __call__(self, words: ReadCaption) -> ReadCaption:
        if self.name in ("kind", "colour"):
            things = list(words.objects)
            things[self.place] = replace(things[self.place], **{self.name: self.word})
            return replace(words, objects=tuple(things))
        if self.name == "events":
            events = list(words.events)
            events[self.place] = self.word
            return replace(words, events=tuple(events))
        changed: Any = {self.name: self.word}
        return replace(words, **changed)


def _after(word: str, known: Sequence[str], step: int = 1) -> str:
    return known[(known.index(word) + step) % len(known)]


def _with(clip: Viewing, words: ReadCaption, spans: Sequence[Span] | None = None, word: int = 0) -> Viewing:
    """The clip with a prompt that asks for these words, and for the times that the prompt named before."""
    spans = asked(clip).spans if spans is None else spans
    if not words.objects:
        return clip
    other = clip.but(prompt=say(words, spans, word))
    other.known = {key: value for key, value in clip.known.items() if isinstance(key, tuple) and key[0] in OF_FRAMES}
    return other


def say(words: ReadCaption, spans: Sequence[Span] = (), word: int = 0) -> str:
    """A prompt that asks for these words, each event at the time of its span where there are spans.

    `word` chooses among synonyms: 0 the usual one, -1 the last.
    """
    things = [_named(thing, word) for thing in words.objects]
    place = [table[name][word] for table, name in ((GROUND_PHRASES, words.ground), (SKY_PHRASES, words.sky)) if name]
    verbs = [_verb(label, word) for label in words.events] or [""]
    first = " ".join([things[0], verbs[0], *place, *(f"with {other}" for other in things[1:])])
    parts = [" ".join(first.split()), *(f"it {verb}" for verb in verbs[1:])]
    if words.camera == "still":
        parts[-1] += f", {STILL_PHRASES[word]}"
    elif words.camera:
        third, _, where = CAMERA_PHRASES[words.camera][word]
        parts[-1] += f", the camera {third} {where}".rstrip()
    if not spans:
        return ", then ".join(parts)
    events: list[Event] = []
    for text, span in zip(parts, spans, strict=True):
        at_once = any(event.span[1] > span.start for event in events)
        events.append(Event(text=text, start=span.start, end=span.end, meanwhile=at_once))
    return str(Timeline(tuple(events)))


def _named(thing: ReadObject, word: int) -> str:
    said = [w for w in (thing.size, thing.colour, thing.kind and NOUNS[thing.kind][word]) if w]
    return " ".join(["an" if said and said[0][0] in "aeiou" else "a", *said])


def _verb(label: str, word: int) -> str:
    if label == "change colour":
        return "changes its colour"
    action, _, way = label.partition(" ")
    return f"{ACTION_PHRASES[action][word][0]} {DIRECTION_PHRASES[way][word] if way else ''}".rstrip()

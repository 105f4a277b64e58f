"""Changes that a prompt asks for, taken apart into questions as TC-Bench does, on its clock of 16 frames.

Source: "TC-Bench", 2024, arXiv:2406.08656. Each change gets four questions about its course (the start, the end beside
the start, the middle beside the start, five moments in a row) and three about the object that changes; ground and sky
get two each. The paper has a language model write them, for changes of attributes, relations and backgrounds; here they
are the changes of state that kinema knows, and each has the clock of its own part of the clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from kinema.metrics.asked import Asked
from kinema.metrics.questions import About, Claim, Question, name_of, sky_text, verb_of
from kinema.world.reading import ReadObject

# Event words after which things are other than before, and how they then are.
ENDS = {
    "move left": "further to the left",
    "move right": "further to the right",
    "move towards": "nearer to the camera",
    "move away": "further away from the camera",
    "walk left": "further to the left",
    "walk right": "further to the right",
    "walk towards": "nearer to the camera",
    "walk away": "further away from the camera",
    "grow": "bigger",
    "shrink": "smaller",
    "fall": "lower",
    "change colour": "of another colour",
    "appear": "there",
    "disappear": "gone",
}
COURSE = (1, 5, 9, 13, 16)
SAME = ((1, 6), (1, 11), (1, 16))
OTHERS = (1, 6, 11, 16)


def transitions(asked: Asked, length: float) -> list[Question]:
    """Questions on the changes that a prompt asks for in a clip of `length` seconds; none when it asks for none.

    Events without times share the clip evenly.
    """
    words = asked.words
    changes = [span for span in asked.shares(length) if span.word in ENDS and span.start < length]
    if not changes or length <= 0:
        return []
    things = words.objects or (ReadObject(kind=words.kind, colour=words.colour),)
    who = name_of(things[0]) if len(things) == 1 else "object"
    found: list[Question] = []
    for span in changes:
        part = (span.start / length, min(span.end / length, 1.0))
        found += [replace(q, span=part) for q in _change(span.word, who, len(things))]
    return found + list(_others(asked))


def _change(word: str, who: str, crowd: int) -> Iterator[Question]:
    def ask(text: str, about: About, frames: tuple[int, ...]) -> Question:
        return Question(text=text, claim=Claim(about=about, value=word, crowd=crowd), frames=frames)

    doing = verb_of(word)
    if word == "appear":
        yield ask(f"Is there no {who} in this picture?", "start", (1,))
    else:
        yield ask(f"Is there a {who} in this picture?", "start", (1,))
    yield ask(f"Is the {who} {ENDS[word]} in the second picture, compared with the first?", "end", (1, 16))
    yield ask(f"Has the {who} begun {doing} by the second picture, compared with the first?", "middle", (1, 9))
    yield ask(f"Is the {who} steadily {doing} through these pictures, without a jump?", "course", COURSE)
    for frames in SAME:
        yield ask(f"Is the {who} the same object in all of these pictures?", "same", frames)


def _others(asked: Asked) -> Iterator[Question]:
    for name in ("ground", "sky"):
        value = getattr(asked.words, name)
        if value is None:
            continue
        text = f"Is the ground {value} in this picture?" if name == "ground" else sky_text(value, "picture")
        there = Claim(about="there", value=value, attribute=name)
        yield Question(text=text, claim=there, frames=(1,), presence=True)
        text = f"Does the {name} stay the same through these pictures?"
        yield Question(text=text, claim=replace(there, about="stays"), frames=OTHERS, presence=True)

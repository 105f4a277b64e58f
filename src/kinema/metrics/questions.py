"""Questions about a clip that yes or no answers: what T2VScore, TC-Bench and VideoPhy ask a model that sees.

A question has a text, for a model that reads, and a claim, for kinema's own judge. `questions` makes them of a prompt:
one for each thing that it asks for. The papers have a language model write them; here they come from the words that
`kinema.world.reading` understands, so a prompt in other words gives fewer questions or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from kinema.metrics.agreement import asked_words
from kinema.metrics.asked import Asked
from kinema.world.reading import ReadObject
from kinema.world.words import ACTION_PHRASES, CAMERA_PHRASES, DIRECTION_PHRASES, NOUNS

NOMINAL = 16  # frames on the clock of TC-Bench; frames of questions are counted on it, from 1
SHOWN = 8  # frames that a model is shown at most
PHYSICS = "Does this video follow the physical laws of the real world?"

About = Literal["kind", "colour", "ground", "sky", "event", "camera", "start", "end", "middle", "course", "same",
                "there", "stays", "physics", "entails"]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a question asks, in words of `kinema.world`; in the judge's words for events."""

    about: About
    value: str = ""  # the kind, colour, ground, sky, event or camera move that is claimed
    place: int = 0  # of several objects or of the same event several times, which; from 0
    attribute: str = ""  # of what does not change ("there", "stays"): "ground" or "sky"
    crowd: int = 1  # objects that the prompt names


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question about a clip to which yes is the right answer.

    `frames` on the clock of 16 of TC-Bench that are shown, all where empty; `span` the part of the clip that this clock
    covers, from 0 to 1.
    """

    text: str
    claim: Claim
    frames: tuple[int, ...] = ()
    span: tuple[float, float] = (0.0, 1.0)
    choices: tuple[str, ...] = ("yes", "no")
    answer: str = "yes"
    presence: bool = False  # TC-Bench: only asks whether other things are there and stay

    def shown(self, count: int) -> list[int]:
        """Indices of the frames of a clip of `count` frames that the question is about, in order."""
        first, last = (round(min(max(part, 0.0), 1.0) * (count - 1)) for part in self.span)
        if not self.frames:
            return list(range(first, last + 1))
        return [first + i for i in clock(self.frames, last - first + 1)]


def clock(nominal: Sequence[int], count: int) -> list[int]:
    """Nominal frames 1..16 in a clip of `count` frames: round((i - 1) / 15 * (count - 1)), each once, in order."""
    return sorted({round((i - 1) / (NOMINAL - 1) * (count - 1)) for i in nominal})


def questions(asked: Asked) -> list[Question]:
    """One question for each thing that the prompt asks for; those on motion and the camera name the direction."""
    return [Question(text=text, claim=claim) for text, claim in _claims(asked)]


def name_of(thing: ReadObject | None) -> str:
    """How a question calls an object: "red ball", or "object" where the prompt does not name it."""
    said = [thing.colour, thing.kind and NOUNS[thing.kind][0]] if thing else []
    return " ".join([word for word in said if word] or ["object"])


def verb_of(word: str) -> str:
    """A judge's event word as a question says it, in the -ing form: "moving to the left"."""
    action, _, way = word.partition(" ")
    if word in ACTION_PHRASES:  # with a space, "change colour"
        return "changing its colour" if way else ACTION_PHRASES[word][0][1]
    verb = "moving" if action == "move" else ACTION_PHRASES[action][0][1]
    return f"{verb} {DIRECTION_PHRASES[way][0]}" if way else verb


def _claims(asked: Asked) -> Iterator[tuple[str, Claim]]:
    words = asked.words
    things = words.objects or (ReadObject(kind=words.kind, colour=words.colour),)
    for i, thing in enumerate(things):
        noun = NOUNS[thing.kind][0] if thing.kind else "object"
        if thing.kind:
            yield f"Is there a {noun} in the video?", Claim(about="kind", value=thing.kind, place=i, crowd=len(things))
        if thing.colour:
            yield (
                f"Is the {noun} {thing.colour}?",
                Claim(about="colour", value=thing.colour, place=i, crowd=len(things)),
            )
    if words.ground:
        yield f"Is the ground {words.ground}?", Claim(about="ground", value=words.ground)
    if words.sky:
        yield sky_text(words.sky, "video"), Claim(about="sky", value=words.sky)
    events = asked_words(words)["events"]
    who = name_of(things[0]) if len(things) == 1 else "object"
    for i, word in enumerate(events):
        claim = Claim(about="event", value=word, place=events[:i].count(word))
        again = " a second time" if claim.place else ""
        yield f"Is the {who} {verb_of(word)}{again} at some time in the video?", claim
    if words.camera:
        yield camera_text(words.camera), Claim(about="camera", value=words.camera)


def sky_text(sky: str, what: str) -> str:
    return f"Does the {what} show {'a sunset' if sky == 'sunset' else f'the {sky}'}?"


def camera_text(move: str) -> str:
    if move == "still":
        return "Does the camera stay still for the whole video?"
    _, ing, where = CAMERA_PHRASES[move][0]
    return f"Is the camera {ing} {where}".rstrip() + "?"


def share_of_yes(chances: np.ndarray) -> float | None:
    """Share of the answers that are a yes, a chance above 0.5; None when no answer can be told (NaN)."""
    told = chances[~np.isnan(chances)]
    return float((told > 0.5).mean()) if len(told) else None


def shown_frames(frames: np.ndarray, question: Question) -> np.ndarray:
    """The frames that a model is shown with a question: those it is about, of more than SHOWN as many spread evenly."""
    chosen = np.array(question.shown(len(frames)))
    if len(chosen) > SHOWN:
        chosen = chosen[np.linspace(0, len(chosen) - 1, SHOWN).round().astype(int)]
    found: np.ndarray = frames[chosen]
    return found


def spoken(question: Question, pictures: int) -> str:
    """The question for a model that is shown so many pictures."""
    return question.text if pictures == 1 else f"These are frames of one video in the order of time. {question.text}"

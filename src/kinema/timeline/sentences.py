"""What an event leaves out because the one ahead of it has said it: who does it, and where and when it happens.

"a red ball rolls on the grass, then it bounces, then a blue cube falls" is read as three texts that stand alone: "a red
ball rolls on the grass", "the red ball bounces on the grass", "a blue cube falls on the grass".

- An event that begins with it, he, she or they, or with its verb, takes the subject of the event ahead: the noun phrase
  that it begins with. "the ball" is the ball that an earlier event begins with, with its colour.
- An event that says no place stays at that of the event ahead, one that says no time of day or weather keeps that too.
- A move of the camera is seen with the subject and the scene of the event ahead, and "then zooms in" behind another
  move of it is one.

There is no dictionary behind this: a noun phrase ends where a verb, a preposition or a comma is seen. Where that does
not say who "it" is (two things at once, a pronoun that does not fit, a sentence that is not understood), the subject
is left as it is written, and `unclear` tells which events those are.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING

from kinema.timeline.words import (
    ADJECTIVES,
    COPULAS,
    DETERMINERS,
    EITHER,
    HELPING,
    JOINING,
    MEN,
    NO_ADVERBS,
    NO_VERBS,
    ONE,
    PEOPLE,
    PLACES,
    PLURALS,
    PREPOSITIONS,
    PRONOUNS,
    SEVERAL,
    TIMES,
    VERBS,
    WHITHER,
    WOMEN,
)

if TYPE_CHECKING:
    from kinema.timeline.events import Event


MOST, LONGEST = 3, 20  # parts of a noun phrase and of a scene; words of a part and its verb
LITTLE = "|".join(sorted(DETERMINERS | PREPOSITIONS | JOINING | HELPING))
NAMED = rf"(?:(?:the|a|an|some|his|her|its|their)\s+)?(?:(?!(?:{LITTLE})\b)[\w-]+\s+){{0,3}}"


def _nouns(text: str) -> str:
    return "|".join(sorted(text.split(), key=len, reverse=True))


TIME = re.compile(
    rf"\b(?:under\s+{NAMED}sky|(?:on|in|at|by|under|during)\s+{NAMED}(?:{_nouns(TIMES)}))\b(?!-)", re.IGNORECASE
)
PLACE = re.compile(
    rf"\b(?:(?:on|in|at|inside|into|onto)\s+{NAMED}(?:{_nouns(PLACES)})|underwater|outdoors|indoors)\b(?!-)",
    re.IGNORECASE,
)
ELSEWHERE = re.compile(  # says a place, at which one need not stay
    r"\b(?:to|from|off|over|under|through|across|along|around|past|towards?|behind|near|above|by|(?:front|top|edge)\s+of)"
    rf"\s+{NAMED}(?:{_nouns(PLACES)})\b",
    re.IGNORECASE,
)
STAYING = {"into": "in", "onto": "on"}
OPENING = re.compile(
    r"(?:(?:suddenly|slowly|quickly|finally|next|first|now|again|soon|eventually|also)\b\s*,?|there\s+(?:is|are)\b"
    r"|(?:(?:a|an|the)\s+)?(?:video|clip|shot|close-up|film|footage)\s+of\b|,)\s*",
    re.IGNORECASE,
)
CAMERA = re.compile(r"(?:(?:the|a)\s+)?(?:camera|shot|view)\b", re.IGNORECASE)
CAMERA_MOVES = re.compile(r"(?:pans|tilts|zooms|dollies|orbits|rises)\b", re.IGNORECASE)
CLAUSE = re.compile(r"\s*(?:[,;:!?]|\.(?=\s|$)|\b(?:while|as)\b)", re.IGNORECASE)
DETERMINED = re.compile(r"\s*(?:a|an|the|his|her|one|two|three)\b", re.IGNORECASE)
TOKEN = re.compile(r"[\w'’-]+|[^\w\s]")


@dataclass(frozen=True)
class Subject:
    """What an event begins with: its words as a later event names them, and where they stand in the text."""

    name: str
    plural: bool
    words: tuple[str, ...]  # without the determiner, in small letters; none for two things
    stop: int

    def fits(self, pronoun: str) -> bool:
        """Whether a pronoun can mean it."""
        if pronoun == "they" or self.plural:
            return pronoun == "they" and self.plural
        person = set(self.words) & PEOPLE
        return not person & (WOMEN if pronoun == "he" else MEN if pronoun == "she" else PEOPLE)


@lru_cache(maxsize=64)  # a request is asked for its events again and again
def completed(events: tuple[Event, ...]) -> tuple[Event, ...]:
    """The events with texts that can be read alone; what is complete stays as it is."""
    done: list[Event] = []
    subjects: list[Subject | None] = []
    for event in events:
        text = _completed(event.text, done, subjects) if done else event.text
        done.append(replace(event, text=text))
        subjects.append(subject(text))
    return tuple(done)


def unclear(events: Sequence[Event]) -> list[str]:
    """The texts that do not say who does it."""
    return [event.text for event in events if _who_is_left_out(event.text) is not None] if len(events) > 1 else []


def _completed(text: str, ahead: Sequence[Event], subjects: Sequence[Subject | None]) -> str:
    who, scene = _subject_of_all(subjects[_last_at_once(ahead) :]), _scene(ahead[-1].text)
    begins = _begins(text)
    if CAMERA_MOVES.match(text, begins) and CAMERA.match(ahead[-1].text.rpartition(",")[2].strip()):
        text = f"{text[:begins]}the camera {text[begins:]}"
    if CAMERA.match(text, begins):
        seen = " ".join(filter(None, (who.name if who else "", *scene[0], *scene[1])))
        return f"{seen}, {text}" if seen else text
    text = _with_subject(text, begins, who, subjects)
    own = _scene(text)
    places = [] if own[0] or ELSEWHERE.search(text) else scene[0]
    return _with_scene(text, [*places, *([] if own[1] else scene[1])])


def _last_at_once(ahead: Sequence[Event]) -> int:
    """The first of the events that happen at the time of the last one."""
    first = len(ahead) - 1
    while first > 0 and ahead[first].meanwhile:
        first -= 1
    return first


def _subject_of_all(subjects: Sequence[Subject | None]) -> Subject | None:
    """Who does all of it; None for several, and where nobody is named."""
    first = subjects[0]
    return first if first is not None and all(s is not None and s.name == first.name for s in subjects) else None


def _begins(text: str) -> int:
    """Where the sentence begins, behind places, times and words as "suddenly"."""
    at = 0
    while found := PLACE.match(text, at) or TIME.match(text, at) or OPENING.match(text, at):
        at = found.end() + text.startswith(" ", found.end())
    return at


def _with_subject(text: str, begins: int, who: Subject | None, subjects: Sequence[Subject | None]) -> str:
    left_out = _who_is_left_out(text)
    if left_out is None:
        return _named_before(text, begins, subjects)
    word = TOKEN.match(text, begins)
    if who is None or word is None or not (left_out == "" or who.fits(left_out)):
        return text
    if left_out == "":
        agrees = word[0].lower().endswith("ing") or (_third_person(word[0].lower()) is not who.plural)
        return f"{text[:begins]}{who.name} {text[begins:]}" if agrees else text
    short = {"s": " is", "e": " are"}[word[0][-1].lower()] if re.search(r"['’]", word[0]) else ""
    return f"{text[:begins]}{who.name}{short}{text[word.end() :]}"


def _third_person(word: str) -> bool:
    return word in ("is", "was", "has", "does") or _ends_in_s(word)


def _who_is_left_out(text: str) -> str | None:
    """The pronoun that a text begins with, or "" for a verb; None where it says who."""
    words = [found[0].lower() for found in islice(TOKEN.finditer(text, _begins(text)), 2)]
    if not words:
        return None
    if words[0] in PRONOUNS:
        return PRONOUNS[words[0]]
    return "" if _is_verb_ahead(words[0], words[1] if len(words) > 1 else "") else None


def _is_verb_ahead(word: str, following: str) -> bool:
    """Whether the first word of a text is its verb: "rolls to the left", and not "waves crash"."""
    if following in VERBS or following == "of":
        return False
    if word in HELPING or word in COPULAS or (word.endswith("ing") and _stems(word) & VERBS):
        return True
    return (_ends_in_s(word) and (_ends_phrase(following) or bool(_stems(word) & VERBS))) or (
        word in VERBS and _ends_phrase(following)
    )


def _named_before(text: str, begins: int, subjects: Sequence[Subject | None]) -> str:
    """ "the ball" as the one thing of an earlier event that it can be, "the red ball"."""
    here = subject(text)
    if here is None or not text[begins:].lower().startswith("the ") or not here.words:
        return text
    known = {s.name: s for s in subjects if s is not None and s.words}
    same = [s for s in known.values() if s.words[-1] == here.words[-1] and s.plural == here.plural]
    fuller = [s for s in same if set(here.words) < set(s.words)]
    return f"{text[:begins]}{fuller[0].name}{text[here.stop :]}" if len(same) == len(fuller) == 1 else text


def _scene(text: str) -> tuple[list[str], list[str]]:
    """Places, and times of day, of which a text says that it happens there and then."""
    times = [found[0] for found in TIME.finditer(text)]
    places = [found[0] for found in PLACE.finditer(text)]
    first = {place: place.split()[0].lower() for place in places}
    places = [STAYING.get(first[p], first[p]) + p[len(first[p]) :] for p in places]
    return places[:MOST], times[:MOST]


def _with_scene(text: str, scene: Sequence[str]) -> str:
    """The scene behind the first clause."""
    if not scene:
        return text
    found = CLAUSE.search(text, _begins(text))
    stop = found.start() if found is not None else len(text)
    return f"{text[:stop].rstrip()} {' '.join(scene)}{text[stop:]}"


def subject(text: str) -> Subject | None:
    """The noun phrase that a text begins with; None where it cannot be told."""
    return _phrase(text, _begins(text)) if _who_is_left_out(text) is None else None


def _phrase(text: str, at: int, joined: bool = False, parts: int = 1) -> Subject | None:
    """The noun phrase at a place. joined: it is the second of two, whose verb has no s; parts: so far."""
    tokens = list(islice(TOKEN.finditer(text, at), LONGEST))
    words = [found[0].lower() for found in tokens]
    if not words or parts > MOST or words[0] in PRONOUNS or not words[0][0].isalpha():
        return None
    begins = next((i for i, word in enumerate(words) if word not in DETERMINERS), len(words))
    first = next((word for word in words[:begins] if word in SEVERAL), words[0] if begins else "")
    last = begins
    while last < len(words) and not _ends_chunk(words[last]):
        last += 1
    chunk = words[begins:last]
    stop = _verb(chunk, first, words[last] if last < len(words) else "", joined)
    if stop is None:
        return None
    whole = stop == len(chunk)
    while stop > 1 and chunk[stop - 1].endswith("ly") and chunk[stop - 1] not in NO_ADVERBS:
        stop -= 1
    found = chunk[:stop]
    if not 1 <= len(found) <= 5 or set(found) <= ADJECTIVES:
        return None
    end = tokens[begins + stop - 1].end()
    plural = first in SEVERAL or (first not in ONE and _is_plural(found[-1]))
    one = Subject(_definite(text[tokens[0].start() : end], words[0], first, plural), plural, tuple(found), end)
    return _longer(text, one, tokens[last], parts + 1) if whole and last < len(words) else one


def _longer(text: str, one: Subject, word: re.Match[str], parts: int) -> Subject | None:
    """A phrase that goes on with a word: "a glass of water", "a man in a red hat", "a ball and a cube"."""
    joins, at = word[0].lower(), word.end()
    determined = DETERMINED.match(text, at)
    if joins == "and" and determined:
        other = _phrase(text, at, True, parts)
        return None if other is None else Subject(f"{one.name} and {other.name}", True, (), other.stop)
    if joins == "of" or (joins in ("in", "with", "wearing") and determined and not PLACE.match(text, word.start())):
        other = _phrase(text, at, False, parts)
        if other is not None and other.words:
            return replace(one, name=f"{one.name} {text[one.stop : other.stop].strip()}", stop=other.stop)
        return None if joins == "of" else one
    return one


def _verb(chunk: Sequence[str], first: str, behind: str, joined: bool) -> int | None:
    """Where in the words behind a determiner the noun phrase ends; None where it cannot be told."""
    for j in range(1, len(chunk)):
        word, following = chunk[j], chunk[j + 1] if j + 1 < len(chunk) else behind
        ends, known = _ends_phrase(following), bool(_stems(word) & VERBS)
        if word in VERBS and ends and (joined or first in SEVERAL or not first or _is_plural(chunk[j - 1])):
            return j
        third = _ends_in_s(word) and (known or (ends and first in ONE))
        if third and (first not in SEVERAL or _is_plural(chunk[j - 1])):
            return j
        if known and ends and (word.endswith(("ing", "ed")) or (word in VERBS and following in WHITHER)):
            return j
    if not chunk or any(w.endswith(("ing", "ed")) and _stems(w) & VERBS for w in chunk[1:]):
        return None
    if first in ONE | EITHER | SEVERAL and not (first in EITHER and len(chunk) > 1 and _ends_in_s(chunk[-1])):
        return len(chunk)
    return len(chunk) if len(chunk) == 1 and (first or behind in HELPING or _is_plural(chunk[0])) else None


def _ends_chunk(word: str) -> bool:
    return not word[0].isalnum() or word in PREPOSITIONS | JOINING | HELPING | DETERMINERS or word in PRONOUNS


def _ends_phrase(following: str) -> bool:
    """Whether what follows a word shows that it may be a verb."""
    return not following or _ends_chunk(following) or following in WHITHER or following.endswith(("ly", "ing"))


def _is_plural(word: str) -> bool:
    return word in PLURALS or _ends_in_s(word)


def _ends_in_s(word: str) -> bool:
    return bool(re.search(r"[^'’suia]s$", word)) and len(word) > 2 and word not in NO_VERBS and not word.endswith("os")


def _stems(word: str) -> set[str]:
    """What a form of a verb may be a form of: "rolls", "rolling" and "rolled" of "roll", "stopping" of "stop"."""
    stems = {word, word[:-1] if word[-1:] == "s" else word, word[:-2] if word[-2:] == "es" else word}
    stems |= {f"{word[:-3]}y"} if word[-3:] == "ies" else set()
    for tail in ("ing", "ed"):
        if word.endswith(tail):
            bare = word[: -len(tail)]
            stems |= {bare, f"{bare}e", bare[:-1]} if bare else set()
    return stems


def _definite(name: str, begins: str, first: str, plural: bool) -> str:
    """A noun phrase as one names what is known: "a red ball", "the red ball"."""
    if begins in ("a", "an", "one", "another", "some"):
        return f"the{name[len(begins) :]}"
    small = name[:1].lower() + name[1:] if first else name
    counted = begins in SEVERAL - {"both", "these", "those", "all"}
    return f"the {small}" if counted or (not first and plural) else small

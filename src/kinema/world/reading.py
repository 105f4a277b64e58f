"""Reads what a prompt asks for: objects, ground, sky, events in order, camera move.

Not only captions of our own grammar: the tables of `kinema.world.words` hold more words than the grammar uses,
and the order of the words is free.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from kinema.world.vocabulary import COLOURS, DIRECTED
from kinema.world.words import (
    ACTION_PHRASES,
    ACTIONS_ALSO,
    COLOURS_ALSO,
    GROUND_ROOTS,
    MATERIAL_WORDS,
    MOVES,
    NOUNS,
    NOUNS_ALSO,
    SIZE_WORDS,
    SIZES_ALSO,
    SKY_ROOTS,
)


@dataclass(frozen=True, kw_only=True)
class ReadObject:
    """One object as a prompt names it; None where it does not say."""

    kind: str | None
    colour: str | None
    size: str | None = None
    material: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReadCaption:
    """What a prompt asks for; None where it does not say."""

    kind: str | None  # of the first object
    colour: str | None  # of the first object
    ground: str | None
    sky: str | None
    events: tuple[str, ...]  # labels in the order of time, for example ("bounce", "roll left")
    camera: str | None
    objects: tuple[ReadObject, ...] = ()  # all objects, in the order in which they are named


LEFT = r"(?:left|leftwards?|left-?wards)"
RIGHT = r"(?:right|rightwards?|right-?wards)"
TO = r"(?: slowly| gently)?(?: to)?(?: the)?"
ORBITS = r"(?:orbit(?:s|ing)?|camera (?:circles?|circling|goes around))"
CAMERA_MOVES: tuple[tuple[str, str], ...] = (
    ("pan left", rf"pan(?:s|ning)?{TO} {LEFT}"),
    ("pan right", rf"pan(?:s|ning)?{TO} {RIGHT}"),
    ("orbit left", rf"{ORBITS}{TO} {LEFT}"),
    ("orbit right", rf"{ORBITS}{TO} {RIGHT}"),
    ("tilt up", r"tilt(?:s|ing)?(?: slowly)? up(?:wards?)?|camera looks up"),
    ("tilt down", r"tilt(?:s|ing)?(?: slowly)? down(?:wards?)?|camera looks down"),
    ("zoom in", r"zoom(?:s|ing)?(?: slowly)? in|zoom-in"),
    ("zoom out", r"zoom(?:s|ing)?(?: slowly)? out|zoom-out"),
    ("dolly in", r"(?:doll(?:y|ies|ying)|camera (?:moves?|moving|pushes|pushing))(?: slowly)? (?:in|forwards?|closer)"),
    ("dolly out", r"(?:doll(?:y|ies|ying)|camera (?:moves?|moving|pulls|pulling))(?: slowly)? (?:out|back|backwards?)"),
    ("rise", r"camera (?:ris(?:es?|ing)|go(?:es|ing)? up|mov(?:es?|ing) up|lifts|cranes up)|crane shot"),
    ("pan left", rf"camera (?:turns|moves|moving|swings){TO} {LEFT}"),
    ("pan right", rf"camera (?:turns|moves|moving|swings){TO} {RIGHT}"),
    ("still", r"camera (?:stays|is|remains|stands|holds)(?: completely)? (?:still|static|fixed|steady)"),
    ("still", r"camera (?:does not|doesn't|never) moves?|without camera movement"),
    ("still", r"(?:still|static|fixed|steady|locked) (?:camera|shot)"),
)
DIRECTION_PATTERNS: tuple[tuple[str, str], ...] = (
    ("right", r"from (?:the )?left to (?:the )?right"),
    ("left", r"from (?:the )?right to (?:the )?left"),
    ("towards", r"towards? (?:the )?(?:camera|viewer|us|me|front)|closer|nearer|forwards?|at the camera"),
    ("away", r"away(?: from)?|into the distance|backwards?|further off|to the back"),
    ("left", rf"(?:(?:to|towards?) the )?{LEFT}"),
    ("right", rf"(?:(?:to|towards?) the )?{RIGHT}"),
)
RELATIONS = r"(?:to the |on the )?(?:left|right)(?: side)? of|next to the (?:left|right)"


def parse_caption(text: str) -> ReadCaption:
    """What a prompt asks for, in free wording; what it does not mention is None or empty."""
    plain = re.sub(
        r"[^a-z0-9\-' ]+", " ", text.lower().replace("’", "'").replace(".", " . ").replace("colour", "color")
    )
    plain = re.sub(r"\s+", " ", plain.replace("camera slowly", "camera").replace("camera gently", "camera")).strip()
    camera, plain = read_camera(plain)
    plain = re.sub(RELATIONS, " beside ", plain)
    objects, taken = read_objects(plain)
    first = objects[0] if objects else ReadObject(kind=None, colour=read_colour(plain))
    return ReadCaption(
        kind=first.kind,
        colour=first.colour,
        ground=first_word(plain, GROUND_ROOTS),
        sky=first_word(plain, SKY_ROOTS),
        events=read_events(plain, objects, taken),
        camera=camera,
        objects=objects,
    )


def read_camera(text: str) -> tuple[str | None, str]:
    """The camera's first move, and the text without the words that named it and those behind it."""
    found: tuple[int, str, re.Match[str]] | None = None
    for move, pattern in CAMERA_MOVES:
        match = re.search(rf"\b(?:(?:the |a )?camera )?(?:{pattern})(?!\w)", text)
        if match and (found is None or match.start() < found[0]):
            found = (match.start(), move, match)
    if found is None:
        return None, text
    match, rest = found[2], text[found[2].end() :]
    while also := more_of_camera(rest):
        rest = rest[also:]
    return found[1], f"{text[: match.start()]} {rest}"


def more_of_camera(text: str) -> int:
    """How many letters at the head of a text go on about the camera, as "then tilts up" does."""
    joint = re.match(r"(?: and| then)+ (?:the camera )?(?:slowly |gently )?", text)
    if joint is None:
        return 0
    said, implied = f"camera {text[joint.end() :]}", len("camera ")
    goes_on = (re.match(rf"(?:camera )?(?:{pattern})(?!\w)", said) for _, pattern in CAMERA_MOVES)
    return next((joint.end() + match.end() - implied for match in goes_on if match), 0)


@cache
def lookup(table: str) -> dict[str, str]:
    """word -> what it means, for nouns, colours, sizes and materials."""
    if table == "noun":
        pairs = [(w, kind) for kind in NOUNS for w in (*NOUNS[kind], *NOUNS_ALSO[kind])]
    elif table == "colour":
        pairs = [(w, colour) for colour in COLOURS for w in (colour, *COLOURS_ALSO[colour])]
    elif table == "size":
        pairs = [(w, size) for size in SIZE_WORDS for w in (*SIZE_WORDS[size], *SIZES_ALSO[size])]
    else:
        pairs = [(w, material) for material, words in MATERIAL_WORDS.items() for w in words]
    return dict(pairs)


def read_objects(text: str) -> tuple[tuple[ReadObject, ...], list[tuple[int, int]]]:
    """The objects named, each once, and which object each place in the text (position, object) names."""
    nouns, colours, sizes, materials = (lookup(t) for t in ("noun", "colour", "size", "material"))
    objects: list[ReadObject] = []
    places: list[tuple[int, int]] = []
    before: list[str] = []
    for match in re.finditer(r"[a-z0-9\-']+", text):
        word = match.group()
        if word not in nouns or (word == "can" and not before):
            before = [] if word in ("a", "an", "the", "then", "and") else [*before[-4:], word]
            continue
        colour = next((colours[w] for w in reversed(before) if w in colours), None)
        thing = ReadObject(
            kind=nouns[word],
            colour=colour,
            size=next((sizes[w] for w in reversed(before) if w in sizes), None),
            material=next((materials[w] for w in reversed(before) if w in materials), None),
        )
        before = []
        same = next(
            (i for i, o in enumerate(objects) if o.kind == thing.kind and thing.colour in (o.colour, None)), None
        )
        if same is None:
            objects.append(thing)
            same = len(objects) - 1
        else:
            known = objects[same]
            objects[same] = ReadObject(
                kind=known.kind,
                colour=known.colour,
                size=known.size or thing.size,
                material=known.material or thing.material,
            )
        places.append((match.start(), same))
    if len(objects) == 1 and objects[0].colour is None:
        objects[0] = ReadObject(kind=objects[0].kind, colour=read_colour(text), size=objects[0].size)
    return tuple(objects), places


def read_colour(text: str) -> str | None:
    """The first colour that nothing changes to."""
    kept = re.sub(change_pattern(), " ", text)
    colours = lookup("colour")
    return next((colours[w] for w in re.findall(r"[a-z\-]+", kept) if w in colours), None)


@cache
def change_pattern() -> str:
    names = "|".join(lookup("colour"))
    verbs = r"(?:turns?|turning|changes?|changing|becomes?|becoming)"
    return (
        rf"\b{verbs}(?: its| his| her)?(?: color)?(?: from \w+)?(?: into| to| in)? (?:{names})\b"
        rf"|\b(?:changes?|changing) (?:its )?color\b"
    )


@cache
def event_pattern() -> re.Pattern[str]:
    """One alternative a phrase, longest first, in named groups a0, a1 ... for the actions in order."""
    groups = [rf"(?P<change>{change_pattern()})"]
    for i, action in enumerate(ACTION_PHRASES):
        if action == "change colour":
            continue
        phrases = [p for pair in ACTION_PHRASES[action] for p in pair]
        phrases += ACTIONS_ALSO[action]
        phrases.sort(key=len, reverse=True)
        groups.append(rf"(?P<a{i}>\b(?:{'|'.join(phrases)})\b)")
    groups.append(rf"(?P<move>\b(?:{'|'.join(MOVES)})\b)")
    return re.compile("|".join(groups))


def read_events(text: str, objects: tuple[ReadObject, ...], places: list[tuple[int, int]]) -> tuple[str, ...]:
    """Event labels in the order of time."""
    actions = list(ACTION_PHRASES)
    matches = list(event_pattern().finditer(text))
    found: list[tuple[int, str]] = []
    for k, match in enumerate(matches):
        group = match.lastgroup or ""
        action = {"change": "change colour", "move": "move"}.get(group) or actions[int(group[1:])]
        end = matches[k + 1].start() if k + 1 < len(matches) else len(text)
        start = matches[k - 1].end() if k else 0
        direction = read_direction(text[match.end() : end]) or read_direction(text[start : match.start()])
        named = [who for at, who in places if at < match.start()]
        kind = objects[named[-1] if named else 0].kind if objects else None
        if action == "move" and direction is None:
            continue
        action = fitting(action, kind)
        if action in DIRECTED:
            found.append((match.start(), f"{action} {direction}" if direction else action))
        else:
            found.append((match.start(), action))
    return tuple(in_time(text, found))


def fitting(action: str, kind: str | None) -> str:
    """The action that this kind of thing can do: cubes do not roll, figures walk."""
    if action not in ("roll", "slide", "move", "walk"):
        return action
    if kind == "figure" and action != "slide":
        return "walk"
    if kind in ("cube", "cone", "letter", "picture"):
        return "slide"
    if action in ("move", "walk"):
        return "slide" if kind == "cylinder" else "roll"  # a standing cylinder
    return action


def read_direction(text: str) -> str | None:
    """The first direction named in a piece of text."""
    best: tuple[int, int, str] | None = None
    for direction, pattern in DIRECTION_PATTERNS:
        match = re.search(rf"\b(?:{pattern})(?!\w)", text)
        if match and (best is None or (match.start(), -match.end()) < best[:2]):
            best = (match.start(), -match.end(), direction)
    return best[2] if best else None


def in_time(text: str, found: list[tuple[int, str]]) -> list[str]:
    """The order of time: "a after b" and "before a, b" say it backwards."""
    labels = [label for _, label in found]
    for i in range(len(found) - 1):
        between = text[found[i][0] : found[i + 1][0]]
        ahead = text[: found[i][0]] if i == 0 else ""
        if re.search(r"\bafter\b(?! that)", between) or re.search(r"\bbefore\b", ahead):
            labels[i], labels[i + 1] = labels[i + 1], labels[i]
    return labels


def first_word(text: str, table: dict[str, tuple[str, ...]]) -> str | None:
    """The entry of which a word comes first in the text."""
    words = {word: name for name, roots in table.items() for word in roots}
    return next((words[w] for w in re.findall(r"[a-z\-]+", text) if w in words), None)

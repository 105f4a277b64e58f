"""Text -> events. What means to give times is read strictly or refused, never taken for plain words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import cast

from kinema.core.errors import KinemaError
from kinema.timeline.events import Event, Order, Unit
from kinema.timeline.tries import tries

# What one writes, in any case that could mean it: "0-2s", "1.5 to 3 seconds", "[0:24", "(25%-50%)".
NUMBER = r"[-+]?(?:\d+(?:[.,:]\d+)*|[.,]\d+)(?:e[-+]?\d+)?"
UNITS = r"(?:%|(?:ms|s|secs?|seconds?|f|frames?|percent)\b)"
TO = r"(?:-|–|—|\.\.+|to\b|and\b)"
OPEN, CLOSED = r"\s*+(?:(?:from|between)\s+)?[(\[{<]?\s*+", r"\s*+[)\]}>]?\s*+:"
LASTING = r"(?:of|long|later|ago|per)\b"  # "2-3 seconds of rain" is how long it rains
LOOKS_TIMED = re.compile(
    rf"{OPEN}{NUMBER}\s*+{UNITS}?\s*+{TO}\s*+(?:{NUMBER}\s*+)?{UNITS}?{CLOSED}"
    rf"|{OPEN}{NUMBER}\s*+(?:{UNITS}\s*+{TO}\s*+{NUMBER}|{TO}\s*+{NUMBER}\s*+{UNITS})(?!\s*+{LASTING})"
    rf"|\s*+\[?\s*+(?:{NUMBER}\s*+)?{UNITS}?\s*+:\s*+{NUMBER}\s*+{UNITS}?\s*+\]"
    rf"|\s*+\[\s*+(?:{UNITS}?\s*+:\s*+{NUMBER}|{NUMBER}\s*+(?:{UNITS}|[:,\]]|{TO}))"
    rf"|\s*+{NUMBER}\s*+{UNITS}\s*+:",
    re.IGNORECASE,
)
ODD = re.compile(r"\d*[.,]?\d+e[-+]?\d+|(?<!\d)[.,]\d+|\d+,\d+", re.IGNORECASE)  # a number that is not read
# What is read.
EXACT = r"\d+(?:\.\d+)?"
RANGE = re.compile(
    rf"\s*+(?:({EXACT})\s*+([sf%])?\s*+[-–]\s*+({EXACT})\s*+([sf%])\s*+:|"
    rf"\[\s*+({EXACT})\s*+([sf%])?\s*+:\s*+({EXACT})\s*+([sf%])?\s*+\]\s*+:?)\s*+"
)
INSIDE = re.compile(
    rf"(?<![\w.%]){EXACT}\s*+[sf%]?\s*+[-–]\s*+{EXACT}\s*+[sf%]\s*+:"
    rf"|\[\s*+(?:{EXACT}\s*+[sf%]?)?\s*+:\s*+{EXACT}\s*+[sf%]?\s*+\]"
)
LONGEST = 300_000  # characters of a text
EXPECTED = "expected a range as in '0-3s: text', '[0:24] text' or '[25%:50%] text'"

COLON = "write them ahead of each event with a colon, as in '0-3s: text | 3-6s: text', or without times"

LEAD = r"(?:(?:(?<!\s)\s*+)?[,;.]\s*+(?:and\s+|but\s+)?|(?<!\s)\s++and\s+)"
THEN, MEANWHILE = r"then|after\s+that|afterwards?", r"meanwhile|at\s+the\s+same\s+time"
WORD = rf"(?:{THEN}|{MEANWHILE})\b"
PARTING = re.compile(rf"{LEAD}(?P<words>{WORD}(?:\s*+,?\s*+(?:and\s+)?{WORD})*)\s*+,?\s*+", re.IGNORECASE)
BARE = re.compile(r"(?<!\S)(?P<before>\S++)(?P<words>\s++then\s+)", re.IGNORECASE)
# "the then famous ball", "since then it rolls": here "then" parts nothing.
NO_PARTING = frozenset(re.findall("[a-z]+", "the a an since by until till from back just even only now every and or"))
AT_ONCE = re.compile(rf"(?:{MEANWHILE})\b\s*+,?\s*+", re.IGNORECASE)


@lru_cache(maxsize=64)  # a request reads the same few texts again and again
def read(text: str) -> tuple[tuple[Event, ...], Unit]:
    """The events of a prompt and the unit of their times. Raises: KinemaError, one sentence with the column."""
    if len(text) > LONGEST:
        raise KinemaError(f"the text has {len(text)} characters; use at most {LONGEST}")
    if not text.strip():
        raise KinemaError("the prompt is empty; say what the video shows")
    return _timed(text) if is_timed(text) else (tuple(_in_order(text)), "s")


def is_timed(text: str) -> bool:
    """Whether a text means to give times: a part of it starts like "0-2s:" or "[0:24]", or holds such a range."""
    return any(LOOKS_TIMED.match(text, at) for at, _ in parts(text)) or INSIDE.search(text) is not None


def parts(text: str) -> Iterator[tuple[int, str]]:
    r"""What bars and line breaks part, with the place of each. A bar that is a part of the words is written "\|"."""
    at = 0
    for piece in re.split(r"((?<!\\)\||[\n\r]+)", text):
        if not re.fullmatch(r"\||[\n\r]+", piece):
            yield at, piece
        at += len(piece)


def where(text: str, at: int) -> str:
    """A place in a text as people count: line, where there are several, and column from 1."""
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    return f"line {line}, column {column}" if "\n" in text.strip() else f"column {column}"


def fail(text: str, at: int, why: str) -> KinemaError:
    return KinemaError(f"{where(text, at)}: {why}")


def _timed(text: str) -> tuple[tuple[Event, ...], Unit]:
    events: list[Event] = []
    unit: Unit | None = None
    order = Order()
    one_line = "\n" not in text.strip()
    lines = [(at, part) for at, part in parts(text) if part.strip() or one_line]
    for at, part in lines:
        begins = at + len(part) - len(part.lstrip())
        found = RANGE.match(part)
        if found is None:
            raise _no_range(text, at, part)
        start, first, end, last = (group for group in found.groups()[4 * (found[1] is None) :][:4])
        here = cast(Unit, last or "f")
        if first not in (None, here) or (first and not last):
            raise fail(text, begins, f"the range has two units ({first} and {last or 'none'}); use one")
        if unit not in (None, here):
            raise fail(text, begins, f"the range is in {NAMES[here]}, the one ahead of it in {NAMES[unit]}; use one")
        unit = here
        says = at + found.end()
        words = part[found.end() :].rstrip().replace(r"\|", "|")
        at_once = AT_ONCE.match(words) if events else None
        words, says = (words[at_once.end() :], says + at_once.end()) if at_once else (words, says)
        if (again := range_in(words)) is not None:
            raise fail(text, says + again, "a second range in one event; part events with ' | '")
        if not words:
            raise fail(text, says, "the event has no text; say what happens after its times")
        try:
            events.append(Event(text=words, start=float(start), end=float(end), meanwhile=at_once is not None))
        except KinemaError as error:
            raise fail(text, begins, str(error)) from None
        if (wrong := order.fault(events[-1], unit)) is not None:
            raise fail(text, begins, wrong)
    assert unit is not None
    return tuple(events), unit


def range_in(words: str) -> int | None:
    """Where the words of an event give times, which no event does; None where they do not."""
    found = LOOKS_TIMED.match(words) or INSIDE.search(words)
    return found.start() if found is not None else next((at for at, _ in tries(words)), None)


def _no_range(text: str, at: int, part: str) -> KinemaError:
    looks = LOOKS_TIMED.match(part)
    odd = ODD.search(looks[0]) if looks is not None else None
    if odd is not None:
        return fail(text, at + odd.start(), f"the number {odd[0]!r} cannot be read; write it as 3 or 1.5")
    begins = at + len(part) - len(part.lstrip())
    return fail(text, begins, f"{EXPECTED}, found {part.strip()[:20]!r}")


NAMES: dict[Unit, str] = {"s": "seconds", "f": "frames", "%": "percent"}


def _in_order(text: str) -> Iterator[Event]:
    """Events parted by "then" and its like."""
    for at, span in tries(text):
        raise fail(text, at, f"{span!r} looks like times; {COLON}")
    begins, at_once = 0, False
    for first, stop, words in [*_partings(text), (len(text), len(text), "")]:
        said = " ".join(text[begins:first].split())
        if not said and words and not begins:
            raise fail(text, first, f"nothing is ahead of {words!r}; say what happens before it")
        if not said:
            raise fail(text, begins, "nothing follows; say what happens then")
        if LOOKS_TIMED.match(said):
            raise fail(text, begins, f"{EXPECTED}, from the first event on; found {said[:20]!r}")
        yield Event(text=said, meanwhile=at_once)
        begins, at_once = stop, re.search(MEANWHILE, words, re.IGNORECASE) is not None
        if at_once and re.search(rf"\b(?:{THEN})\b", words, re.IGNORECASE):
            raise fail(text, first, f"{words!r} says both one after the other and at once; use one of them")


def _partings(text: str) -> list[tuple[int, int, str]]:
    """Where events are parted: the place behind the one, the place of the next, and the words between."""
    found = [(m.start(), m.end(), " ".join(m["words"].split())) for m in PARTING.finditer(text)]
    taken = {at for first, stop, _ in found for at in range(first, stop)}
    for m in BARE.finditer(text):
        word = m["before"].lower().strip("\"'(")
        if word[-1:].isalnum() and word not in NO_PARTING and m.start("words") not in taken:
            found.append((m.start("words"), m.end("words"), "then"))
    return sorted(found)

"""Plain words that surely try to give times, so that they are refused and not shown.

"10-15s of silence", "a 10-20 year old", "the bar fills from 0 to 100%" and "it rolls from 0-3s" are plain words. A try
begins a clause and is a range of seconds from 0 on ("a ball, 0-1.5s rolls"), or one of seconds ahead of what happens
("a ball, 2-4s it jumps"), or one of frames or percent which is both. So are two ranges of seconds or frames, anywhere,
of which one begins where the other ends ("it rolls 1-2s and jumps 2-3s").
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NUMBER = r"\d+(?:\.\d+)?"
UNIT = r"(?:%|(?:s|secs?|seconds?|f|frames?|percent)\b)"
TRY = re.compile(
    r"(?:(?P<clause>(?:^|(?<=[,;.])\s)\s*+(?:(?:and|but|then)\s++)?(?:(?:from|between|at)\s++)?)|(?<![\w.,:%/–-]))"
    rf"(?P<range>(?P<start>{NUMBER})\s*+{UNIT}?\s*+(?:-|–|—|to\b|and\b)\s*+(?P<end>{NUMBER})\s*+(?P<unit>{UNIT}))"
    r"(?P<happens>\s++(?:a|an|the|it|he|she|they)\b)?",
    re.IGNORECASE,
)


def tries(text: str) -> Iterator[tuple[int, str]]:
    """Where each try begins, and the range it gives."""
    ahead: re.Match[str] | None = None
    for found in TRY.finditer(text):
        unit, clause, at_0 = found["unit"][0].lower(), found["clause"] is not None, float(found["start"]) == 0
        alone = at_0 or found["happens"] if unit == "s" else at_0 and found["happens"]
        joined = ahead is not None and ahead["unit"][0].lower() == unit and ahead["end"] == found["start"]
        if clause and alone:
            yield found.start("range"), found["range"]
        elif joined and ahead is not None and unit in "sf":
            yield ahead.start("range"), ahead["range"]
        ahead = found

"""Which text tokens spell a word of a prompt."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kinema.core.errors import KinemaError

Span = tuple[int, int]  # first letter, and the first behind
WITHOUT_SPACES = 0x2E80  # from here on scripts stand that write their words without spaces between


@dataclass(frozen=True)
class Spelling:
    """The letters of a prompt that each text token stands for which a network reads."""

    text: str  # the prompt as its tokenizer gets it
    spans: Sequence[Span]  # one a token, in the order in which they are read; (0, 0) spells nothing of the prompt


def spans_of(tokenizer: Any, text: str, length: int, **options: Any) -> list[Span]:
    """The letters of a text that its tokens stand for, `length` tokens at most."""
    if not getattr(tokenizer, "is_fast", False):
        raise KinemaError("the tokenizer of this model does not tell what its tokens spell; use a fast one")
    found = tokenizer(text, max_length=length, truncation=True, return_offsets_mapping=True, **options)
    spans: list[Span] = [tuple(span) for span in found["offset_mapping"]]
    return spans


def framed(prompt: str, spans: Sequence[Span], start: int, ahead: int = 0) -> Spelling:
    """A prompt that begins at the letter `start` of a longer text with these spans, behind `ahead` other tokens."""
    inside = [(max(first - start, 0), min(last - start, len(prompt))) for first, last in spans]
    return Spelling(prompt, [(0, 0)] * ahead + [(a, b) if a < b else (0, 0) for a, b in inside])


def spelled(words: str, spelling: Spelling) -> list[int]:
    """The tokens, by number, that spell a word or phrase wherever the prompt says it; case does not count.

    Raises: KinemaError when it does not, or only behind what the network reads.
    """
    asked = words.split()
    if not asked:
        raise KinemaError("words is empty; name a word or a phrase of the prompt")
    before, behind = (
        edge if letter.isalnum() and ord(letter) < WITHOUT_SPACES else ""
        for letter, edge in ((asked[0][0], r"(?<!\w)"), (asked[-1][-1], r"(?!\w)"))
    )
    pattern = before + r"\s+".join(map(re.escape, asked)) + behind
    places = [match.span() for match in re.finditer(pattern, spelling.text, re.IGNORECASE)]
    if not places:
        raise KinemaError(f"the prompt {spelling.text!r} does not say {words!r}; name words that stand in it")
    tokens = [
        i for i, (a, b) in enumerate(spelling.spans) if a < b and any(a < last and first < b for first, last in places)
    ]
    if not tokens:
        raise KinemaError(f"{words!r} stands behind the end of what the model reads of its prompt; say it earlier")
    return tokens


def default_of(function: Callable[..., Any], name: str) -> Any:
    """What an argument of a function is when it is left out."""
    return inspect.signature(function).parameters[name].default

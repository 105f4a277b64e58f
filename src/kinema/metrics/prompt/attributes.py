"""Attributes of the prompt that the judge finds in the clip: 1 or 0 each, so that their means are accuracies.

None where the prompt does not name the attribute, or names a word or more things than the judge can tell.
"""

from __future__ import annotations

from typing import Any

from kinema.metrics.agreement import asked_words, beyond
from kinema.metrics.asked import asked, judge_of, rows
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing

TOLD: dict[str, Any] = dict(
    unit="share of clips",
    low=0,
    high=1,
    better="higher",
    source="the accuracy of kinema's own judge (kinema.metrics.judge), with what was asked for as the truth",
    extractor="world",
    needs=("prompt",),
    sees="wrong_words",
    ignores="synonyms",
)


def _right(clip: Viewing, extractor: Extractor, attribute: str) -> float | None:
    row = rows(clip, extractor).get(attribute)
    return None if row is None else float(row.right is True)


@metric("kind_accuracy", **TOLD)
def kind_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the kind of object that the prompt asks for, else 0.

    Of several objects each has to be found once.
    """
    return _right(clip, extractor, "kind")


@metric("colour_accuracy", **TOLD)
def colour_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the colour of the object that the prompt asks for, else 0.

    Of several objects each has to be found once.
    """
    return _right(clip, extractor, "colour")


@metric("ground_accuracy", **TOLD)
def ground_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the ground that the prompt asks for, else 0."""
    return _right(clip, extractor, "ground")


@metric("sky_accuracy", **TOLD)
def sky_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the sky that the prompt asks for, else 0."""
    return _right(clip, extractor, "sky")


@metric("event_accuracy", **TOLD)
def event_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the events, all and in their order, that the prompt asks for, else 0.

    What rolls or slides "moves": on film both are the same.
    """
    return _right(clip, extractor, "events")


@metric("camera_accuracy", **TOLD)
def camera_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads the camera move that the prompt asks for, else 0."""
    return _right(clip, extractor, "camera")


@metric("prompt_accuracy", **TOLD)
def prompt_accuracy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the judge reads everything that the prompt asks for, else 0.

    None where the prompt asks for nothing that the judge knows, or for anything that it cannot tell.
    """
    words = asked(clip).words
    found = rows(clip, extractor)
    if not any(asked_words(words).values()) or beyond(words, judge_of(extractor).config):
        return None
    return float(all(row.right for row in found.values()))

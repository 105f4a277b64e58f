"""TC-Bench: whether a change that the prompt asks for really happens, from its start over its middle to its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kinema.metrics.asked import asked
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.transitions import transitions
from kinema.metrics.viewing import Viewing

TOLD: dict[str, Any] = dict(
    low=0,
    high=1,
    better="higher",
    source='"TC-Bench", 2024, arXiv:2406.08656',
    extractor="world",
    needs=("prompt",),
    sees="freeze",
    ignores="synonyms",
)


def completed(answers: Sequence[float], presence: Sequence[bool], unclear: bool = False) -> float | None:
    """TCR of one clip: 1 when all answers but those on the presence of other things are a yes, else 0.

    answers: chances of a yes, NaN for what cannot be told, which is left out. unclear: take a chance of exactly 0.5 as
    a yes, as the released code does (its "unclear" is 0.5, and `all` takes any number but 0 for true).
    """
    told = [a for a, other in zip(answers, presence, strict=True) if not other and not np.isnan(a)]
    return float(all(a >= 0.5 if unclear else a > 0.5 for a in told)) if told else None


def mean_answer(answers: Sequence[float]) -> float | None:
    """TC-Score of one clip: the mean answer, yes 1, no 0, unclear 0.5; None when nothing can be told."""
    told = [a for a in answers if not np.isnan(a)]
    return float(np.mean(told)) if told else None


def _answers(clip: Viewing, extractor: Extractor) -> tuple[list[float], list[bool]]:
    found = transitions(asked(clip), (len(clip) - 1) / clip.fps)
    chances = extractor.answers(clip.frames, clip.fps, found).tolist() if found else []
    return chances, [question.presence for question in found]


@metric("transition_completion", unit="share of clips", **TOLD)
def transition_completion(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when every change that the prompt asks for is complete, in steps and of one object, else 0: TCR.

    An unclear answer is no yes here, while it is in the released code. None where the prompt asks for no change of
    place, size, colour or presence, or for none that the extractor can tell.
    """
    answers, presence = clip.once(("transitions", extractor.label, clip.prompt), lambda: _answers(clip, extractor))
    return completed(answers, presence)


@metric("tc_score", unit="share of answers", **TOLD)
def tc_score(clip: Viewing, extractor: Extractor) -> float | None:
    """Mean answer to all questions about the changes that the prompt asks for: TC-Score.

    Questions about what stays count, so that a clip in which nothing happens gets half or more: look at
    `transition_completion` first.
    """
    answers, presence = clip.once(("transitions", extractor.label, clip.prompt), lambda: _answers(clip, extractor))
    return mean_answer(answers) if any(not other for other in presence) else None

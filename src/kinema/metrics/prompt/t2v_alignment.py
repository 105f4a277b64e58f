"""T2VScore-A: the prompt taken apart into questions, and the share of them that are answered right."""

from __future__ import annotations

from kinema.metrics.asked import asked
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.questions import questions, share_of_yes
from kinema.metrics.viewing import Viewing


@metric(
    "t2v_alignment",
    unit="share of questions",
    low=0,
    high=1,
    better="higher",
    source='T2VScore-A of "Towards A Better Metric for Text-to-Video Generation", 2024, arXiv:2401.07781',
    extractor="world",
    needs=("prompt",),
    sees="wrong_words",
    ignores="synonyms",
)
def t2v_alignment(clip: Viewing, extractor: Extractor) -> float | None:
    """Share of the questions about what the prompt asks for that are answered right: (1/N) sum [A_i = yes].

    The questions come from the words that kinema understands, one for each object, colour, ground, sky, event and
    camera move, and all have yes as their right answer; the paper has a language model write them, with several
    choices each. Point tracks are not drawn into the clip. None where the prompt gives no question that the extractor
    can answer.
    """
    found = questions(asked(clip))
    return share_of_yes(extractor.answers(clip.frames, clip.fps, found)) if found else None

"""VBench, human action: whether what was asked for is done."""

from __future__ import annotations

import numpy as np

from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.vbench.claims import asked_action
from kinema.metrics.viewing import Viewing

BEST = 5  # classes that are looked at
SURE = 0.85  # least sigmoid of a log odds


def is_hit(log_odds: np.ndarray, wanted: int) -> bool:
    """Whether class `wanted` is among the 5 likeliest of (K,) log odds, and its sigmoid is at least 0.85.

    As VBench does, the sigmoid is rounded to four places.
    """
    best = np.argsort(-log_odds, kind="stable")[:BEST]
    return wanted in best and round(1 / (1 + float(np.exp(-log_odds[wanted].astype(np.float64)))), 4) >= SURE


@metric(
    "vbench_human_action",
    unit="share of clips",
    low=0,
    high=1,
    better="higher",
    source='"VBench", 2023, arXiv:2311.17982',
    extractor="videomae",
    offline="world",
    needs=("prompt",),
    sees="wrong_words",
    ignores="synonyms",
)
def human_action(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the action asked for is among the 5 likeliest classes with a sigmoid of at least 0.85, else 0.

    VBench's classifier is UMT ViT-L, trained on Kinetics-400; the usual one here has the same classes, but its numbers
    are not comparable with published ones. With `world` it is the first event of a clip of the world. None where the
    prompt asks for no action, or for one that is no class.
    """
    action = asked_action(clip)
    if action is None or action not in extractor.classes:
        return None
    return float(is_hit(extractor.logits(clip.frames, clip.fps), extractor.classes.index(action)))

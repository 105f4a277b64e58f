"""Laws of physics that the objects of a clip keep or break, one metric for each and one for all.

"VideoPhy" (2024, arXiv:2406.03520) has people, and a language model after them, say whether a clip follows the laws of
the real world. Here rules on the paths of objects say it (`kinema.metrics.laws`), with the camera's motion taken away:
1 a law is kept, 0 it is broken, None it is not seen at work. A clip of the wrong thing can be physical: look at
`prompt_accuracy` too. How well the rules tell clips of kinema.world from the same with one law broken is measured by
`python -m kinema.claims.physics`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kinema.metrics import laws
from kinema.metrics.asked import asked, rows
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.objects import ObjectTrack, objects
from kinema.metrics.questions import PHYSICS, Claim, Question
from kinema.metrics.still import Path, still_paths
from kinema.metrics.viewing import Viewing

EDGE = 1  # pixels; an object this near to the border may be cut off by it
HOPS = ("fall", "jump", "bounce")
TOLD: dict[str, Any] = dict(
    unit="share of clips",
    low=0,
    high=1,
    better="higher",
    source='after "VideoPhy", 2024, arXiv:2406.03520, with rules in place of raters',
    extractor="world",
    ignores="mirror",
)
Rule = Callable[[Path, np.ndarray], float | None]  # a path, and where the border may cut the object off


def at_border(track: ObjectTrack, clip: Viewing) -> np.ndarray:
    """(T,) bool: the object is seen, and so near to the border that a part of it may be outside."""
    x0, y0, x1, y1 = np.nan_to_num(track.boxes, nan=-1.0).T
    near = (x0 <= EDGE) | (y0 <= EDGE) | (x1 >= clip.width - EDGE) | (y1 >= clip.height - EDGE)
    found: np.ndarray = near & track.seen
    return found


def _asks(clip: Viewing, *actions: str) -> int:
    """How many of these things the prompt has happen."""
    return sum(label.split(" ")[0] in actions for label in asked(clip).words.events)


def _level(clip: Viewing) -> bool:
    """Whether nothing is to come nearer or to go away, which moves it up or down in the picture."""
    return not any(label.endswith((" towards", " away")) for label in asked(clip).words.events)


def _steady(clip: Viewing) -> bool:
    """Whether things are to keep their size as well: else their lower edge moves though they stand."""
    return _level(clip) and not _asks(clip, "grow", "shrink")


# When the prompt lets a law apply, how far it is broken, and from where on that is too far.
LAWS: dict[str, tuple[Callable[[Viewing], bool], Rule, float]] = {
    "gravity": (_steady, lambda path, _: laws.floating(path), laws.FLOATING),
    "energy": (lambda c: _level(c) and _asks(c, *HOPS) < 2, lambda path, _: laws.energy(path), laws.ENERGY),
    "momentum": (lambda c: True, lambda path, _: laws.momentum(path), laws.MOMENTUM),
    "permanence": (lambda c: not _asks(c, "appear", "disappear"), laws.missing, laws.MISSING),
    "growth": (lambda c: c.prompt is not None and _steady(c), laws.growth, laws.GROWTH),
}


def applies(clip: Viewing, law: str) -> bool:
    """Whether the prompt lets a law apply."""
    return LAWS[law][0](clip)


def _kept(clip: Viewing, extractor: Extractor, law: str) -> float | None:
    """1 when every object that the prompt names (one without a prompt) keeps a law, 0 when one breaks it."""
    if not applies(clip, law):
        return None
    _, rule, limit = LAWS[law]
    pairs = list(zip(objects(clip, extractor), still_paths(clip, extractor), strict=True))
    told = [rule(path, at_border(track, clip)) for track, path in pairs[: max(1, len(asked(clip).words.objects))]]
    seen = [value for value in told if value is not None]
    return float(all(value <= limit for value in seen)) if seen else None


@metric("physics_gravity", sees="hover", **TOLD)
def physics_gravity(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when things in the air fall as gravity has it, 0 when they hover, jerk or climb.

    They have to fall on parabolas, with a third of the acceleration that these need or more. None where nothing is in
    the air for three frames, or the prompt has things change their size or distance. What hovers all the time is not
    found out: only what was seen on the ground is known to be in the air. Where the camera moves, a floor whose pattern
    does not move along makes things on it seem to rise.
    """
    return _kept(clip, extractor, "gravity")


@metric("physics_energy", sees="backwards", clips=4, **TOLD)
def physics_energy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when no hop is higher than the one before it by more than 15%.

    None where there are not two hops, or where the prompt has two things lift off, or things come nearer or go
    away.
    """
    return _kept(clip, extractor, "energy")


@metric("physics_momentum", sees="teleport", **TOLD)
def physics_momentum(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when nothing changes its speed to the side by more than a tenth of the picture's height a frame."""
    return _kept(clip, extractor, "momentum")


@metric("physics_permanence", sees="vanish", **TOLD)
def physics_permanence(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when things stay: they are unseen in no more than 5% of the frames, unless they left over the border.

    None where the prompt has things appear or disappear.
    """
    return _kept(clip, extractor, "permanence")


@metric("physics_growth", sees="swell", **TOLD)
def physics_growth(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when things keep their size, within a factor of 1.4 over the clip, after the camera's motion is taken away.

    Look at clips of a still camera: where it zooms or a picture is not sharp, what is left of its motion counts as
    growth, and of rendered clips with a moving camera only four in five keep the law. None where the prompt asks for a
    change of size or of depth, or where there is no prompt.
    """
    return _kept(clip, extractor, "growth")


@metric("physics", sees="teleport", **TOLD)
def physics(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when no law of physics that can be seen at work is broken: gravity, energy, momentum, permanence and size.

    In clips where nothing leaves the ground these are few: see on how many each of the laws was measured.
    With an extractor that only answers questions, 1 when it says that the clip follows the laws of the real world.
    """
    if "mask" not in extractor.gives:
        question = Question(text=PHYSICS, claim=Claim(about="physics"))
        return float(extractor.answers(clip.frames, clip.fps, [question])[0] > 0.5)
    told = [value for law in LAWS if (value := _kept(clip, extractor, law)) is not None]
    return float(all(told)) if told else None


@metric("videophy", needs=("prompt",), **{**TOLD, "sees": "wrong_words", "ignores": "synonyms"})
def videophy(clip: Viewing, extractor: Extractor) -> float | None:
    """1 when the clip shows what the prompt asks for and keeps the laws of physics: VideoPhy's headline.

    What is asked for is read as in `prompt_accuracy`, without attributes that the judge cannot tell; an extractor that
    answers questions is asked whether the video entails the prompt.
    """
    kept = physics(clip, extractor=extractor)
    if "mask" in extractor.gives:
        found = rows(clip, extractor)
        right = all(row.right for row in found.values()) if found else None
    else:
        text = f'Does this video entail the description "{asked(clip).text}"?'
        question = Question(text=text, claim=Claim(about="entails", value=asked(clip).text))
        right = bool(extractor.answers(clip.frames, clip.fps, [question])[0] > 0.5)
    return None if kept is None or right is None else float(right and kept == 1)

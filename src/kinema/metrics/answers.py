"""What kinema's own judge answers to questions: yes or no, from what it reads in the clip and where objects are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kinema.metrics.agreement import beyond
from kinema.metrics.asked import judge_of, reading
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.judge import Reading
from kinema.metrics.questions import Claim, Question
from kinema.metrics.still import Path, still_paths
from kinema.metrics.viewing import Viewing
from kinema.world.reading import ReadCaption

UNKNOWN = float("nan")
# The least that has to change, in picture heights and as a factor of size: a third of what the world's events change.
ASIDE, DEEP, LARGER = 0.08, 0.1, 1.25
BACK = 0.25  # of a change, how far it may go back on its way
AT_ONCE = 0.6  # of a change, how much of it may come from one frame to the next
MOST = 0.8  # of the frames in which one object has to be seen to be the same


def answers(clip: Viewing, extractor: Extractor, questions: Sequence[Question]) -> np.ndarray:
    """1 for yes, 0 for no, NaN for what the judge cannot tell; (Q,) float64. See `Extractor.answers`."""
    return np.array([_answer(clip, extractor, question) for question in questions], np.float64)


def _answer(clip: Viewing, extractor: Extractor, question: Question) -> float:
    claim, judge = question.claim, judge_of(extractor)
    if not _tellable(claim, extractor):
        return UNKNOWN
    shown = question.shown(len(clip))
    if claim.about in ("there", "stays"):
        read = [getattr(r, claim.attribute).word for r in judge.read_batch([clip.frames[i : i + 1] for i in shown])]
        return float(all(word == claim.value for word in read))
    if claim.about in ("start", "end", "middle", "course", "same"):
        found = still_paths(clip, extractor)
        return float(holds(claim, found[0] if found else None, shown))
    return float(_read(claim, reading(clip, extractor)))


def _tellable(claim: Claim, extractor: Extractor) -> bool:
    """Whether the judge knows the word, and looks for as many objects."""
    config = judge_of(extractor).config
    if claim.about in ("kind", "colour", "ground", "sky", "camera"):
        empty = ReadCaption(kind=None, colour=None, ground=None, sky=None, events=(), camera=None)
        asked = ReadCaption(**{**vars(empty), claim.about: claim.value})
        return claim.crowd <= config.objects and not beyond(asked, config)
    if claim.about == "event":
        return claim.value in config.events
    return (
        claim.about not in ("physics", "entails") and claim.crowd <= config.objects and claim.value != "change colour"
    )


def _read(claim: Claim, read: Reading) -> bool:
    """Whether what is claimed was read in the whole clip."""
    if claim.about in ("kind", "colour"):
        return claim.value in [getattr(thing, claim.about).word for thing in read.objects]
    if claim.about == "event":
        return [event.word for event in read.events].count(claim.value) > claim.place
    return bool(getattr(read, claim.about).word == claim.value)


def holds(claim: Claim, path: Path | None, shown: Sequence[int]) -> bool:
    """Whether a claim about a change holds for the object's path in the frames `shown`.

    start: the object is there (or not yet, for "appear"). end: it has changed by as much as counts. middle: by a
    quarter of that. course: no step between the frames shown goes back by more than a quarter of the change, and no
    more than 0.6 of it comes at once. same: one object is seen in nearly all frames from the first shown to the last.
    """
    if claim.about == "same":
        shown = range(shown[0], shown[-1] + 1)
    seen = path.seen[list(shown)] if path is not None else np.zeros(len(shown), bool)
    if claim.about == "start":
        return bool(seen[0]) != (claim.value == "appear")
    if claim.value in ("appear", "disappear"):
        return _comes_or_goes(claim, seen)
    if path is None or not seen.any():
        return False
    if claim.about == "same":
        return bool(seen.mean() >= MOST)
    whole = changed(path, claim.value)[shown[0] : shown[-1] + 1]
    steps = whole[np.array(shown) - shown[0]]
    change = steps[-1] - steps[0]
    if claim.about == "middle":
        return bool(change >= 0.25)
    if claim.about == "end":
        return bool(change >= 1)
    smooth = change > 0 and (np.diff(steps) >= -BACK * change).all()
    return bool(smooth and len(whole) > 1 and np.diff(whole).max() <= AT_ONCE * change)


def _comes_or_goes(claim: Claim, seen: np.ndarray) -> bool:
    there = seen if claim.value == "appear" else ~seen
    if claim.about == "course":
        return bool((np.diff(there.astype(int)) >= 0).all() and there[-1] and not there[0])
    if claim.about == "same":
        return bool(np.abs(np.diff(seen.astype(int))).sum() <= 1)
    return bool(there[-1] and not there[0]) if claim.about == "end" else True  # it may come in the second half


def changed(path: Path, word: str) -> np.ndarray:
    """How far an object has changed at each frame, (T,), in units of the least that counts; gaps are bridged."""
    action, _, way = word.partition(" ")
    if way in ("left", "right"):
        values = path.x / ASIDE * (1 if way == "right" else -1)
    elif action in ("grow", "shrink"):
        values = np.log(path.size) / np.log(LARGER) * (1 if action == "grow" else -1)
    else:
        values = path.foot / DEEP * (-1 if way == "away" else 1)
    every, there = np.arange(len(values)), path.seen
    found: np.ndarray = np.interp(every, every[there], values[there])
    return found

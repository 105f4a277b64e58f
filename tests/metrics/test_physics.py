"""Laws of physics: each rule on paths in closed form, and on rendered clips with and without one law broken."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.claims.physics import BREAKS, auc, sample, scores
from kinema.metrics import laws
from kinema.metrics.metric import find
from kinema.metrics.still import Path
from kinema.world.spec import EventSpec, ObjectSpec, SceneSpec

FRAMES = np.arange(25.0)


def path(height=0.0, x=0.0, size=0.2, seen=True) -> Path:
    """An object at a height above the ground, in picture heights."""
    columns = [np.where(seen, np.broadcast_to(v, 25), np.nan) for v in (x, 0.5 - height, 0.6 - height, size)]
    return Path(*(np.array(column, float) for column in columns))


def hops(*tops: float) -> np.ndarray:
    """Parabolas of eight frames one after the other, with these heights."""
    u = (FRAMES % 8) / 8
    height = np.zeros(25)
    for i, top in enumerate(tops):
        height[8 * i : 8 * i + 8] = top * 4 * u[:8] * (1 - u[:8])
    return height


def test_gravity():
    assert laws.floating(path(hops(0.3, 0.2))) < 0.35
    assert laws.floating(path(0.2 * np.clip(FRAMES / 3 - 2, 0, 1))) > 0.9  # rises and stays up there
    assert laws.floating(path(np.clip(0.4 - 0.04 * FRAMES, 0, 1))) > 0.9  # falls at one speed
    assert laws.floating(path()) is None


def test_energy():
    assert laws.energy(path(hops(0.3, 0.2, 0.1))) == pytest.approx(2 / 3 - 1)
    assert laws.energy(path(hops(0.1, 0.2))) == pytest.approx(1)
    assert laws.energy(path(hops(0.3))) is None


def test_momentum():
    assert laws.momentum(path(x=0.02 * FRAMES)) == pytest.approx(0)
    assert laws.momentum(path(x=np.where(FRAMES > 12, 0.3, 0.0))) == pytest.approx(0.3)
    assert laws.momentum(path(seen=FRAMES < 2)) is None


def test_permanence():
    gap = path(seen=(FRAMES < 10) | (FRAMES >= 15))
    nowhere, border = np.zeros(25, bool), np.isin(FRAMES, (9, 15))
    assert laws.missing(gap, nowhere) == 0.2 and laws.missing(gap, border) == 0
    assert laws.missing(gap, FRAMES == 9) == 0.2  # it left over the border and came back from nowhere
    assert laws.missing(path(seen=FRAMES < 20), FRAMES == 19) == 0
    assert laws.missing(path(seen=FRAMES < 0), nowhere) is None


def test_growth():
    none = np.zeros(25, bool)
    assert laws.growth(path(size=0.2 * 2 ** (FRAMES / 24)), none) == pytest.approx(np.log(2))
    assert laws.growth(path(), none) == pytest.approx(0) and laws.growth(path(), ~none) is None


def test_auc():
    assert auc([0, 1], [2, 3]) == 1 and auc([0, 2], [1, 2]) == 0.625 and np.isnan(auc([], [1]))


def scene(action: str, seed: int, **more) -> SceneSpec:
    """One thing by a still camera, in a small picture."""
    thing = ObjectSpec(kind=("ball", "cube", "cone")[seed % 3], colour="red", position=(0.8, 0.0))
    event = EventSpec(action=action, start=0.1, end=2.9, **more)
    return SceneSpec(seed=seed, objects=(thing,), events=(event,), height=96, width=96)


def test_each_rule_tells_broken_laws_on_true_masks():
    specs = [scene("bounce", i) for i in range(3)] + [scene("slide", 3 + i, direction="left") for i in range(3)]
    specs += [scene("fall", 6), scene("jump", 7)]
    found = list(scores(specs))
    for law, faults in BREAKS.items():
        kept = [s.value for s in found if s.law == law and not s.fault and s.value is not None]
        bad = [s.value for s in found if s.law == law and s.fault in faults and s.value is not None]
        assert len(kept) > 1 and len(bad) > 1 and auc(kept, bad) >= 0.95, (law, kept, bad)


def test_an_extractor_that_only_answers_is_asked():
    from kinema.metrics.extractors.extractor import Extractor

    class Says(Extractor):
        name, gives, usual = "says", frozenset({"answers"}), ""

        def answers(self, frames, fps, questions):
            return np.array([0.9 if "physical laws" in q.text else 0.2 for q in questions])

    frames = np.zeros((2, 8, 8, 3), np.uint8)
    assert find("physics")(frames, extractor=Says("")) == 1
    assert find("videophy")(frames, prompt="a ball", extractor=Says("")) == 0  # physical, but something else


def test_the_sample_is_of_the_judges_words():
    assert {len(spec.objects) for spec in sample(5)} == {1}

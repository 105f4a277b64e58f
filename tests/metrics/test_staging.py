"""Readers of where things are and go, on drawn pictures whose answer is known, and on rendered clips."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.claims.bench.scenes import at_rest, drawn, elsewhere, flat, one_goes, thing
from kinema.metrics.extractors.extractor import load_extractor
from kinema.metrics.staging import box_overlap, hues, hues_apart, path_cosine, size_wobble, unchanged
from kinema.metrics.viewing import Viewing

RED, BLUE = (220, 20, 20), (20, 30, 220)


class Marked:
    """Sees what is not grey."""

    name = label = "marked"
    gives = ("mask",)

    def mask(self, frames):
        return (np.ptp(frames.astype(int), axis=-1) > 60).astype(float)


def clip(lefts, tops=None, edges=None, colour=RED, size=64):
    """A square, at these pixels from frame to frame, on grey."""
    tops, edges = tops if tops is not None else [20] * len(lefts), edges if edges is not None else [16] * len(lefts)
    frames = np.full((len(lefts), size, size, 3), 128, np.uint8)
    for frame, left, top, edge in zip(frames, lefts, tops, edges, strict=True):
        frame[top : top + edge, left : left + edge] = colour
    return Viewing(frames, 8.0)


RIGHT, LEFT, DOWN, STILL = range(4, 24, 2), range(24, 4, -2), range(4, 24, 2), [10] * 10


@pytest.mark.parametrize("moves, wanted", [
    (clip(RIGHT), 1.0),
    (clip(range(14, 44, 3), colour=BLUE), 1.0),  # elsewhere, faster, of another colour
    (clip(LEFT), -1.0),
    (clip(STILL, tops=DOWN), 0.0),
    (clip(RIGHT, tops=DOWN), 2**-0.5),
    (clip(STILL), 0.0),
    (Viewing(np.full((10, 64, 64, 3), 128, np.uint8), 8.0), 0.0),  # nothing there
])  # fmt: skip
def test_the_way_of_a_thing_counts_and_nothing_else(moves, wanted):
    assert path_cosine(moves, clip(RIGHT), Marked()) == pytest.approx(wanted, abs=0.01)


def test_a_reference_at_rest_shows_no_way():
    assert path_cosine(clip(RIGHT), clip(STILL), Marked()) is None
    jitter = clip([10, 11] * 5)  # half a pixel to both sides of its mean place: no way, however it agrees
    assert abs(path_cosine(jitter, clip([10, 14] * 5), Marked())) < 0.9


def test_boxes_beside_planned_ones():
    planned = np.tile([10 / 64, 20 / 64, 26 / 64, 36 / 64], (1, 10, 1))
    assert box_overlap(clip(STILL), planned, Marked()) == 1.0
    assert box_overlap(clip([18] * 10), planned, Marked()) == pytest.approx(1 / 3)  # half of it
    two = clip(STILL)
    two.frames[:, 44:60, 44:60] = BLUE
    assert box_overlap(two, planned, Marked()) == 0.5


def test_steady_growth_is_no_wobble():
    growing = clip([4] * 6, tops=[4] * 6, edges=[8, 10, 13, 16, 20, 25])  # by a quarter each time
    trembling = clip([4] * 6, tops=[4] * 6, edges=[16, 20, 16, 20, 16, 20])
    assert size_wobble(clip(RIGHT), Marked()) == 0.0
    assert size_wobble(growing, Marked()) < 0.12
    assert size_wobble(trembling, Marked()) == pytest.approx(2 * np.log2(20 / 16))
    assert size_wobble(clip([0] * 6), Marked()) is None  # at the border all the time


def test_hues_of_shots():
    red, blue = clip(STILL), clip(STILL, colour=BLUE)
    assert hues_apart([red, clip(RIGHT)], Marked()) == 0.0
    assert hues_apart([red, blue], Marked()) == 1.0
    assert hues_apart([red, red, blue], Marked()) == pytest.approx(2 / 3)
    assert hues_apart([red], Marked()) is None
    assert hues(np.full((4, 3), 90, np.uint8)) is None
    assert hues(np.array([[255, 0, 0]], np.uint8)).tolist() == [1.0] + [0.0] * 11
    assert hues(np.array([[0, 0, 255]], np.uint8)).argmax() == 8


def test_pixels_that_are_still_the_sketch():
    sketch = np.full((2, 4, 4, 3), 100, np.uint8)
    made = sketch.copy()
    made[0, :2, :, 1] += 3
    assert unchanged(made, sketch, within=2) == 0.75 and unchanged(made, sketch, within=3) == 1.0
    assert unchanged(255 - sketch, sketch, within=54) == 0.0  # bytes do not wrap


def test_on_rendered_scenes():
    world = load_extractor("world")
    (spec,) = one_goes(1, ("left",))
    real, rough = Viewing(drawn(spec)[0], 8.0), drawn(spec)[1] > 0
    (other,) = one_goes(1, ("right",))
    assert path_cosine(real, Viewing(drawn(other)[0], 8.0), world) < -0.8
    planned = np.array([[(c.min(), r.min(), c.max() + 1, r.max() + 1) for r, c in map(np.nonzero, rough)]]) / 128
    assert box_overlap(real, planned, world) > 0.8
    assert size_wobble(real, world) < 0.1
    assert len(np.unique(flat(spec).reshape(-1, 3), axis=0)) == 3
    assert thing(spec) in at_rest(spec)
    specs = one_goes(3)
    assert all(elsewhere(specs, i).objects[0].kind != spec.objects[0].kind for i, spec in enumerate(specs))

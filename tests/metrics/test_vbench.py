"""VBench's dimensions on values that can be worked out by hand, and the totals of a published row."""

from __future__ import annotations

import numpy as np
import pytest
from clips import world_clips

from kinema.metrics.extractors.extractor import Box, Extractor, load_extractor
from kinema.metrics.metric import Metric, metrics
from kinema.metrics.vbench.claims import (
    Relation,
    asked_action,
    asked_colour,
    asked_place,
    asked_relation,
    asked_style,
    asked_things,
)
from kinema.metrics.vbench.color import color
from kinema.metrics.vbench.consistency import consistency
from kinema.metrics.vbench.dynamic_degree import dynamic_degree, is_dynamic, pairs_needed, threshold
from kinema.metrics.vbench.human_action import is_hit
from kinema.metrics.vbench.likeness import cosine
from kinema.metrics.vbench.motion_smoothness import half_way, motion_smoothness, smoothness
from kinema.metrics.vbench.multiple_objects import multiple_objects
from kinema.metrics.vbench.object_class import object_class
from kinema.metrics.vbench.sampling import middles
from kinema.metrics.vbench.scene import scene
from kinema.metrics.vbench.spatial_relationship import beside, signed_spatial_relationship, spatial_relationship
from kinema.metrics.vbench.temporal_flickering import temporal_flickering
from kinema.metrics.vbench.total import DIMENSIONS, OFFICIAL, Totals, totals
from kinema.metrics.viewing import Viewing

STILL = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
# VideoCrafter2 on the leaderboard, percent, in the order of DIMENSIONS.
ROW = (96.85, 98.22, 98.41, 97.73, 42.50, 63.13, 67.22, 92.55, 40.66, 95.00, 92.92, 35.86, 55.29, 25.13, 25.84, 28.23)


def asking(prompt: str | None, count: int = 16, **auxiliary) -> Viewing:
    return Viewing(np.zeros((count, 20, 40, 3), np.uint8), prompt=prompt, auxiliary=auxiliary or None)


class Told(Extractor):
    """Finds in each frame what the test says."""

    name, gives, usual = "told", frozenset(("boxes", "captions")), ""

    def __init__(self, frames, captions=()):
        super().__init__("")
        self.found, self.said, self.phrases = frames, list(captions), ()

    def boxes(self, frames, phrases):
        self.phrases = phrases
        return [[box for box in found if box.phrase in phrases] for found in self.found]

    def captions(self, frames):
        return self.said


def box(phrase: str, x: float = 0, y: float = 0, score: float = 1.0) -> Box:
    return Box(phrase, (x, y, x + 10, y + 10), score)


def test_the_totals_of_a_published_row():
    means = dict(zip(DIMENSIONS, np.array(ROW) / 100, strict=True))
    found = totals(means)
    assert [round(100 * value, 2) for value in (found.quality, found.semantic, found.total)] == [82.20, 73.42, 80.44]
    assert totals(means | {"vbench_scene": None}) == Totals(found.quality, None, None)
    assert totals({}) == Totals(None, None, None)


def test_sixteen_dimensions_are_metrics_by_these_names():
    known = metrics()
    assert {name for name in known if name.startswith("vbench_")} == set(DIMENSIONS) and len(DIMENSIONS) == 16
    assert all(isinstance(known[name], Metric) for name in DIMENSIONS) and set(OFFICIAL) < set(DIMENSIONS)


def test_frames_are_the_middles_of_equal_parts():
    assert middles(49, 16).tolist() == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46]
    assert middles(16, 8).tolist() == [0, 2, 4, 6, 8, 10, 12, 14] and middles(3, 5).tolist() == [0, 1, 2, 2, 2]


def test_consistency_of_vectors():
    assert consistency(np.ones((4, 3))) == consistency(np.zeros((4, 3))) == 1
    east, north = np.array([1.0, 0]), np.array([0, 2.0])
    assert consistency(np.stack([east, north])) == 0
    assert consistency(np.stack([east, -east])) == 0  # no cosine counts below 0
    # to the frame before 1/sqrt2, 0, and to the first 1/sqrt2, -1/sqrt2 which counts 0
    assert consistency(np.stack([east, east + north / 2, -east + north / 2])) == pytest.approx(np.sqrt(0.5) / 2)


def test_still_and_alternating_clips():
    still = Viewing(np.stack([STILL] * 9))
    assert temporal_flickering(still) == 1 and motion_smoothness(still) == 1 and dynamic_degree(still) == 0
    black_and_white = np.zeros((6, 32, 48, 3), np.uint8)
    black_and_white[1::2] = 255
    assert temporal_flickering(black_and_white) == 0
    assert motion_smoothness(black_and_white) == 0  # between two black frames black is made
    assert temporal_flickering(STILL[None]) is None and motion_smoothness(still.frames[:2]) is None


def test_frames_made_half_way():
    grey = np.full((16, 16, 3), 100, np.uint8)
    none = np.zeros((16, 16, 2), np.float32)
    assert (half_way(grey, grey + 10, none, none) == 105).all()
    bars = np.broadcast_to(np.random.default_rng(2).integers(0, 256, (1, 16, 1), dtype=np.uint8), (16, 16, 3))
    right = np.zeros((16, 16, 2), np.float32)
    right[..., 0] = 4  # what is at x goes to x + 4: both frames warp to the bars moved by 2
    made = half_way(bars, np.roll(bars, 4, 1), right, -right)
    np.testing.assert_array_equal(made[:, 6:14], np.roll(bars, 2, 1)[:, 6:14])
    assert smoothness(np.stack([grey, grey + 51, grey]), grey[None]) == pytest.approx(0.8)


def test_how_much_has_to_move():
    assert threshold(480, 854) == 11.25 and pairs_needed(49) == 12 and pairs_needed(2) == 1
    flow = np.zeros((48, 48, 64, 2), np.float32)  # threshold 1.125
    flow[:11, :4, :, 1] = 1.2  # 8% of the pixels, in 11 pairs
    assert not is_dynamic(flow)
    flow[40, :4, :, 0] = -1.2
    assert is_dynamic(flow)
    flow[40, :4, :, 0] = -1.1
    assert not is_dynamic(flow)


def test_dynamic_degree_looks_at_eight_frames_a_second():
    rows = np.random.default_rng(1).integers(0, 256, (80, 64), dtype=np.uint8)
    smooth = np.repeat(np.repeat(rows, 4, 0), 4, 1)[..., None].repeat(3, -1)
    moving = np.stack([smooth[:128, t : t + 128] for t in range(0, 60, 2)])  # 2 pixels a frame, 3 is the threshold
    assert dynamic_degree(Viewing(moving, fps=8)) == 0 and dynamic_degree(Viewing(moving, fps=24)) == 1


def test_beside_is_about_centres_and_overlap():
    a, right, wide = (0, 0, 10, 10), (20, 0, 30, 10), (5, 0, 15, 10)
    assert beside(a, "left", right) == beside(a, "right", right) == 1 and beside(a, "top", right) == 0
    assert beside(a, "left", wide) == pytest.approx(0.1 / (50 / 150))
    assert beside(a, "left", right, signed=True) == 1 and beside(a, "right", right, signed=True) == 0
    assert beside((0, 0, 9, 9), "top", (3, 30, 9, 40), signed=True) == 1
    assert beside(a, "left", (20, 20, 30, 30)) == 0  # as far down as to the right


def test_what_prompts_ask_for():
    assert asked_things(asking("a bird and a cat")) == ("bird", "cat") and asked_things(asking("a person")) == (
        "person",
    )
    assert asked_things(asking(None, object_class={"object": "stop sign"})) == ("stop sign",)
    assert asked_things(asking("a dog", multiple_objects={"object": "dog and  horse"})) == ("dog", "horse")
    assert asked_colour(asking("a red bicycle")) == ("red", "bicycle") and asked_colour(asking("a bicycle")) is None
    assert asked_colour(asking("an orange traffic light", color={"color": "orange"})) == ("orange", "traffic light")
    told = {"spatial_relationship": {"object_a": "bicycle", "object_b": "car", "relationship": "on the left of"}}
    assert asked_relation(asking("x", spatial_relationship=told)) == Relation("bicycle", "left", "car")
    assert asked_relation(asking("an oven on the top of a toaster, front view")) == Relation("oven", "top", "toaster")
    world = asking("A red ball jumps on the sand, with a blue cube to the left of the red ball.")
    assert asked_relation(world) == Relation("blue cube", "left", "red ball")
    assert asked_things(asking("a red ball rolls on the grass")) == ("ball",)
    assert asked_place(asking("alley")) == "alley" and asked_place(asking("a dog runs fast here")) is None
    assert asked_place(asking("x y z v", scene={"scene": {"scene": "train railway"}})) == "train railway"
    assert asked_place(asking("A red ball jumps on the sand at night")) == "sand night"
    assert asked_action(asking("A person is riding a bike")) == "riding a bike"
    assert asked_action(asking("a red ball rolls to the left on the grass, then bounces")) == "move left"
    assert asked_style(asking("A boat on the river, Van Gogh style")) == "Van Gogh style"
    assert asked_style(asking("A red ball jumps, the camera stays still")) is None


def test_things_are_counted_by_frames():
    frames = [[box("cat")]] * 6 + [[box("cat"), box("dog")]] * 4 + [[]] * 6
    told = Told(frames)
    assert object_class(asking("a cat"), extractor=told) == 10 / 16
    assert multiple_objects(asking("a cat and a dog"), extractor=told) == 4 / 16
    assert multiple_objects(asking("a cat and a cat"), extractor=told) == 0  # there is only one
    assert multiple_objects(asking("a cat"), extractor=told) is None


def test_colours_have_only_frames_with_the_thing_below():
    frames = [[box("red car")]] * 3 + [[box("red car", score=0.4), box("blue car", score=0.6)]] + [[]] * 12
    told = Told(frames)
    assert color(asking("a red car"), extractor=told) == 3 / 4 and "silver car" in told.phrases
    assert color(asking("a red car"), extractor=Told([[]] * 16)) is None
    assert color(asking("a car"), extractor=told) is None


def test_relations_with_and_without_their_side():
    frames = [[box("car", 30), box("bus", 0)]] * 8 + [[box("bus", 0), box("bus", 30)]] * 4 + [[box("car")]] * 4
    left = asking("a car on the left of a bus, front view")
    assert spatial_relationship(left, extractor=Told(frames)) == 12 / 16  # two of one kind are a pair as well
    assert signed_spatial_relationship(left, extractor=Told(frames)) == 0
    right = asking("a car on the right of a bus, front view")
    assert signed_spatial_relationship(right, extractor=Told(frames)) == 8 / 16


def test_scenes_are_words_in_captions():
    told = Told([], ["a dark alley at night"] * 4 + ["a valley"] * 4 + ["a street"] * 8)
    assert scene(asking("alley"), extractor=told) == 8 / 16  # as VBench finds it: "valley" holds "alley"
    assert scene(asking("dark alley"), extractor=told) == 4 / 16


def test_an_action_is_sure_and_among_five():
    odds = np.array([3, 2, 5, 4, 6, 7], np.float32)
    assert is_hit(odds, 0) and not is_hit(odds, 1)  # the sixth
    assert is_hit(np.array([1.735, 0]), 0) and not is_hit(np.array([1.72, 0]), 0)  # sigmoid 0.85


def test_cosines():
    rows = np.array([[3.0, 4.0], [0, 0], [-4, 3]])
    np.testing.assert_allclose(cosine(rows, np.array([3.0, 4.0])), [1, 0, 0], atol=1e-12)


def test_the_world_reads_its_own_clips():
    clip, extractor = world_clips(2)[1], load_extractor("world")
    assert object_class(clip, extractor=extractor) >= 0.9 and color(clip, extractor=extractor) >= 0.9
    other = clip.but(prompt="a green cone jumps on the snow at sunset")
    assert object_class(other, extractor=extractor) == 0 == scene(other, extractor=extractor)
    assert object_class(clip.but(prompt="a dog"), extractor=extractor) is None  # no word of the world

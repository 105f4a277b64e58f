"""What a prompt asks for beside what is read: accuracies, order, times, transitions, and the corruptions of prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from clips import world_clips

from kinema.core.errors import KinemaError
from kinema.metrics.answers import holds
from kinema.metrics.asked import Span, parse
from kinema.metrics.corruptions.prompt import say, synonyms, wrong_order, wrong_times, wrong_words
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import find
from kinema.metrics.prompt import event_timing
from kinema.metrics.prompt.clipsim import cosines
from kinema.metrics.prompt.event_order import pairs_in_order
from kinema.metrics.prompt.event_timing import iou, matched, precision_recall
from kinema.metrics.prompt.transitions import completed, mean_answer
from kinema.metrics.questions import Claim
from kinema.metrics.still import Path, camera_at
from kinema.metrics.transitions import transitions
from kinema.metrics.viewing import Viewing
from kinema.world.caption import timed_caption
from kinema.world.reading import parse_caption
from kinema.world.sample import sample_spec

ACCURACIES = [f"{name}_accuracy" for name in ("kind", "colour", "ground", "sky", "event", "camera", "prompt")]
TIMED = "0-1.5s: a red ball bounces on the grass | 1.5-3s: it rolls to the left, the camera stays still"


def test_rendered_clips_are_what_their_prompts_ask_for():
    clips = world_clips(4)
    for name in [*ACCURACIES, "t2v_alignment", "event_order", "event_f1"]:
        values = [value for clip in clips if (value := find(name)(clip)) is not None]
        assert values and np.mean(values) == 1, name


def test_a_wrong_word_is_seen_by_its_own_accuracy_only():
    clip = world_clips(1)[0]
    blue = clip.but(prompt=clip.prompt.replace("yellow", "blue"))
    wrong = [name for name in ACCURACIES if find(name)(blue) == 0]
    assert wrong == ["colour_accuracy", "prompt_accuracy"]


def test_what_is_not_asked_or_cannot_be_told_is_not_measured():
    clip = world_clips(1)[0].but(prompt="a ball and a cube on the grass")
    found = {name: find(name)(clip) for name in ACCURACIES}
    assert found.pop("ground_accuracy") == 0 and set(found.values()) == {None}  # two objects are beyond the judge
    with pytest.raises(KinemaError, match="reads no objects and events"):
        find("kind_accuracy")(clip, extractor="dis")


def test_times_are_read_from_the_prompt():
    asked = parse(TIMED)
    assert asked.spans == (Span("bounce", 0, 1.5), Span("move left", 1.5, 3))
    assert asked.words == parse_caption("a red ball bounces on the grass, then rolls left, the camera stays still")
    both = parse("[0%:50%] a ball bounces | [25%:100%] meanwhile it grows", seconds=3.0, fps=8.0)
    assert both.spans == (Span("bounce", 0, 1.5), Span("grow", 0.75, 3))
    assert parse("[0:12] a ball bounces", 3.0, 8.0).spans == (Span("bounce", 0, 1.5),)
    untimed = parse("a ball jumps, then grows")
    assert untimed.spans == () and untimed.shares(3.0) == (Span("jump", 0, 1.5), Span("grow", 1.5, 3))
    with pytest.raises(KinemaError, match="column 1: the event 'a ball jumps' lasts from 2 to 1"):
        parse("2-1s: a ball jumps")


@pytest.mark.parametrize("seed", range(40))
def test_a_timed_caption_says_what_the_scene_is(seed):
    spec = sample_spec(seed, "full")
    words = parse(timed_caption(spec)).words
    assert words.events == tuple(e.label for e in spec.events) and words.camera == spec.camera.move
    assert (words.ground, words.sky, words.objects[0].kind) == (spec.ground, spec.sky, spec.objects[0].kind)


def test_order_is_the_share_of_pairs():
    assert pairs_in_order(["a", "b", "c"], ["a", "b", "c"]) == 1
    assert pairs_in_order(["a", "b", "c"], ["a", "c", "b"]) == pytest.approx(2 / 3)
    assert pairs_in_order(["a", "b", "c"], ["c", "b", "a"]) == 0
    assert pairs_in_order(["a", "b"], ["b"]) == 0 and pairs_in_order(["a"], ["a"]) is None
    assert pairs_in_order(["a", "b", "a"], ["a", "b"]) == pytest.approx(1 / 3)  # the second a is missing


def test_times_in_closed_form():
    assert iou(Span("a", 0, 10), Span("a", 5, 15)) == pytest.approx(1 / 3)
    assert iou(Span("a", 0, 1), Span("a", 2, 3)) == 0
    found = [Span("a", 0, 3.1), Span("a", 4, 5)]
    assert precision_recall([Span("a", 0, 3)], found) == (0.5, 1.0)
    assert precision_recall([Span("b", 0, 3)], found) == (0.0, 0.0) == precision_recall([], [])
    assert [b for _, b in matched([Span("a", 0, 1), Span("b", 1, 2), Span("a", 2, 3)], found)] == [
        found[0],
        None,
        found[1],
    ]


def test_event_metrics_in_closed_form(monkeypatch):
    """Of two events asked for one is found, a little off, and two that nobody asked for."""
    found = [Span("bounce", 0.3, 1.6), Span("fall", 1.6, 2), Span("grow", 2, 3)]
    monkeypatch.setattr(event_timing, "event_times", lambda clip, extractor: found)
    clip = world_clips(1)[0].but(prompt=TIMED)
    wanted = dict(event_start_error=0.3, event_end_error=0.1, event_iou=0.75 / 2, event_f1=2 / (3 + 2))
    assert {name: find(name)(clip) for name in wanted} == pytest.approx(wanted)
    monkeypatch.setattr(event_timing, "event_times", lambda clip, extractor: found[1:])
    assert [find(name)(clip) for name in wanted] == [None, None, 0, 0]


def test_event_times_are_near_those_of_the_scene():
    clips = [clip for clip in world_clips(4) if parse(clip.prompt).spans]
    for name, most in (("event_start_error", 0.2), ("event_end_error", 0.2)):
        assert np.mean([find(name)(clip) for clip in clips]) < most
    assert np.mean([find("event_iou")(clip) for clip in clips]) > 0.8
    assert find("event_start_error")(world_clips(1)[0]) is None  # its prompt says no times


def test_completed_counts_all_answers_but_those_on_presence():
    presence = [False, False, True]
    assert completed([1, 1, 0], presence) == 1 and completed([1, 0, 1], presence) == 0
    assert completed([1, 0.5, 1], presence) == 0 and completed([1, 0.5, 1], presence, unclear=True) == 1
    assert completed([1, math.nan, 1], presence) == 1 and completed([math.nan, math.nan, 1], presence) is None
    assert mean_answer([1, 0.5, 0, math.nan]) == 0.5 and mean_answer([math.nan]) is None


def test_questions_on_transitions_have_the_clock_of_their_event():
    found = transitions(parse(TIMED), 3.0)
    assert [q.frames for q in found[:4]] == [(1,), (1, 16), (1, 9), (1, 5, 9, 13, 16)]
    assert [q.frames for q in found[4:]] == [(1, 6), (1, 11), (1, 16), (1,), (1, 6, 11, 16)]
    assert {q.span for q in found[:7]} == {(0.5, 1.0)} and [q.presence for q in found] == [False] * 7 + [True] * 2
    assert found[1].text == "Is the red ball further to the left in the second picture, compared with the first?"
    assert transitions(parse("a red ball jumps"), 3.0) == []


def moved(x: np.ndarray) -> Path:
    still = np.full(len(x), 0.5)
    return Path(x, still, still, np.full(len(x), 0.2))


def test_claims_on_a_path():
    course, end = (Claim(about=about, value="move right") for about in ("course", "end"))
    five, ends, steady = [0, 4, 8, 12, 15], [0, 15], np.linspace(0, 0.3, 16)
    assert holds(course, moved(steady), five) and holds(end, moved(steady), ends)
    assert not holds(course, moved(steady[::-1]), five) and not holds(end, moved(steady[::-1]), ends)
    cut = np.where(np.arange(16) < 8, 0, 0.3)  # a hard cut from the start to the end
    assert holds(end, moved(cut), ends) and not holds(course, moved(cut), five)
    assert not holds(end, moved(steady / 5), ends)  # too little
    assert not holds(end, None, ends)
    gone = np.where(np.arange(16) < 10, 0.1, np.nan)
    assert holds(Claim(about="end", value="disappear"), moved(gone), ends)
    same, back = (
        Claim(about="same", value="move right"),
        moved(np.where((steady > 0.1) & (steady < 0.2), np.nan, steady)),
    )
    assert holds(same, moved(steady), ends) and not holds(same, moved(gone), ends)
    assert not holds(same, back, ends)  # it is away in between


def test_transitions_complete_forwards_only():
    clip = world_clips(4)[3]  # jumps, then slides to the left
    completion, score = find("transition_completion"), find("tc_score")
    assert completion(clip) == 1 and score(clip) == 1
    half = np.minimum(np.arange(25), 12)
    for frames in (clip.frames[half], clip.frames[::-1].copy()):
        assert completion(clip.but(frames=frames)) == 0 and 0.3 < score(clip.but(frames=frames)) < 1
    assert completion(clip.but(prompt="a cylinder jumps")) is None


def test_a_camera_is_told_by_its_affine_motion():
    y, x = np.mgrid[:40, :60] + 0.5
    zoom = np.stack([0.05 * (x - 30) + 2, 0.05 * (y - 20) - 1], -1)
    zoom[:5] = 30  # what moves by itself does not count
    shift, grown = camera_at(zoom, np.ones((40, 60), bool), 40.0, 30.0)
    assert shift == pytest.approx([0.05 * 10 + 2, 0.05 * 10 - 1], abs=0.02) and grown == pytest.approx(1.05, abs=1e-3)


def test_prompts_are_reworded_and_falsified_as_said():
    clip = world_clips(1)[0].but(prompt=TIMED)
    words = parse(TIMED).words
    again = synonyms(clip, 1.0)
    assert again.prompt != TIMED and parse(again.prompt).words == words and parse(again.prompt).spans
    wrong = parse(wrong_words(clip, 1.0).prompt).words
    assert all(getattr(wrong, name) != getattr(words, name) for name in ("kind", "colour", "ground", "camera"))
    assert not set(wrong.events) & set(words.events)
    one = parse(wrong_words(clip, 1 / 6).prompt).words
    assert sum(getattr(one, name) != getattr(words, name) for name in vars(words) if name != "objects") == 1
    later = parse(wrong_times(clip, 1.0).prompt).spans
    assert [s.start for s in later] == pytest.approx([clip.seconds / 2, 1.5 + clip.seconds / 2], abs=1e-3)
    assert parse(wrong_order(clip, 1.0).prompt).words.events == words.events[::-1]
    nothing = clip.but(prompt="what a wonderful world")
    assert wrong_words(nothing, 1.0) is nothing and say(words).startswith("a red ball bounces on the grass")


def test_cosines():
    vectors = np.array([[1.0, 0], [0, 2], [-3, 0], [0, 0]])
    assert cosines(vectors, np.array([2.0, 0])).tolist() == [1, 0, -1, 0]


class Turning(Extractor):
    """Frames that turn by as many degrees as their first pixel's grey level says, from every sentence at 0."""

    name, gives, usual = "turning", frozenset({"frames", "text"}), ""

    def frames(self, frames):
        angle = np.deg2rad(frames[:, 0, 0, 0].astype(np.float32))
        return 3 * np.stack([np.cos(angle), np.sin(angle)], -1)

    def text(self, prompt):
        self.said = prompt
        return np.array([2.0, 0], np.float32)


def test_clipsim_is_the_mean_cosine_with_the_words_alone():
    frames, turning = np.zeros((3, 8, 8, 3), np.uint8), Turning("")
    frames[1], frames[2] = 60, 90
    assert find("clipsim")(Viewing(frames, prompt=TIMED), extractor=turning) == pytest.approx(0.5, abs=1e-6)
    assert turning.said == parse(TIMED).text and "1.5s" not in turning.said
    styled = Viewing(frames, prompt="A boat on the river, Van Gogh style")
    assert find("vbench_appearance_style")(styled, extractor=turning) == pytest.approx(0.5, abs=1e-6)
    assert turning.said == "Van Gogh style"
    assert find("vbench_appearance_style")(styled.but(prompt="A boat"), extractor=turning) is None

"""What kinema sees in clips: masks, nearness, tracks of objects, times of events; and what ships reaches its bars."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from kinema.claims.clips import scenes
from kinema.claims.sight import agreement, box_iou, measure
from kinema.core.errors import KinemaError
from kinema.metrics.event_times import EventTimer, TimedEvent, TimesConfig, TimesNet, as_one, event_times, fingerprint
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.extractors.world import World
from kinema.metrics.judge import Judge, JudgeNet
from kinema.metrics.objects import colour_word, objects, tracks
from kinema.metrics.sight import Sight, SightConfig, SightNet
from kinema.metrics.viewing import Viewing
from kinema.training import event_times as times_training
from kinema.training import sight as training
from kinema.training.judge import NetSettings, words_of
from kinema.training.trainer import TrainerSettings, seeded
from kinema.world.curricula import get_curriculum
from kinema.world.look import SKY_LOOKS
from kinema.world.sample import sample_spec
from kinema.world.truth import mask_boxes
from kinema.world.vocabulary import COLOURS

TINY = dict(size=32, channels=(8, 16, 16))


class True_(Extractor):
    """Gives the masks it is told."""

    name, gives, usual = "true", frozenset({"mask"}), ""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__("")
        self.found = mask.astype(np.float32)

    def mask(self, frames: np.ndarray) -> np.ndarray:
        return self.found


@pytest.fixture(scope="module")
def tiny() -> Sight:
    torch.manual_seed(0)
    return Sight(SightNet(SightConfig(**TINY)))


@pytest.fixture(scope="module")
def stage() -> training.SightStage:
    trainer = TrainerSettings(steps=1, batch_size=4, precision="fp32")
    net = training.NetSettings(**TINY)
    return training.SightStage(
        training.SightSettings(trainer=trainer, net=net, shapes=((32, 32),), worse_share=0.0, bent_share=1.0)
    )


def noise(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("height, width", [(8, 8), (20, 50), (130, 70), (8, 300)])
def test_sees_any_size_frame_by_frame(tiny: Sight, height: int, width: int) -> None:
    frames = noise(3, height, width)
    mask, near = tiny.see(frames)
    assert mask.shape == near.shape == (3, height, width) and mask.dtype == near.dtype == np.float32
    assert 0 <= mask.min() <= mask.max() <= 1 and near.min() >= 0
    alone = tiny.see(frames[2:])[0]
    np.testing.assert_allclose(alone[0], mask[2], atol=1e-5)
    np.testing.assert_allclose(tiny.see(frames[::-1])[0], mask[::-1], atol=1e-5)


def test_looks_at_nearly_the_shape_of_the_picture() -> None:
    config = SightConfig()
    assert config.shape(128, 128) == (128, 128) and config.shape(480, 832) == (80, 128)
    assert config.shape(2, 1000) == (16, 128)
    with pytest.raises(ValueError, match="use a multiple of 16"):
        SightConfig(size=100)


def test_saved_and_loaded_is_the_same_bit_for_bit(tiny: Sight, tmp_path) -> None:
    tiny.save(tmp_path / "a")
    once = Sight.load(tmp_path / "a")
    once.save(tmp_path / "b")
    for name in ("model.safetensors", "config.json", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with pytest.raises(KinemaError, match=r"has no config\.json; make it with `kinema train sight"):
        Sight.load(tmp_path)
    (tmp_path / "a" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(KinemaError, match="is damaged"):
        Sight.load(tmp_path / "a")


def test_answers_are_mirrored_and_bent_with_the_picture(stage: training.SightStage) -> None:
    batch = stage.batch(0, seeded(0, 0, 0))
    batch["frames"] = (batch["mask"][..., None] * 255).expand(*batch["mask"].shape, 3).to(torch.uint8)
    picture, mask, _ = stage.prepare(batch, seeded(0, 1, 0))
    torch.testing.assert_close(picture, mask[:, None].expand_as(picture), atol=1e-5, rtol=0)
    assert not torch.equal(mask, batch["mask"].flatten(0, 1).float())


def test_the_truth_is_near_below_and_away_above(stage: training.SightStage) -> None:
    batch = stage.batch(3, seeded(0, 0, 3))
    near = batch["near"].flatten(0, 1)
    assert near[:, -1].min() > near[:, 0].max() and near.min() == 0 and batch["mask"].any()


def test_a_tiny_network_learns_a_batch_by_heart(stage: training.SightStage) -> None:
    settings = replace(stage.settings, bent_share=0.0)
    learner = training.SightStage(settings)
    batch = learner.batch(0, seeded(0, 0, 0))
    optimizer = torch.optim.AdamW(learner.net.parameters(), lr=5e-3)
    found = []
    for _ in range(120):
        loss, numbers = learner.loss(batch, seeded(0, 1, 0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append((float(loss.detach()), float(numbers["iou"])))
    assert found[-1][0] < 0.3 * found[0][0] and found[-1][1] > 0.7


def test_objects_of_true_masks_have_the_true_boxes() -> None:
    for clip in scenes(3, truth=True):
        frames, mask = clip.frames.numpy(), clip.mask.numpy()
        (only,) = objects(Viewing(frames), True_(mask > 0))
        boxes = mask_boxes(clip.mask[None], 1)[0, :, 0].double().numpy()
        np.testing.assert_array_equal(only.boxes[only.seen], boxes[only.seen])
        np.testing.assert_array_equal(only.mask, mask == 1)
        assert only.word == clip.spec.objects[0].colour
        rows, columns = np.nonzero(mask[0] == 1)
        np.testing.assert_allclose(only.centre[0], [columns.mean() + 0.5, rows.mean() + 0.5])


def crossing(count: int = 20, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A red disc goes right and a smaller blue one left, past each other; and a speck."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    frames, mask = np.full((count, size, size, 3), 90, dtype=np.uint8), np.zeros((count, size, size), dtype=np.int64)
    for t in range(count):
        for i, (x, y, r, colour) in enumerate(
            ((10 + 2.2 * t, 30, 9, (200, 20, 20)), (54 - 2.2 * t, 34, 6, (25, 60, 210)))
        ):
            there = np.hypot(columns - x, rows - y) < r
            frames[t][there], mask[t][there] = colour, i + 1
        mask[t, 60, 60] = 3
    return frames, mask


def test_objects_that_cross_keep_their_names_and_specks_are_dropped() -> None:
    frames, mask = crossing()
    red, blue = tracks(frames, mask > 0)
    assert (red.word, blue.word) == ("red", "blue")
    assert red.area.sum() > blue.area.sum() and red.seen.all() and blue.seen.all()
    for track, number in ((red, 1), (blue, 2)):
        iou = (track.mask & (mask == number)).sum() / (track.mask | (mask == number)).sum()
        assert iou > 0.9
    assert (np.diff(red.centre[:, 0]) > 0).all() and (np.diff(blue.centre[:, 0]) < 0).all()


def test_an_object_that_is_hidden_for_a_while_is_the_same_after() -> None:
    frames, mask = crossing()
    mask[mask != 1] = 0
    mask[8:11] = 0
    (red,) = tracks(frames, mask > 0)
    assert red.seen.tolist() == [not 8 <= t < 11 for t in range(20)] and np.isnan(red.boxes[9]).all()
    assert tracks(frames, np.zeros_like(mask, dtype=bool)) == []


@pytest.mark.parametrize("word", COLOURS)
@pytest.mark.parametrize("sky", SKY_LOOKS)
def test_colours_are_told_in_any_light(word: str, sky: str) -> None:
    light = SKY_LOOKS[sky]
    facing = np.linspace(0, 0.9, 50)[:, None]  # from the shaded side to the lit one
    assert colour_word(np.array(COLOURS[word]) * (0.9 * np.array(light.ambient) + facing * light.direct)) == word


def test_times_of_scenes_and_moved_events() -> None:
    specs = [sample_spec(seed, "first", "train") for seed in range(40)]
    rows = times_training.times(specs, 2)
    for spec, row in zip(specs, rows, strict=True):
        assert row[0, 0] == pytest.approx(min(e.start for e in spec.events) / 3.0)  # 25 frames, 8 a second
        assert bool(row[1].isnan().all()) == (len(spec.events) == 1)
        after = times_training.retimed(spec, random.Random(1))
        spans = [(e.start, e.end) for e in after.events]
        assert spans[0][0] >= 0 and spans[-1][1] <= 3.001
        assert all(a < b for a, b in spans) and all(a[1] <= b[0] + 1e-3 for a, b in pairwise(spans))
        assert [e.label for e in after.events] == [e.label for e in sorted(spec.events, key=lambda e: e.start)]


def test_the_same_event_twice_in_a_row_is_one() -> None:
    rolls = [TimedEvent("move left", 0.1, 1.0, 0.6), TimedEvent("move left", 1.2, 2.0, 0.9)]
    assert as_one(rolls) == [TimedEvent("move left", 0.1, 2.0, 0.9)]
    apart = [rolls[0], TimedEvent("jump", 1.0, 1.2, 0.5), rolls[1]]
    assert as_one(apart) == apart


def test_event_times_belong_to_one_judge_and_survive_saving(tmp_path) -> None:
    small = NetSettings(frames=5, size=32, channels=(8, 8, 16), width=16, layers=1, heads=2)
    torch.manual_seed(0)
    judge = Judge(JudgeNet(words_of(get_curriculum("first"), small)))
    net = TimesNet(TimesConfig(judge=fingerprint(judge.net), tokens=16, events=len(judge.config.events), width=8))
    timer = EventTimer(net, judge)
    timer.save(tmp_path)
    again = EventTimer.load(judge, tmp_path)
    clips = [noise(9, 40, 40), noise(6, 20, 30)]
    assert again.read(clips, 8.0) == EventTimer.load(judge, tmp_path).read(clips, 8.0)
    for clip, events in zip(clips, timer.read(clips, 8.0), strict=True):
        assert all(0 <= e.start <= e.end <= (len(clip) - 1) / 8 for e in events)
    with torch.no_grad():
        judge.net.position += 0.5
    with pytest.raises(KinemaError, match="learned on another judge"):
        EventTimer.load(judge, tmp_path)


def test_networks_are_loaded_when_they_are_asked_for(tmp_path) -> None:
    nothing = World(str(tmp_path))
    for ask in (nothing.mask, nothing.depth, lambda frames: nothing.clip(frames, 8.0)):
        with pytest.raises(KinemaError, match=r"has no config\.json; make it"):
            ask(noise(2, 16, 16))
    blind = True_(np.zeros((2, 16, 16)))
    with pytest.raises(KinemaError, match="'true' reads no events; use 'world'"):
        event_times(Viewing(noise(2, 16, 16)), blind)
    blind.gives = frozenset()
    with pytest.raises(KinemaError, match="'true' finds no objects"):
        objects(Viewing(noise(2, 16, 16)), blind)


def test_agreement_forgets_scale_and_shift() -> None:
    true = np.linspace(0.1, 0.4, 50)
    error, correlation = agreement((3 * true + 1).astype(np.float32), true)
    assert error == pytest.approx(0, abs=1e-5) and correlation == pytest.approx(1)
    assert agreement(np.ones(50, np.float32) + 1e-3 * (np.arange(50) % 2), true)[0] > 0.2
    assert box_iou(np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])) == pytest.approx(1 / 3)


def test_what_ships_sees_rendered_clips() -> None:
    found = measure(load_extractor("world"), 6, "first", 77_000)
    assert found.object_f1 > 0.97 and np.mean(found.box_iou) > 0.88 and np.mean(found.mask_iou) > 0.88
    assert np.mean(found.depth_error) < 0.08 and np.mean(found.depth_correlation) > 0.97 and all(found.colours)
    for which, right in found.read.items():
        assert sum(right) >= 4 and found.boundary(which, 0.5) < 1.5

"""The judge: shapes, saving, mirrored words, degraded pictures, and what the shipped weights read."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kinema.metrics.judge import Guess, Judge, JudgeConfig, JudgeNet, event_word, in_a_row, look, mirror_word
from kinema.training.degrade import degrade, quantise_blocks, shift, wobble
from kinema.training.judge import (
    IGNORE,
    JudgeSettings,
    JudgeStage,
    NetSettings,
    film,
    moments,
    motions,
    places,
    targets,
    words_of,
)
from kinema.training.trainer import TrainerSettings, seeded
from kinema.world.curricula import get_curriculum
from kinema.world.motion import simulate
from kinema.world.sample import sample_spec
from kinema.world.spec import CameraSpec, EventSpec, ObjectSpec, SceneSpec

TINY = NetSettings(frames=5, size=32, channels=(8, 8, 16), width=16, layers=1, heads=2)
WEIGHTS = Path(__file__).parents[2] / "src/kinema/weights/judge/model.safetensors"


@pytest.fixture(scope="module")
def tiny() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet(words_of(get_curriculum("first"), TINY)))


@pytest.fixture(scope="module")
def stage() -> JudgeStage:
    trainer = TrainerSettings(steps=1, batch_size=3, precision="fp32")
    return JudgeStage(JudgeSettings(trainer=trainer, net=TINY, sizes=(32,), worse_share=0.0, max_shift=0))


def clips(count: int, frames: int = 9, size: int = 48) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return list(torch.randint(0, 256, (count, frames, size, size, 3), dtype=torch.uint8, generator=generator))


def scene(**changes: object) -> SceneSpec:
    ball = ObjectSpec(kind="ball", colour="red")
    roll = EventSpec(action="roll", direction="left", start=0.1, end=2.9)
    return replace(SceneSpec(seed=0, objects=(ball,), events=(roll,)), **changes)  # type: ignore[arg-type]


def test_words_of_events_and_mirrors() -> None:
    assert event_word("roll left") == event_word("slide left") == "move left"
    assert event_word("bounce") == "bounce"
    assert mirror_word("move left") == "move right"
    assert mirror_word("orbit right") == "orbit left"
    config = words_of(get_curriculum("first"))
    for words in (config.events, config.cameras):
        mirrored = config.mirrored(words)
        assert [mirrored[i] for i in mirrored] == list(range(len(words)))  # twice mirrored is as before
        assert [words[i] for i in mirrored] == [mirror_word(w) for w in words]


def test_reads_any_size_and_length(tiny: Judge) -> None:
    wide = torch.zeros(3, 20, 50, 3, dtype=torch.uint8)
    one, other = tiny.read_batch([clips(1)[0], wide], fps=4.0)
    assert (one.seconds, other.seconds) == (9 / 4, 3 / 4)
    assert one.ground.word in tiny.config.grounds and 0 < one.ground.confidence <= 1
    assert all(e.word != "none" for e in one.events)
    assert tiny.features(clips(3)).shape == (3, TINY.width)


def test_batch_equals_one_by_one(tiny: Judge) -> None:
    together = tiny.logits(clips(3))
    alone = tiny.logits(clips(3), batch=1)
    for name, value in together.items():
        torch.testing.assert_close(value, alone[name], atol=1e-5, rtol=1e-4)


def test_look_takes_frames_evenly_and_keeps_colours() -> None:
    frames = torch.arange(25, dtype=torch.uint8)[:, None, None, None].expand(25, 40, 80, 3)
    seen = look(frames.numpy(), 32, 13)
    assert seen.shape == (13, 3, 32, 32)
    torch.testing.assert_close(seen[:, 0, 5, 5] * 255, torch.arange(0.0, 25.0, 2))


@pytest.mark.parametrize("bad", [torch.zeros(4, 8, 8, 3), torch.zeros(8, 8, 3, dtype=torch.uint8)])
def test_refuses_other_arrays(tiny: Judge, bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"use \(T, H, W, 3\) uint8"):
        tiny.read(bad)


def test_saved_and_loaded_is_the_same_bit_for_bit(tiny: Judge, tmp_path: Path) -> None:
    Judge(tiny.net, {"clips": 3}).save(tmp_path / "a")
    once = Judge.load(tmp_path / "a")
    once.save(tmp_path / "b")
    for name in ("model.safetensors", "config.json", "card.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert once.config == tiny.config and once.card == {"clips": 3}
    assert not list(tmp_path.glob("*/.*"))
    again = Judge.load(tmp_path / "b")
    for name, value in once.logits(clips(2)).items():
        assert torch.equal(value, again.logits(clips(2))[name])


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no config\.json; make it with `kinema train judge"):
        Judge.load(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        Judge.load(tmp_path)


def test_targets_are_in_the_order_of_time() -> None:
    config: JudgeConfig = words_of(get_curriculum("first"))
    late = EventSpec(action="slide", direction="away", start=1.6, end=2.9)
    early = EventSpec(action="jump", start=0.1, end=1.4)
    right = targets([scene(events=(late, early)), scene(objects=(), events=())], config)
    assert [config.events[i] for i in right["event"][0]] == ["jump", "move away"]
    assert right["event"][1].tolist() == [0, 0]
    assert right["count"].tolist() == [1, 0]
    assert right["kind"].tolist() == [[config.kinds.index("ball")], [IGNORE]]
    with pytest.raises(ValueError, match="no word 'figure'"):
        targets([scene(objects=(ObjectSpec(kind="figure", colour="red"),))], config)


def test_heat_targets_lie_on_the_object() -> None:
    """A red ball on snow: the pixel at its projected centre is red."""
    frames, state = film([scene(ground="snow", events=(), camera=CameraSpec(move="zoom out"))], 5, 64)
    for t, (x, y) in enumerate(places(state)[0, :, 0].tolist()):
        red, green, _ = frames[0, t, int((y + 1) * 32), int((x + 1) * 32)].tolist()
        assert red > 2 * green


def test_motions_in_closed_form() -> None:
    pan, zoom = CameraSpec(move="pan right"), CameraSpec(move="zoom in")
    state, _ = simulate([scene(camera=pan), scene(camera=zoom, events=())])
    moved = motions(state)
    torch.testing.assert_close(moved[:, 0], torch.zeros(2, 10))
    assert moved[0, -1, 0] > 1  # yaw to the right
    assert moved[0, -1, 6] < -0.5  # the ball goes left
    ratio = state.intrinsics[1, -1, 1, 1] / state.intrinsics[1, 0, 1, 1]
    assert moved[1, -1, 2].item() == pytest.approx(5 * math.log(ratio), rel=1e-4)
    torch.testing.assert_close(moved[1, :, 6:], torch.zeros(25, 4))


def test_mirrored_clips_have_mirrored_answers(stage: JudgeStage) -> None:
    batch = stage.batch(0, seeded(0, 0, 0))
    by_flip = {}
    for attempt in range(40):
        x, answers = stage.prepare(batch, seeded(0, 1, attempt))
        by_flip[bool(torch.equal(x[0], batch["frames"][0].permute(0, 3, 1, 2).float() / 255))] = (x, answers)
    (plain, right), (turned, mirrored) = by_flip[True], by_flip[False]
    assert torch.equal(plain[0].flip(-1), turned[0])
    for name, words in (("event", stage.config.events), ("camera", stage.config.cameras)):
        table = torch.tensor(stage.config.mirrored(words))
        assert torch.equal(table[right[name][0]], mirrored[name][0])
    assert torch.equal(right["kind"], mirrored["kind"])
    torch.testing.assert_close(right["motion"][0, :, 6], -mirrored["motion"][0, :, 6])  # x of the object
    torch.testing.assert_close(right["motion"][0, :, 7:], mirrored["motion"][0, :, 7:])
    cells = right["heat"][0, :, 0]
    seen = cells != IGNORE
    grid = stage.net.grid
    assert torch.equal((cells // grid)[seen], (mirrored["heat"][0, :, 0] // grid)[seen])  # same rows


def test_loss_falls_on_one_batch(stage: JudgeStage) -> None:
    batch = stage.batch(0, seeded(0, 0, 0))
    optimizer = torch.optim.Adam(stage.net.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss, numbers = stage.loss(batch, seeded(0, 1, 0))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert {"kind", "event", "motion", "heat"} <= numbers.keys()


def test_degrade_is_seeded_and_stays_in_range() -> None:
    x = torch.rand(4, 5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    worse = degrade(x, torch.Generator().manual_seed(3), share=1.0)
    assert torch.equal(worse, degrade(x, torch.Generator().manual_seed(3), share=1.0))
    assert worse.min() >= 0 and worse.max() <= 1 and not torch.equal(worse, x)
    assert torch.equal(degrade(x, torch.Generator().manual_seed(3), share=0.0), x)


def test_fine_quantising_changes_little_and_flat_blocks_not_at_all() -> None:
    x = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    step = torch.tensor([1e-4, 0.0]).view(2, 1, 1, 1, 1)
    out = quantise_blocks(x, step)
    torch.testing.assert_close(out[0], x[0], atol=2e-3, rtol=0)
    assert torch.equal(out[1], x[1])
    flat = torch.full((1, 1, 1, 8, 8), 0.5)  # its only coefficient is 8 * 0.5 = 4, a multiple of the step
    torch.testing.assert_close(quantise_blocks(flat, torch.full((1, 1, 1, 1, 1), 0.5)), flat)


def test_time_in_steps_keeps_its_order_and_its_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    even = moments(3, 25, 13, 0.0, generator)
    assert even.tolist() == [list(range(0, 25, 2))] * 3
    stepped = moments(200, 25, 13, 1.0, generator)
    assert (stepped.diff(dim=1) >= 0).all() and stepped[:, 0].max() <= 3 and stepped[:, -1].min() >= 21
    assert (stepped - even[0]).abs().max() <= 2 and (stepped.diff(dim=1) == 0).any()


def test_wobble_bends_by_about_what_is_asked() -> None:
    """A picture whose value is the column shows by its change how far each point came from."""
    x = torch.arange(32.0).expand(2, 4, 1, 32, 32)
    bent = wobble(x, torch.tensor([0.0, 2.0]).view(2, 1, 1, 1, 1), torch.Generator().manual_seed(0))
    torch.testing.assert_close(bent[0], x[0], atol=1e-4, rtol=0)
    moved = (bent[1] - x[1])[:, :, 8:-8, 8:-8]
    assert 0.2 < moved.std() < 2
    assert torch.equal(moved[0], moved[1]) and not torch.equal(moved[1], moved[2])


def test_the_same_twice_in_a_row_is_one_event() -> None:
    a, b, none = Guess("jump", 0.6), Guess("jump", 0.9), Guess("none", 0.9)
    assert in_a_row([a, b]) == (b,) and in_a_row([none, a]) == (a,) and in_a_row([none, none]) == ()
    assert in_a_row([a, Guess("grow", 0.5)]) == (a, Guess("grow", 0.5))


def test_shift_moves_right_and_down() -> None:
    x = torch.arange(16.0).view(1, 1, 1, 4, 4)
    moved = shift(x, torch.tensor([[1, 2]]))
    assert moved[0, 0, 0, 2:, 1:].tolist() == x[0, 0, 0, :2, :3].tolist()
    assert moved[0, 0, 0, 0].tolist() == [0, 0, 1, 2]


@pytest.mark.skipif(not WEIGHTS.is_file(), reason="no judge in this checkout; make one with `kinema train judge`")
def test_shipped_judge_reads_rendered_clips() -> None:
    judge = Judge.load()
    assert WEIGHTS.stat().st_size <= 3 * 2**20
    specs = [sample_spec(2_900_000_000 + i, "first", "all") for i in range(12)]
    frames, _ = film(specs, 25, 128)
    logits, right = judge.logits(list(frames)), targets(specs, judge.config)
    for name in ("kind", "colour", "ground", "sky", "camera", "event"):
        good = (logits[name].argmax(-1) == right[name]).flatten(1).all(1) if right[name].ndim > 1 else None
        good = logits[name].argmax(-1) == right[name] if good is None else good
        assert good.sum() >= 11, name

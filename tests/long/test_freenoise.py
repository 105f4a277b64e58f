"""FreeNoise: noise that comes back, the analytic mean over windows, and windows that see what a short clip sees."""

import functools
from dataclasses import dataclass
from types import SimpleNamespace

import diffusers
import pytest
import torch
from PIL import Image

from backbones.families import cogvideox, unet
from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.positions import Positions
from kinema.core.run import Run, State
from kinema.core.schedule import Solver
from kinema.core.technique import Step, Technique
from kinema.core.tokens import Tokens
from kinema.core.windows import Window
from kinema.layers.noise import rescheduled
from kinema.long.freelong import FreeLong
from kinema.long.freenoise import FreeNoise, _State, alone, shares
from kinema.long.gen_l_video import GenLVideo
from kinema.long.randomized_blending import RandomizedBlending
from kinema.request import Request

SIZE = dict(prompt="a red ball", height=32, width=64, num_inference_steps=3, seed=1)


@pytest.mark.parametrize("frames, size, stride", [(16, 6, 2), (13, 4, 1), (17, 8, 3)])
def test_every_window_holds_the_same_frames_of_noise(frames, size, stride):
    noise = torch.arange(2.0 * frames).reshape(2, 1, frames, 1, 1).expand(2, 3, frames, 2, 2)
    found = rescheduled(noise, size, stride, [torch.Generator().manual_seed(s) for s in (1, 2)])
    assert torch.equal(found[:, :, :size], noise[:, :, :size])
    assert torch.equal(found, found[:, :1, :, :1, :1].expand_as(found)), "whole frames are moved"
    numbers = found[:, 0, :, 0, 0]
    for sample in numbers:
        for first in (*range(0, frames - size + 1, stride), frames - size):
            assert set(sample[first : first + size].tolist()) == set(sample[:size].tolist())
    if stride > 1:
        assert not torch.equal(numbers[0] - numbers[0, 0], numbers[1] - numbers[1, 0]), "each sample in its own order"


def plain(seen=None):
    """Attention that turns nothing, and notes the places it is given."""

    def read(q, k, v, positions, bias):
        if seen is not None:
            seen.append(positions)
        logits = q @ k.mT / q.shape[-1] ** 0.5
        return (logits if bias is None else logits + bias).softmax(-1) @ v

    return Attention.of(lambda q, k, positions: (q, k), read)


def attending(part, latents, state):
    """A step of a run with latents of this shape, on tokens of one cell."""
    run = SimpleNamespace(
        conditions=SimpleNamespace(shape=latents), backbone=SimpleNamespace(patch=(1, 1, 1)), state=State()
    )
    run.state[part] = state
    return Step(0, 1, 1.0, 0.0, run=run, branch="cond")


def test_a_frame_is_the_weighted_mean_of_the_windows_that_hold_it():
    part, seen = FreeNoise(), []
    q, k, v = torch.randn(3, 1, 2, 2 + 5 * 2 + 2, 4, generator=torch.Generator().manual_seed(0))
    places = torch.zeros(6 * 2, 3, dtype=torch.long)  # two words, five frames of two tokens, one frame beside them
    places[:, 0] = torch.arange(12) // 2
    step = attending(part, (1, 4, 5, 1, 2), _State(3, 2))
    found = part.attend(step, Site(0, "joint", 2, 4), q, k, v, Positions(places, places, 2, 2), plain(seen))
    frame = torch.tensor([-1, -1, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, -1, -1])
    alone = {}
    for first in (0, 2):  # frames 0..2 and 2..4
        sees = (frame < 0) | ((frame >= first) & (frame < first + 3))
        logits = (q @ k.mT / 2).masked_fill(~sees, -torch.inf)
        alone[first] = logits.softmax(-1) @ v
    expected = torch.where((frame < 2)[:, None], alone[0], alone[2])
    expected[:, :, frame == 2] = (alone[0] * 1 + alone[2] * 1)[:, :, frame == 2] / 2  # last of one, first of the other
    expected[:, :, frame < 0] = (alone[0] + alone[2])[:, :, frame < 0] / 2
    torch.testing.assert_close(found, expected)
    assert [p.q[:, 0].tolist() for p in seen] == [[0, 0, 1, 1, 2, 2, 3, 3]] * 2, "what is beside a clip of three"


def test_weights_rise_to_the_middle_of_a_window():
    found = shares([Window(0, 4), Window(2, 6)], 6)
    torch.testing.assert_close(found[:, 2:4], torch.tensor([[2 / 3, 1 / 3], [1 / 3, 2 / 3]]))
    torch.testing.assert_close(found.sum(0), torch.ones(7))
    assert found[0, -1] == 0.5


@pytest.fixture(scope="module")
def models(tiny_wan, tmp_path_factory):
    folders = {
        "wan": lambda: tiny_wan,
        "cogvideox": lambda: cogvideox.cogvideox_5b(tmp_path_factory.mktemp("cogvideox")),
        "cogvideox 2b": lambda: cogvideox.cogvideox_2b(tmp_path_factory.mktemp("cogvideox_2b")),
        "unet": lambda: unet.animatediff(tmp_path_factory.mktemp("animatediff")),
    }
    return lambda name: load(folders[name](), device="cpu", dtype="float32")


def velocity_of(backbone, x, *parts):
    """What the model says of latents x in its second step, with techniques."""
    frames = (x.shape[2] - 1) * backbone.frames_per_latent + 1
    with torch.no_grad(), Run.open(backbone, Request(num_frames=frames, **SIZE), parts) as run:
        return run.velocity(run.schedule[1], x, "cond")


def three_frames(backbone):
    rows, columns = 32 // backbone.pixels_per_cell, 64 // backbone.pixels_per_cell
    return torch.randn(1, backbone.channels, 3, rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["wan", "cogvideox", "unet"])
def test_windows_side_by_side_are_short_clips(name, models):
    backbone = models(name)

    velocity, short = functools.partial(velocity_of, backbone), three_frames(backbone)
    long = torch.cat([short] * 3, dim=2)
    windowed = velocity(long, FreeNoise(window=3, stride=3, reschedule=False))
    alone = velocity(short)
    torch.testing.assert_close(windowed, torch.cat([alone] * 3, dim=2), atol=2e-5, rtol=1e-4)
    assert (velocity(long) - windowed).abs().max() > 1e-4


@dataclass(frozen=True, kw_only=True)
class Beside(Technique):
    """A frame of noise beside the clip, at a frame of its own or behind the clip's last."""

    frame: float | None

    def tokens(self, step):
        _, channels, _, rows, columns = step.run.conditions.shape
        x = torch.randn(1, channels, 1, rows, columns, generator=torch.Generator().manual_seed(7))
        return Tokens(x=x, places=None if self.frame is None else torch.tensor([[self.frame, 0.0, 1.0]]))


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
@pytest.mark.parametrize("frame", [None, -8.0, 4.5])
def test_what_is_beside_a_clip_is_as_far_from_every_window(name, frame, models):
    """None: behind the last frame. -8 ahead of the first. A frame and a half behind the last of 9, and so of 3."""
    backbone = models(name)

    velocity, short = functools.partial(velocity_of, backbone), three_frames(backbone)
    windows = FreeNoise(window=3, stride=3, reschedule=False)
    later = 6 if frame is not None and frame > 0 else 0
    long = velocity(short.repeat(1, 1, 3, 1, 1), windows, Beside(frame=None if frame is None else frame + later))
    alone = velocity(short, Beside(frame=frame))
    torch.testing.assert_close(long, alone.repeat(1, 1, 3, 1, 1), atol=2e-5, rtol=1e-4)
    assert (alone - velocity(short)).abs().max() > 1e-4


def test_a_place_among_the_frames_of_a_clip_is_at_the_nearest_end_of_other_windows():
    places = torch.tensor([[-3.0, 1, 2], [0, 0, 0], [5, 0, 0], [7.5, 0, 0], [12, 0, 0], [14, 3, 4]])
    found = [alone(Positions(places, places), first, first + 4, 12).q for first in (0, 4, 8)]
    assert [u[:, 0].tolist() for u in found] == [[-3, 0, 4, 4, 4, 6], [-3, 0, 1, 3.5, 4, 6], [-3, 0, 0, 0, 4, 6]]
    assert all(torch.equal(u[:, 1:], places[:, 1:]) for u in found)


def test_a_given_first_frame_belongs_to_the_first_window(models, tmp_path):
    """Windows side by side: the first is a short clip that is given a picture, the others have none."""
    Image.new("RGB", (64, 32), (200, 40, 30)).save(tmp_path / "first.png")
    backbone, found = models("wan"), []
    rows, columns = 32 // backbone.pixels_per_cell, 64 // backbone.pixels_per_cell
    x = torch.randn(1, backbone.channels, 6, rows, columns, generator=torch.Generator().manual_seed(0))
    windows = FreeNoise(window=3, stride=3, reschedule=False)
    for image, u, parts in [("first.png", x, [windows]), ("first.png", x[:, :, :3], []), (None, x[:, :, 3:], [])]:
        asked = Request(num_frames=4 * u.shape[2] - 3, image=image and tmp_path / image, **SIZE)
        with torch.no_grad(), Run.open(backbone, asked, parts) as run:
            found.append(run.velocity(run.schedule[1], run.hold(u), "cond"))
    torch.testing.assert_close(found[0][:, :, 1:3], found[1][:, :, 1:], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(found[0][:, :, 3:], found[2], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("part", [FreeNoise(window=16, stride=16, reschedule=False), GenLVideo(window=16, stride=16)])
def test_a_clip_is_longer_than_the_table_of_places(part, models):
    """64 frames with AnimateDiff's table of 32, in windows side by side: four short clips."""
    backbone = models("unet")

    def velocity(x, *parts):
        asked = Request(num_frames=x.shape[2], prompt="a red ball", height=16, width=16, num_inference_steps=2)
        with torch.no_grad(), Run.open(backbone, asked, parts) as run:
            return run.velocity(run.schedule[1], x, "cond")

    short = torch.randn(1, 4, 16, 2, 2, generator=torch.Generator().manual_seed(0))
    long = velocity(short.repeat(1, 1, 4, 1, 1), part)
    torch.testing.assert_close(long, velocity(short).repeat(1, 1, 4, 1, 1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "parts, says",
    [
        ([], "num_frames is 64; this model makes a multiple of 1 plus 1, 1 to 32"),
        (
            [FreeNoise(window=33)],
            "attention sees 33 latent frames of this clip together, and model .* has places for 32",
        ),
        ([FreeNoise(window=16, noise_range=(1.0, 0.5))], "attention sees 64 latent frames"),
        ([FreeNoise(window=16, block_range=(0, 2))], "attention sees 64 latent frames"),
        ([GenLVideo(window=40)], "attention sees 40 latent frames"),
        ([FreeLong(window=16)], "num_frames is 64"),
    ],
)
def test_so_much_is_refused_where_attention_sees_frames_that_have_no_place(parts, says, models):
    asked = Request(num_frames=64, prompt="a red ball", height=16, width=16, num_inference_steps=4)
    with pytest.raises(KinemaError, match=says), Run.open(models("unet"), asked, parts):
        pass


def test_a_rotary_table_ends_for_a_call_however_attention_sees_it(models):
    """The small Wan has places for 32 latent frames in a call, which only windows of the model itself keep to."""
    asked, backbone = Request(num_frames=4 * 39 + 1, **{**SIZE, "width": 32}), models("wan")
    with (
        pytest.raises(KinemaError, match="num_frames is 157; this model makes"),
        Run.open(backbone, asked, [FreeNoise(window=4)]),
    ):
        pass
    made = denoise(backbone, asked, [RandomizedBlending(window=30, overlap=2)])[0]
    assert made.shape[2] == 40 and made.isfinite().all()


def test_a_longer_call_without_anybody_to_move_its_frames_is_refused(models):
    backbone = models("unet")
    asked = Request(num_frames=64, prompt="a red ball", height=16, width=16, num_inference_steps=2)
    refused = pytest.raises(KinemaError, match="attention sees 64 latent frames")
    with Run.open(backbone, asked, [FreeNoise(window=16, stride=8)]) as run, refused:
        backbone.velocity(run.noise(), 0.5, run.conditions)


@pytest.mark.parametrize(
    "name, asked, part, says",
    [
        ("wan", {}, FreeNoise(window=2, stride=3), "freenoise has windows of 2 latent frames every 3"),
        ("cogvideox", {}, FreeNoise(window=2), "and CogVideoXDPMScheduler adds fresh noise in each step"),
        ("unet", {"scheduler": "euler a"}, FreeNoise(window=2), "EulerAncestralDiscreteScheduler adds fresh noise"),
        ("cogvideox 2b", {}, FreeNoise(window=2), "freenoise lets each window begin at frame 0, and model"),
    ],
)
def test_what_cannot_be_done_is_refused_at_start(name, asked, part, says, models):
    with (
        pytest.raises(KinemaError, match=says),
        Run.open(models(name), Request(num_frames=17, **SIZE, **asked), [part]),
    ):
        pass


@pytest.mark.parametrize(
    "kind, settings, draws",
    [
        ("DPMSolverMultistepScheduler", {}, False),
        ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, True),
        ("UniPCMultistepScheduler", {}, False),
        ("FlowMatchEulerDiscreteScheduler", {}, False),
        ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, True),
        ("EulerAncestralDiscreteScheduler", {}, True),
    ],
)
def test_a_solver_says_whether_its_steps_add_noise(kind, settings, draws):
    assert Solver(getattr(diffusers, kind)(**settings), 3, torch.device("cpu")).draws_noise is draws

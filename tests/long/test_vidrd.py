"""The next chunk replays the last one's way from noise, backwards in time."""

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.rollout import Rollout
from kinema.core.run import Run
from kinema.core.technique import Technique
from kinema.long.vidrd import VidRD, mirrored
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=5, seed=1, fps=8)


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def test_the_mirror_leaves_the_first_picture_where_it_is():
    assert mirrored(torch.arange(5.0).reshape(1, 1, 5, 1, 1), 1).flatten().tolist() == [0, 4, 3, 2, 1]


def test_noise_is_replayed_mixed_and_of_unit_spread(backbone):
    request = Request(prompt="a ball", num_frames=33, **{**SIZE, "height": 64, "width": 64})  # 9 latent frames
    part = VidRD(frames=33, tied=2, reuse=1.0)
    old = torch.randn(1, 48, 9, 4, 4, generator=torch.Generator().manual_seed(0))
    with Run.open(backbone, request, [part], carried=[{"noise": old}]) as run:
        noise = run.noise()
        made = part.init_noise(run, noise)
    torch.testing.assert_close(made[:, :, :1], noise[:, :, :1])
    torch.testing.assert_close(made[:, :, 1:3], old[:, :, [8, 7]])
    torch.testing.assert_close(made[:, :, 3:], (old[:, :, [6, 5, 4, 3, 2, 1]] + noise[:, :, 3:]) / 2**0.5)
    assert abs(made[:, :, 3:].std() - 1) < 0.05


def test_the_first_frames_follow_for_a_share_of_the_steps(backbone):
    """Frame 0 of 2 in i < N g = 4 of 5 steps, frame 1 in i < N g / 2 = 2."""
    request, part = Request(prompt="a ball", num_frames=13, **SIZE), VidRD(frames=13, tied=2, guided=0.8)
    number = torch.arange(4.0).reshape(1, 1, 4, 1, 1).expand(1, 48, 4, 2, 2)  # of the frame
    handed = {f"step.{i}": 10 * (i + 1) + number for i in range(5)}
    followed = []
    with Run.open(backbone, request, [part], carried=[handed]) as run:
        for step in run.schedule:
            x = part.before_step(step, torch.zeros(1, 48, 4, 2, 2))
            followed.append(x[0, 0, :, 0, 0].tolist())
    assert followed == [[0, (i < 4) * (10 * i + 13), (i < 2) * (10 * i + 12), 0] for i in range(5)]


def test_three_chunks_follow_the_latents_of_the_one_ahead_as_they_went_into_its_steps(backbone):
    """Chunk c + 1's are those of chunk c, which had followed chunk c - 1 there: after, and not before, they did."""
    seen = []

    class Watches(Technique):
        def before_step(self, step, x):
            seen.append((step.run.chunk.index, step.index, x))
            return x

    part = VidRD(frames=13, tied=2, guided=0.8)  # 4 latent frames: a picture, two that follow, one free
    rollout = Rollout(backbone, Request(prompt="a ball", num_frames=29, **SIZE), [part, Watches()])
    assert sum(f.shape[1] for f in rollout.frames()) == 29 and len(seen) == 3 * 5
    into = {(chunk, i): x for chunk, i, x in seen}
    for chunk in (1, 2):
        for i in range(5):
            ahead, x = mirrored(into[chunk - 1, i], 1), into[chunk, i]
            same = [torch.equal(x[:, :, f], ahead[:, :, f]) for f in range(4)]
            assert same == [False, i < 4, i < 2, False]
    carried = rollout._carried[0]
    assert all(torch.equal(carried[f"step.{i}"], into[1, i]) for i in range(5))
    assert torch.equal(carried["noise"], into[1, 0])


def test_chunks_hand_their_way_on_and_show_no_frame_twice(backbone):
    request = Request(prompt="a ball", num_frames=21, **SIZE)
    rollout = Rollout(backbone, request, [VidRD(frames=13)])
    assert next((c.overlap, c.shown, c.request.seed) for (c,) in rollout.chunks) == (0, 13, 1)
    assert torch.cat(list(rollout.frames()), dim=1).shape[1] == 21
    assert set(rollout._carried[0]) == {"noise", *(f"step.{i}" for i in range(5))}
    with pytest.raises(KinemaError, match="tied of vidrd is 9 latent frames; use 1 to 3"):
        Rollout(backbone, request, [VidRD(frames=13, tied=9)])

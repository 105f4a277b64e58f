"""The objective: times, given frames, loss."""

import pytest
import torch

from kinema.training.rectified_flow import (
    FLOW,
    bucket_losses,
    clean_frames,
    frame_times,
    sample_times,
    token_timesteps,
    velocity_loss,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_times_follow_the_shifted_logit_normal():
    t = torch.cat([sample_times(64, 2.0, generator(s)) for s in range(200)])
    # t' = s t / (1 + (s - 1) t) puts the median sigmoid(0) = 1/2 at s / (1 + s) = 2/3
    assert abs(float(t.median()) - 2 / 3) < 0.01
    logit = torch.logit(t / (2 - t))  # the shift undone
    assert abs(float(logit.mean())) < 0.02 and abs(float(logit.std()) - 1) < 0.02
    assert float(t.min()) > 0 and float(t.max()) < 1


def test_times_of_a_batch_are_spread():
    t = sample_times(4, 1.0, generator()).sort().values
    assert ((torch.special.ndtr(torch.logit(t)) * 4).long() == torch.arange(4)).all()  # one in each quarter


@pytest.mark.parametrize("frames", [2, 3, 7])
def test_first_frame_is_given_and_one_is_left(frames):
    given = torch.cat([clean_frames(64, frames, generator(s)) for s in range(4)])
    assert given[:, 0].all() and not given.all(1).any()


def test_given_frames_are_first_some_or_first_and_last():
    given = clean_frames(512, 7, generator())
    prefix = (given.long().diff(dim=1) <= 0).all(1)
    both_ends = (given.sum(1) == 2) & given[:, -1]
    assert (prefix | both_ends).all()
    assert 0.15 < float(both_ends.float().mean()) < 0.35


def test_one_frame_cannot_be_given():
    with pytest.raises(ValueError, match="2 or more"):
        clean_frames(1, 1, generator())


def test_given_frames_stay_clean_and_out_of_the_loss():
    x0, noise = torch.randn(2, 2, 4, 5, 4, 4, generator=generator()).unbind(0)
    given = torch.zeros(2, 5, dtype=torch.bool)
    given[0, 0] = given[1, :3] = True
    times = frame_times(torch.tensor([0.9, 0.3]), given)
    x = FLOW.add_noise(x0, noise, times)
    assert torch.equal(x[0, :, 0], x0[0, :, 0]) and torch.equal(x[1, :, :3], x0[1, :, :3])
    wrong = torch.where(given[:, None, :, None, None], torch.full_like(x0, 100.0), noise - x0)
    assert float(velocity_loss(wrong, x0, noise, times)[0]) == 0.0  # perfect where it counts


def test_loss_is_the_mean_square_over_learned_frames():
    x0 = noise = torch.zeros(2, 3, 4, 2, 2)
    velocity = torch.zeros_like(x0)
    velocity[:, :, 0] = 1.0
    velocity[1, :, 3] = 2.0
    times = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 0.5, 0.5]])
    loss, clips = velocity_loss(velocity, x0, noise, times)
    torch.testing.assert_close(clips, torch.tensor([1 / 4, 4 / 3]))
    torch.testing.assert_close(loss, torch.tensor(5 / 7))


def test_timesteps_of_tokens_are_those_of_the_pipeline():
    t, given = torch.tensor([0.25, 0.75]), torch.tensor([[True, False, False]] * 2)
    mask = (~given)[:1, None, :, None, None].float().expand(1, 1, 3, 8, 6)  # as WanPipeline has it
    for i, level in enumerate(t.tolist()):
        theirs = (mask[0][0][:, ::2, ::2] * (level * 1000)).flatten()
        torch.testing.assert_close(token_timesteps(frame_times(t, given), 4, 3)[i], theirs)
    assert token_timesteps(frame_times(t, ~given & False), 4, 3).shape == (2,)


def test_losses_are_sorted_by_time():
    found = bucket_losses(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.05, 0.15, 1.0]))
    assert found == {"loss_t0.0": 2.0, "loss_t0.8": 5.0}

"""Objectives: times, weights, given frames, loss."""

import math

import pytest
import torch

from kinema.core.path import VariancePreserving
from kinema.core.schedule import Clock
from kinema.training.objective import (
    FLOW,
    GivenSettings,
    Objective,
    ObjectiveSettings,
    bucket_losses,
    frame_times,
    given_frames,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def times(batch=64, clock=None, **settings):
    objective = Objective(ObjectiveSettings(**settings), "flow", clock)
    return torch.cat([objective.times(batch, generator(s)) for s in range(12800 // batch)])


def test_logit_normal_times_are_shifted():
    t = times(shift=2.0)
    # t' = s t / (1 + (s - 1) t) puts the median sigmoid(0) = 1/2 at s / (1 + s) = 2/3
    assert abs(float(t.median()) - 2 / 3) < 0.01
    logit = torch.logit(t / (2 - t))  # the shift undone
    assert abs(float(logit.mean())) < 0.02 and abs(float(logit.std()) - 1) < 0.02
    assert float(t.min()) > 0 and float(t.max()) < 1


def test_uniform_and_mode_times():
    assert abs(float(times(times="uniform").var()) - 1 / 12) < 0.002
    flat = times(times="mode", mode_scale=0.0).sort().values
    torch.testing.assert_close(flat, times(times="uniform").sort().values, atol=3e-3, rtol=0)
    # f(1/2) = 1/2 - m (1/2 - 1 + 1/2) = 1/2, and the density there is 1 / |f'(1/2)| = 1 / (1 + m - m pi / 2)
    t, m = times(times="mode", mode_scale=1.0), 1.0
    near = ((t - 0.5).abs() < 0.02).float().mean() / 0.04
    assert float(near) == pytest.approx(1 / (1 + m - m * math.pi / 2), rel=0.06)
    assert abs(float(t.median()) - 0.5) < 0.01


def test_times_of_a_batch_are_spread():
    t = Objective(ObjectiveSettings(), "flow").times(4, generator()).sort().values
    assert ((torch.special.ndtr(torch.logit(t)) * 4).long() == torch.arange(4)).all()  # one in each quarter


def test_a_clock_gives_its_own_levels():
    clock = Clock([0.9, 0.5, 0.1, 0.0])
    t = times(times="uniform", clock=clock)
    levels = torch.tensor(clock.levels).float()
    assert set(t.tolist()) == set(levels.tolist())
    assert all(abs(float((t == level).float().mean()) - 0.25) < 0.01 for level in levels)


@pytest.mark.parametrize("kind, prediction", [("epsilon", "epsilon"), ("v", "v_prediction")])
def test_weights_turn_errors_of_the_velocity_into_those_of_what_a_network_predicts(kind, prediction):
    path, t = VariancePreserving(prediction), torch.tensor([0.1, 0.5, 0.9])
    x, v, wrong = torch.randn(3, 3, 4, 2, 2, 2, generator=generator(), dtype=torch.float64).unbind(0)
    theirs = (path.output(wrong, x, t) - path.output(v, x, t)).square().mean((1, 2, 3, 4))
    ours = Objective(ObjectiveSettings(), kind).losses(wrong, v, t[:, None].expand(3, 2))
    torch.testing.assert_close(ours, theirs.float(), atol=1e-6, rtol=1e-5)


def test_min_snr_weighs_the_clean_sample_by_the_clamped_ratio_whatever_is_predicted():
    t = torch.tensor([0.05, 0.2, 0.5, 0.9])
    snr = ((1 - t) / t) ** 2
    for kind in ("flow", "epsilon", "v"):
        weight = Objective(ObjectiveSettings(min_snr=5.0), kind).weight(t)
        torch.testing.assert_close(weight, t**2 * snr.clamp(max=5.0))  # an error e of v is t e of the clean sample
    with pytest.raises(ValueError, match="must be above 0"):
        ObjectiveSettings(min_snr=0.0)


@pytest.mark.parametrize("frames", [2, 3, 7])
def test_some_frames_are_given_and_some_are_left(frames):
    given = torch.cat([given_frames(GivenSettings(), 64, frames, generator(s)) for s in range(8)])
    assert given.any(1).all() and not given.all(1).any()


def test_each_pattern_of_given_frames_is_what_it_says():
    none = dict(first=0.0, first_k=0.0, last=0.0, first_and_last=0.0, any=0.0)
    drawn = {name: given_frames(GivenSettings(**none | {name: 1.0}), 512, 7, generator()) for name in none}
    first = torch.arange(7) == 0
    assert (drawn["first"] == first).all() and (drawn["last"] == first.flip(0)).all()
    assert (drawn["first_and_last"] == (first | first.flip(0))).all()
    assert (drawn["first_k"].long().diff(dim=1) <= 0).all() and set(drawn["first_k"].sum(1).tolist()) == set(
        range(1, 7)
    )
    assert set(drawn["any"].sum(1).tolist()) == set(range(1, 7))
    assert (drawn["any"].float().mean(0) - 0.5).abs().max() < 0.08
    mixed = given_frames(GivenSettings(), 4000, 7, generator())
    assert abs(float((mixed == first).all(1).float().mean()) - (0.35 + 0.2 / 6)) < 0.04
    with pytest.raises(ValueError, match="add up to 1"):
        GivenSettings(first=0.5)
    with pytest.raises(ValueError, match="2 or more"):
        given_frames(GivenSettings(), 1, 1, generator())


def test_given_frames_stay_clean_and_out_of_the_loss():
    x0, noise = torch.randn(2, 2, 4, 5, 4, 4, generator=generator()).unbind(0)
    given = torch.zeros(2, 5, dtype=torch.bool)
    given[0, 0] = given[1, :3] = True
    t = frame_times(torch.tensor([0.9, 0.3]), given)
    x = FLOW.add_noise(x0, noise, t)
    assert torch.equal(x[0, :, 0], x0[0, :, 0]) and torch.equal(x[1, :, :3], x0[1, :, :3])
    wrong = torch.where(given[:, None, :, None, None], torch.full_like(x0, 100.0), noise - x0)
    losses = Objective(ObjectiveSettings(), "flow").losses(wrong, noise - x0, t)
    assert losses.tolist() == [0.0, 0.0]  # perfect where it counts


def test_loss_is_the_mean_square_over_learned_frames():
    velocity = torch.zeros(2, 3, 4, 2, 2)
    velocity[:, :, 0] = 1.0
    velocity[1, :, 3] = 2.0
    t = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.0, 0.5, 0.5, 0.5]])
    clips = Objective(ObjectiveSettings(), "flow").losses(velocity, torch.zeros_like(velocity), t)
    torch.testing.assert_close(clips, torch.tensor([1 / 4, 4 / 3]))


def test_losses_are_sorted_by_time():
    found = bucket_losses(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0.05, 0.15, 1.0]))
    assert found == {"loss_t0.0": 2.0, "loss_t0.8": 5.0}

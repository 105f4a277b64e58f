"""Solvers of noise-predicting models: kinema's loop takes the steps that diffusers' scheduler takes, bit for bit."""

import math

import pytest
import torch

from kinema.core.path import VariancePreserving
from kinema.core.schedule import Clock, NoiseSolver, noise_to_signal

CPU = torch.device("cpu")
ZERO_SNR = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False)


def scheduler(kind, **options):
    import diffusers

    return getattr(diffusers, kind)(**options)


def network(z, timestep):
    """Any function of latents and time will do."""
    return torch.sin(3 * z) * 0.7 + 0.001 * float(timestep)


class Told:
    """As much of a run as a solver looks at."""

    def __init__(self, seed):
        self.generators = [torch.Generator().manual_seed(seed)]


KINDS = {
    "ddim, epsilon": ("DDIMScheduler", dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1), False),
    "ddim, sample": ("DDIMScheduler", dict(clip_sample=False, prediction_type="sample"), False),
    "cogvideox ddim": ("CogVideoXDDIMScheduler", dict(prediction_type="v_prediction", **ZERO_SNR), True),
    "cogvideox dpm": ("CogVideoXDPMScheduler", dict(prediction_type="v_prediction", **ZERO_SNR), True),
}


@pytest.mark.parametrize("count", [3, 7, 10])  # 7 trailing steps end beside the last alpha, 3 between two timesteps
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_those_of_diffusers(kind, count):
    name, options, frames_first = KINDS[kind]
    theirs = scheduler(name, **options)
    theirs.set_timesteps(count)
    noise = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    z, clean, generator = noise.clone(), None, torch.Generator().manual_seed(2)
    for i, timestep in enumerate(theirs.timesteps):
        output = network(z, timestep)
        if name == "CogVideoXDPMScheduler":
            before = theirs.timesteps[i - 1] if i else None
            z, clean = theirs.step(output, clean, timestep, before, z, generator=generator)
        else:
            z = theirs.step(output, timestep, z, return_dict=False)[0]

    solver = NoiseSolver(scheduler(name, **options), count, CPU, frames_first=frames_first)
    clock, run = Clock(solver.scheduler.alphas_cumprod), Told(2)
    turn = (lambda x: x.transpose(1, 2)) if frames_first else (lambda x: x)
    x = solver.begin(turn(noise))
    for step in solver.steps(run):
        seen = solver.path.outwards(x, step.t).float()
        output = turn(network(turn(seen), clock.at(step.t)))  # as a backbone calls it
        x = solver.advance(x, solver.path.velocity(output.double(), x, step.t), step)
    assert torch.equal(turn(x).float(), z)
    assert step.t_next == 0


def test_latents_of_another_order_take_other_noise():
    ends = []
    for frames_first in (False, True):
        solver = NoiseSolver(
            scheduler("CogVideoXDPMScheduler", prediction_type="v_prediction"), 3, CPU, frames_first=frames_first
        )
        x = solver.begin(torch.zeros(1, 2, 3, 4, 5))
        for step in solver.steps(Told(0)):
            x = solver.advance(x, torch.zeros_like(x), step)
        ends.append(x)
    assert not torch.equal(*ends)


def test_the_clock_is_whole_at_its_steps_and_runs_between_them():
    alphas = scheduler("CogVideoXDDIMScheduler", rescale_betas_zero_snr=True).alphas_cumprod
    clock = Clock(alphas)
    for k in (0, 1, 500, 998, 999):
        assert clock.at(VariancePreserving.level(noise_to_signal(float(alphas[k])))) == k
    assert clock.at(1.0) == 999 and clock.at(0.0) == 0
    between = (clock.levels[10] + clock.levels[11]) / 2
    assert clock.at(between) == pytest.approx(10.5)


def test_no_signal_is_all_noise():
    assert noise_to_signal(0.0) == math.inf and noise_to_signal(1.0) == 0 and noise_to_signal(0.5) == 1

"""The convention, in closed form."""

import pytest
import torch

from kinema.core.path import RectifiedFlow, shift_times

PATH = RectifiedFlow()


@pytest.mark.parametrize("t", [0.25, torch.tensor([0.1, 0.9]), torch.tensor([[0.2, 0.5, 1.0], [0.3, 0.6, 0.7]])])
def test_velocity_clean_and_noise_invert_each_other(t):
    g = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 2, 4, 3, 5, 5, generator=g, dtype=torch.float64)
    t = t.double() if isinstance(t, torch.Tensor) else t
    x, v = PATH.add_noise(x0, noise, t), PATH.velocity(x0, noise)
    torch.testing.assert_close(PATH.clean(x, v, t), x0)
    torch.testing.assert_close(PATH.noise(x, v, t), noise)
    torch.testing.assert_close(PATH.velocity_to(x0, x, t), v)


def test_ends_of_the_path_are_data_and_noise():
    x0, noise = torch.zeros(1, 1, 2, 2, 2), torch.ones(1, 1, 2, 2, 2)
    assert torch.equal(PATH.add_noise(x0, noise, 0.0), x0)
    assert torch.equal(PATH.add_noise(x0, noise, 1.0), noise)
    frames = PATH.add_noise(x0, noise, torch.tensor([[0.0, 1.0]]))
    assert frames[0, 0, 0].max() == 0 and frames[0, 0, 1].min() == 1


def test_shift_keeps_the_ends_and_raises_the_middle():
    t = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(shift_times(t, 3.0), torch.tensor([0.0, 0.75, 1.0]))
    torch.testing.assert_close(shift_times(t, 1.0), t)

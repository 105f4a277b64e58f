"""The convention, in closed form."""

import math

import pytest
import torch

from kinema.core.path import RectifiedFlow, VariancePreserving, shift_times

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


PREDICTIONS = ("epsilon", "sample", "v_prediction")
LEVELS = [0.001, 0.3, 0.5, 0.97, torch.tensor([0.1, 0.9]).double()]


def drawn(dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 4, 3, 5, 5, generator=g, dtype=torch.float32).to(dtype)


def wide(t):
    return t[:, None, None, None, None] if isinstance(t, torch.Tensor) else t


@pytest.mark.parametrize("t", LEVELS)
def test_variance_preserving_is_the_same_line_on_another_scale(t):
    x0, noise = drawn()
    path = VariancePreserving("epsilon")
    a, s = (wide(c) for c in path.coefficients(t))
    torch.testing.assert_close(torch.as_tensor(a**2 + s**2).double(), torch.ones_like(torch.as_tensor(a)).double())
    x = PATH.add_noise(x0, noise, t)
    torch.testing.assert_close(path.outwards(x, t), a * x0 + s * noise)
    torch.testing.assert_close(path.inwards(a * x0 + s * noise, t), x)


@pytest.mark.parametrize("t", LEVELS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_gives_the_velocity_of_the_line(prediction, t):
    x0, noise = drawn()
    path = VariancePreserving(prediction)
    a, s = (wide(c) for c in path.coefficients(t))
    output = {"epsilon": noise, "sample": x0, "v_prediction": a * noise - s * x0}[prediction]
    x = PATH.add_noise(x0, noise, t)
    torch.testing.assert_close(path.velocity(output, x, t), noise - x0)
    torch.testing.assert_close(path.output(noise - x0, x, t), output)


@pytest.mark.parametrize("t", [*LEVELS, 1.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_float32_survives_the_way_through_float64_bit_for_bit(prediction, t):
    if prediction == "epsilon" and isinstance(t, float) and t == 1.0:
        return  # all noise: the noise says nothing about the data
    z, output = drawn(torch.float32)
    path = VariancePreserving(prediction)
    x = path.inwards(z.double(), t)
    assert torch.equal(path.outwards(x, t).float(), z)
    assert torch.equal(path.output(path.velocity(output.double(), x, t), x, t).float(), output)


def test_at_the_ends_of_variance_preserving_nothing_is_scaled():
    z, output = drawn()
    path = VariancePreserving("v_prediction")
    assert torch.equal(path.inwards(z, 0.0), z) and torch.equal(path.inwards(z, 1.0), z)
    torch.testing.assert_close(path.velocity(output, z, 1.0), z + output)  # noise is z, the data is -v
    torch.testing.assert_close(path.velocity(output, z, 0.0), output - z)  # the data is z, noise is v


def test_level_is_the_share_of_noise_in_the_ratio():
    assert VariancePreserving.level(0.0) == 0 and VariancePreserving.level(math.inf) == 1
    for t in (0.1, 0.5, 0.9):
        a, s = VariancePreserving.coefficients(t)
        assert VariancePreserving.level(s / a) == pytest.approx(t)


def test_an_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="prediction is 'flow'; use epsilon"):
        VariancePreserving("flow")

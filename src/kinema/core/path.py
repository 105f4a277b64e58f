"""The path between data and noise, owned in one place.

kinema's only convention: x_t = (1 - t) * x0 + t * noise, the model gives the velocity v = dx/dt = noise - x0,
and t runs from 1 (noise) to 0 (data). Everything else is arithmetic on these two lines.

Letters, for the whole package: B batch, C channel, T latent frame, H W latent rows and columns, L token,
N head, D head width, P text token.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import Tensor


class Path(Protocol):
    """How a clean sample becomes noise, and back. Bridges and biased noise are other paths."""

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor: ...
    def velocity(self, x0: Tensor, noise: Tensor) -> Tensor: ...
    def clean(self, x: Tensor, v: Tensor, t: Tensor | float) -> Tensor: ...
    def noise(self, x: Tensor, v: Tensor, t: Tensor | float) -> Tensor: ...
    def velocity_to(self, x0: Tensor, x: Tensor, t: Tensor | float) -> Tensor: ...


class RectifiedFlow:
    """Straight lines from data to noise (Liu et al., "Flow Straight and Fast", 2022, arXiv:2209.03003).

    `t` is a float, (B,), or (B, T) for latents (B, C, T, H, W); no unit, 0..1.
    """

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor | float) -> Tensor:
        # x_t = (1 - t) x0 + t noise
        t = per_sample(t, x0)
        return (1 - t) * x0 + t * noise

    def velocity(self, x0: Tensor, noise: Tensor) -> Tensor:
        # v = noise - x0
        return noise - x0

    def clean(self, x: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
        # x0 = x_t - t v
        return x - per_sample(t, x) * v

    def noise(self, x: Tensor, v: Tensor, t: Tensor | float) -> Tensor:
        # noise = x_t + (1 - t) v
        return x + (1 - per_sample(t, x)) * v

    def velocity_to(self, x0: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """The velocity whose clean estimate at `t` is `x0`. `t` must be above 0."""
        # v = (x_t - x0) / t
        return (x - x0) / per_sample(t, x)


def per_sample(t: Tensor | float, x: Tensor) -> Tensor | float:
    """Reshapes a noise level, float, (B,) or (B, T), so that it multiplies latents x (B, C, T, H, W)."""
    if not isinstance(t, Tensor) or t.ndim == 0:
        return t
    if t.ndim == 1:
        return t.reshape(-1, *[1] * (x.ndim - 1))
    return t[:, None, :, None, None]


def shift_times(t: Tensor, shift: float) -> Tensor:
    """Moves noise levels towards 1 for more tokens: t' = s t / (1 + (s - 1) t).

    Esser et al., "Scaling Rectified Flow Transformers", 2024, arXiv:2403.03206, eq. 23. shift: above 0, 1 changes
    nothing.
    """
    return shift * t / (1 + (shift - 1) * t)


class VariancePreserving:
    """The other usual convention, z = a x0 + s noise with a^2 + s^2 = 1, as a change of scale of the same lines.

    x = z / (a + s) lies on x_t = (1 - t) x0 + t noise at t = s / (a + s), so a and s follow from t alone. `prediction`
    is what a network was trained to give: "epsilon" (noise), "sample" (x0) or "v_prediction" (a noise - s x0, Salimans
    and Ho, "Progressive Distillation", 2022, arXiv:2202.00512). In float64 a way there and back costs no bit of a
    float32 number.
    """

    def __init__(self, prediction: str) -> None:
        if prediction not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"prediction is {prediction!r}; use epsilon, sample or v_prediction")
        self.prediction = prediction

    @staticmethod
    def level(sigma: float) -> float:
        """t of a noise-to-signal ratio s / a, which is also the sigma of Karras et al., 2022, arXiv:2206.00364."""
        return 1.0 if sigma == math.inf else sigma / (1 + sigma)

    @staticmethod
    def coefficients(t: Tensor | float) -> tuple[Tensor | float, Tensor | float]:
        """a and s at level t."""
        norm = ((1 - t) ** 2 + t**2) ** 0.5
        return (1 - t) / norm, t / norm

    def outwards(self, x: Tensor, t: Tensor | float) -> Tensor:
        # z = (a + s) x = x / sqrt((1 - t)^2 + t^2)
        t = per_sample(t, x)
        return x / ((1 - t) ** 2 + t**2) ** 0.5

    def inwards(self, z: Tensor, t: Tensor | float) -> Tensor:
        t = per_sample(t, z)
        return z * ((1 - t) ** 2 + t**2) ** 0.5

    def velocity(self, output: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """v = noise - x0 from what the network gives at x (kinema's scale). "epsilon" needs t < 1, "sample" t > 0."""
        t = per_sample(t, x)
        if self.prediction == "epsilon":
            return (output - x) / (1 - t)  # x = x0 + t v and noise = x + (1 - t) v
        if self.prediction == "sample":
            return (x - output) / t
        a, s = self.coefficients(t)
        z = (a + s) * x
        return (s * z + a * output) - (a * z - s * output)  # noise - x0

    def output(self, v: Tensor, x: Tensor, t: Tensor | float) -> Tensor:
        """What the network would have given for the velocity v at x; the inverse of `velocity`."""
        t = per_sample(t, x)
        x0, noise = x - t * v, x + (1 - t) * v
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "sample":
            return x0
        a, s = self.coefficients(t)
        return a * noise - s * x0

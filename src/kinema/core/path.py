"""The path between data and noise, owned in one place.

kinema's only convention: x_t = (1 - t) * x0 + t * noise, the model gives the velocity v = dx/dt = noise - x0,
and t runs from 1 (noise) to 0 (data). Everything else is arithmetic on these two lines.

Letters, for the whole package: B batch, C channel, T latent frame, H W latent rows and columns, L token,
N head, D head width, P text token.
"""

from __future__ import annotations

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

"""Leave the blocks out while the signal in the latents, seen without their noise, has hardly changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Call


@technique("sea_cache", paper="arXiv:2602.18993", base="Cosmos 3, Wan 2.1", neutral=dict(threshold=0.0))
@dataclass(frozen=True, kw_only=True)
class SeaCache(Technique):
    """out = in + r, with r continued from the last computed steps, while the sum of distances is below `threshold`.

    The distance of two steps is the relative L1 distance of their latents after a Wiener filter that keeps the
    frequencies in which the noise level leaves signal.
    Paper: "SeaCache: Spectral-Evolution-Aware Cache for Accelerating Diffusion Models", 2026, arXiv:2602.18993; its
    authors publish a threshold of 0.2 and, faster, 0.35 for Wan 2.1 1.3B (0.2 and 0.4 for 14B). Departures: of
    diffusers' hooks, which do the work and whose other defaults these are: r is continued, at most two steps in a row
    are left out, one call decides for its whole batch, and the filter sees the latents, in kinema's convention for
    every family.
    Shapes: latents (B, C, T, H, W) for the filter; the hidden states of the network, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks without such blocks.
    """

    threshold: float = 0.35  # sum of distances that is let pass, no unit; 0 keeps nothing
    order: int = 1  # 0 repeats the last r, 1 continues the line through the last two
    first_steps: int = 1  # steps at the start that are computed
    last_steps: int = 1  # steps at the end that are computed
    most_in_a_row: int = 2  # steps that are left out one after the other; 0 is no limit
    power: float = 3.0  # how steeply the power of video falls with frequency, no unit

    def start(self, run: Run) -> None:
        for name in ("threshold", "first_steps", "last_steps", "most_in_a_row"):
            if not getattr(self, name) >= 0:
                raise KinemaError(f"{name} of sea_cache is {getattr(self, name)}; use 0 or more")
        if self.order not in (0, 1) or not self.power > 0:
            raise KinemaError(f"order {self.order} of sea_cache must be 0 or 1, power {self.power} more than 0")

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import SeaCacheConfig

        def latents(*_: Any) -> list[Tensor]:
            return [] if call.x is None else list(call.x.float().unbind(0))

        return SeaCacheConfig(  # type: ignore[no-untyped-call]
            threshold=self.threshold,
            residual_order=self.order,
            retention_steps=self.first_steps,
            cache_end_steps=self.last_steps,
            max_consecutive_cached=self.most_in_a_row,
            power_exp=self.power,
            raw_vision_callback=latents,
        )

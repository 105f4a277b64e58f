"""Compute the layers in every few steps, and continue their outputs as a Taylor series in the steps between."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Call

# Attentions and feed-forward layers of the blocks, as diffusers' video transformers name them.
LAYERS = r"(single_|vace_)?(transformer_)?blocks\.\d+\.(\w*attn\d?|(audio_)?ff|ffn|ff_context)"


@technique(
    "taylorseer",
    paper="arXiv:2503.06923",
    base="FLUX.1, HunyuanVideo, DiT-XL/2, Wan 2.1",
    neutral=dict(interval=1),
)
@dataclass(frozen=True, kw_only=True)
class TaylorSeer(Technique):
    """f(s + k) = sum over i <= order of d_i f(s) k^i / i!, with d_i from differences of the computed steps.

    Paper: "From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers", 2025, arXiv:2503.06923.
    Departures: of diffusers' hooks, which do the work: the first `warm_up` steps are computed, differences between them
    are of one step. diffusers' own choice of layers finds none in most video networks; here, as in the paper, it is
    every attention and feed-forward layer of the blocks; of the single blocks of HunyuanVideo, whose feed-forward is no
    module of its own, it is their attention alone. `lite` continues the output of the network alone.
    Shapes: the outputs of the layers, which keep theirs.
    Raises: KinemaError at start, for values out of range, and before the first step for networks without such layers.
    """

    interval: int = 5  # steps from one computed to the next, 1 computes all
    order: int = 1  # of the series; 0 repeats the last output
    warm_up: int = 3  # first steps, which are all computed; 1 or more
    lite: bool = False  # one series for the output of the network: quickest, least memory, coarse

    def start(self, run: Run) -> None:
        if self.interval < 1 or self.warm_up < 1 or self.order < 0:
            raise KinemaError(
                f"interval {self.interval} and warm_up {self.warm_up} of taylorseer must be 1 or more, "
                f"order {self.order} must be 0 or more"
            )

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import TaylorSeerCacheConfig

        return TaylorSeerCacheConfig(  # type: ignore[no-untyped-call]
            cache_interval=self.interval,
            disable_cache_before_step=self.warm_up,
            max_order=self.order,
            taylor_factors_dtype=run.backbone.dtype,
            cache_identifiers=None if self.lite else [LAYERS],
            use_lite_mode=self.lite,
        )

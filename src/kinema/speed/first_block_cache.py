"""Leave out all blocks but the first while what the first one changes stays about the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Technique

if TYPE_CHECKING:
    from kinema.core.run import Run
    from kinema.core.technique import Call


@technique(
    "first_block_cache",
    paper="arXiv:2411.19108",
    base="FLUX.1, HunyuanVideo, CogVideoX, Mochi",
    neutral=dict(threshold=0.0),
)
@dataclass(frozen=True, kw_only=True)
class FirstBlockCache(Technique):
    """out = first(x) + (what the other blocks added last), while |d first| / |first| <= threshold, as means.

    Paper: TeaCache, "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model", 2024, arXiv:2411.19108;
    the first block as its sensor comes from ParaAttention's First Block Cache. Departures: of diffusers' hooks, which
    do the work: one call decides for its whole batch.
    Shapes: the hidden states of the network, which keep theirs.
    Raises: KinemaError at start, for a threshold out of range, and before the first step for networks without such
    blocks, or when another technique leaves the first one out.
    """

    threshold: float = 0.05  # largest relative change of the first block's residual, no unit; 0 keeps nothing

    def start(self, run: Run) -> None:
        if not self.threshold >= 0:
            raise KinemaError(f"threshold of first_block_cache is {self.threshold}; use 0 or more")

    def cache(self, run: Run, call: Call) -> Any:
        from diffusers import FirstBlockCacheConfig

        branches = run.owner.dropped()
        steps = [replace(step, branch=branch) for step in run.schedule for branch in branches]
        for t in run.techniques:
            first = t.block_range is None or t.block_range[0] == 0
            if t.overrides("skip") and first and any(t.active(step) and t.skip(step, 0) for step in steps):
                raise KinemaError(f"first_block_cache looks at the first block, and {t.name} leaves it out; use one")
        return FirstBlockCacheConfig(threshold=self.threshold)  # type: ignore[no-untyped-call]

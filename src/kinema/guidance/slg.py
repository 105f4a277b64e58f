"""Guidance away from what the model would do with some of its blocks left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step, Technique
from kinema.guidance.cfg import weighted

if TYPE_CHECKING:
    from kinema.core.run import Run


@technique(
    "slg",
    paper="arXiv:2411.18664",
    base="Mochi, Open-Sora, Stable Video Diffusion; before it Stable Diffusion 3.5",
    neutral=dict(scale=1.0, slg_scale=0.0),
)
@dataclass(frozen=True, kw_only=True)
class SLG(Technique):
    """v = u + scale * (c - u) + slg_scale * (c - s), with s from the prompt and without the blocks `layers`.

    Paper: "Spatiotemporal Skip Guidance for Enhanced Video Diffusion Sampling", 2024, arXiv:2411.18664, which skips
    blocks of video models (STG-R) as Stability AI did in Stable Diffusion 3.5 (skip layer guidance, without a paper).
    Departures: the paper restores the spread of the prediction afterwards, which is left out; with slg_scale alone
    diffusers' guider starts from s instead of c, which is a weight of one less. Stable Diffusion 3.5 Medium takes
    blocks 7, 8 and 9 of 24 in 1 to 20 % of its steps, which is a `skip_range` of about (0.997, 0.92).
    Shapes: cond (c), uncond (u), skipped (s) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for a negative scale, a block the model has not, a block_range, or a skip_range
    without a step.
    """

    branches = {"cond": frozenset(), "uncond": frozenset({"text"}), "skipped": frozenset()}  # noqa: RUF012
    scale: float = 5.0  # weight of the prompt, no unit; 0 or more, 1 is none and saves its call
    slg_scale: float = 2.8  # weight of the blocks, no unit; 0 or more, 0 is none and saves its call
    layers: tuple[int, ...] = ()  # blocks that are left out, from 0; empty is the middle one
    skip_range: tuple[float, float] = (1.0, 0.0)  # noise levels in which s is asked for, no unit; the rest is plain

    def start(self, run: Run) -> None:
        if self.scale < 0 or self.slg_scale < 0:
            raise KinemaError(f"scale {self.scale} and slg_scale {self.slg_scale} of slg must be 0 or more")
        count = run.backbone.block_count
        if not all(0 <= layer < count for layer in self.layers):
            raise KinemaError(
                f"layers of slg are {self.layers}; {run.backbone.name!r} has blocks from 0 to {count - 1}"
            )
        if self.block_range is not None:
            raise KinemaError(f"block_range of slg is {self.block_range}; it leaves out the blocks named in layers")
        if not any(self.active(step) and self._in_range(step) for step in run.schedule):
            raise KinemaError(
                f"skip_range of slg is {self.skip_range}, and none of the {run.steps} steps is in it and in noise_range"
            )
        run.state[self] = frozenset(self.layers or {count // 2})

    def skip(self, step: Step, block: int) -> bool:
        return step.branch == "skipped" and step.run is not None and block in step.run.state[self]

    def needs(self, step: Step) -> Sequence[str]:
        asked = {"cond": True, "uncond": self.scale != 1, "skipped": self.slg_scale != 0 and self._in_range(step)}
        return [branch for branch, wanted in asked.items() if wanted]

    def guide(self, step: Step, cond: Tensor, uncond: Tensor | None = None, skipped: Tensor | None = None) -> Tensor:  # type: ignore[override]
        v = cond if uncond is None else weighted(uncond, (self.scale, cond, uncond))
        return v if skipped is None else weighted(v, (self.slg_scale, cond, skipped))

    def _in_range(self, step: Step) -> bool:
        return self.skip_range[0] >= step.t >= self.skip_range[1]

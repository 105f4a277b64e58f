"""Guidance away from what the model would do with its self-attention switched off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step
from kinema.guidance.cfg import weighted
from kinema.guidance.perturbed import Perturbed

if TYPE_CHECKING:
    from kinema.core.attention import Site
    from kinema.core.run import Run


@technique(
    "pag",
    paper="arXiv:2403.17377",
    base="Stable Diffusion 1.5, ADM",
    neutral=dict(scale=1.0, pag_scale=0.0),
)
@dataclass(frozen=True, kw_only=True)
class PAG(Perturbed):
    """v = u + scale * (c - u) + pag_scale * (c - p), with p from self-attention whose map is the identity.

    Paper: "Self-Rectifying Diffusion Sampling with Perturbed-Attention Guidance", 2024, arXiv:2403.17377, eq. 16.
    Departures: the paper perturbs the middle block of a UNet; here it is the middle block of any model, unless
    `block_range` says otherwise. In joint attention the text keeps only itself, too. In AnimateDiff it is attention
    within frames that is perturbed, as in diffusers, and not the one over frames.
    Shapes: cond (c), uncond (u), perturbed (p) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for a negative scale.
    """

    branches = {"cond": frozenset(), "uncond": frozenset({"text"}), "perturbed": frozenset()}  # noqa: RUF012
    scale: float = 5.0  # weight of the prompt, no unit; 0 or more, 1 is none and saves its call
    pag_scale: float = 3.0  # weight of the perturbation, no unit; 0 or more, 0 is none and saves its call

    def start(self, run: Run) -> None:
        if self.scale < 0 or self.pag_scale < 0:
            raise KinemaError(f"scale {self.scale} and pag_scale {self.pag_scale} of pag must be 0 or more")
        blocks = sorted({site.block for site in run.backbone.sites})
        middle = min(
            (site.block for site in run.backbone.sites if self.wants(site)),
            key=lambda block: abs(block - blocks[len(blocks) // 2]),
        )
        run.state[self] = (middle, middle) if self.block_range is None else self.block_range

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "joint", "spatial")

    def needs(self, step: Step) -> Sequence[str]:
        asked = {"cond": True, "uncond": self.scale != 1, "perturbed": self.pag_scale != 0}
        return [branch for branch, wanted in asked.items() if wanted]

    def guide(  # type: ignore[override]
        self, step: Step, cond: Tensor, uncond: Tensor | None = None, perturbed: Tensor | None = None
    ) -> Tensor:
        v = cond if uncond is None else weighted(uncond, (self.scale, cond, uncond))
        return v if perturbed is None else weighted(v, (self.pag_scale, cond, perturbed))

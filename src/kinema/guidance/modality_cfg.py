"""Guidance of video and sound made together: by the prompt, by attention, and by what each reads of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import Step
from kinema.guidance.perturbed import Perturbed

if TYPE_CHECKING:
    from kinema.core.attention import Site
    from kinema.core.run import Run


@technique(
    "modality_cfg",
    paper="arXiv:2601.03233",
    base="LTX-2",
    neutral=dict(scale=1.0, sound_scale=1.0, stg_scale=0.0, modality_scale=1.0, rescale=0.0),
)
@dataclass(frozen=True, kw_only=True)
class ModalityCFG(Perturbed):
    """x0 = c + (scale - 1) (c - u) + stg_scale (c - p) + (modality_scale - 1) (c - m), brought near the spread of c.

    All are clean estimates, of the video or of its sound: c under the prompt, u under the negative prompt, p with the
    self-attentions of a block switched off, m with video and sound that do not read each other. The weights of the
    sound are those of the video unless they are named.
    Paper: "LTX-2: Efficient Joint Audio-Visual Foundation Model", 2026, arXiv:2601.03233; p is from "Spatiotemporal
    Skip Guidance for Enhanced Video Diffusion Sampling", 2024, arXiv:2411.18664, the spread from "Common Diffusion
    Noise Schedules and Sample Steps are Flawed", 2023, arXiv:2305.08891, eq. 15 and 16.
    Departures: the weights are those of the authors' code, which has the last two terms beside the paper's own.
    Shapes: the branches and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for values out of range. A model that makes no sound is refused by the run.
    """

    branches = {  # noqa: RUF012
        "cond": frozenset(),
        "uncond": frozenset({"text"}),
        "perturbed": frozenset(),
        "isolated": frozenset({"modality"}),
    }
    scale: float = 3.0  # weight of the prompt, no unit; 0 or more, 1 is none
    stg_scale: float = 1.0  # weight of the self-attentions, no unit; 0 or more, 0 is none
    modality_scale: float = 3.0  # weight of the other modality, no unit; 0 or more, 1 is none
    rescale: float = 0.7  # how much of the spread is given back, 0..1
    sound_scale: float | None = 7.0  # the same four for the sound; None is as for the video
    sound_stg_scale: float | None = None
    sound_modality_scale: float | None = None
    sound_rescale: float | None = None

    def start(self, run: Run) -> None:
        for of in ("video", "sound"):
            *weights, rescale = self.weights(of)
            if min(weights) < 0 or not 0 <= rescale <= 1:
                raise KinemaError(
                    f"the weights of modality_cfg for the {of} are {weights}, and rescale is {rescale}; use 0 or more, "
                    "and 0 to 1"
                )
        blocks = self.block_range
        if blocks is None:
            block = run.backbone.defaults.perturbed_block or 0
            blocks = (block, block)
        run.state[self] = blocks

    def weights(self, of: str) -> tuple[float, float, float, float]:
        """scale, stg_scale, modality_scale and rescale of the video or of the sound."""
        own = (self.scale, self.stg_scale, self.modality_scale, self.rescale)
        if of == "video":
            return own
        asked = (self.sound_scale, self.sound_stg_scale, self.sound_modality_scale, self.sound_rescale)
        scale, stg, modality, rescale = (o if a is None else a for a, o in zip(asked, own, strict=True))
        return scale, stg, modality, rescale

    def needs(self, step: Step) -> Sequence[str]:
        each = [self.weights(of) for of in ("video", "sound")]
        asked = {
            "uncond": any(scale != 1 for scale, *_ in each),
            "perturbed": any(stg != 0 for _, stg, *_ in each),
            "isolated": any(modality != 1 for _, _, modality, _ in each),
        }
        return ["cond", *(branch for branch, wanted in asked.items() if wanted)]

    def wants(self, site: Site) -> bool:
        return site.kind in ("self", "sound_self")

    def guide(self, step: Step, cond: Tensor, **others: Tensor) -> Tensor:  # type: ignore[override]
        scale, stg, modality, rescale = self.weights(step.of)
        v = combine(cond, others, {"uncond": scale - 1, "perturbed": stg, "isolated": modality - 1})
        if rescale == 0:
            return v
        assert step.run is not None and step.x is not None
        path = step.run.path
        x0 = respread(path.clean(step.x, v, step.t), path.clean(step.x, cond, step.t), rescale)
        return path.velocity_to(x0, step.x, step.t)


def combine(cond: Tensor, others: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """c + the sum of w (c - o) over the others; the same for velocities as for clean estimates."""
    found = cond
    for name, other in others.items():
        found = found + weights[name] * (cond - other)
    return found


def respread(x: Tensor, like: Tensor, rescale: float) -> Tensor:
    """x with the spread of `like` in each sample, as far as `rescale` (0..1) says; both are (B, C, T, H, W)."""
    dims = tuple(range(1, x.ndim))
    spread = like.std(dims, keepdim=True) / x.std(dims, keepdim=True)
    return rescale * (x * spread) + (1 - rescale) * x

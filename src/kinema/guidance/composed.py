"""Guidance by several prompts at once, each with a weight; a negative weight leads away from what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.core.registry import technique
from kinema.core.technique import STANDARD_BRANCHES, Step, Technique
from kinema.guidance.cfg import weighted

if TYPE_CHECKING:
    from kinema.core.run import Run


@technique(
    "composed",
    paper="arXiv:2206.01714",
    base="Stable Diffusion, GLIDE",
    neutral=dict(scale=1.0, prompts=("a blue cube",), weights=(0.0,)),
)
@dataclass(frozen=True, kw_only=True)
class Composed(Technique):
    """v = u + scale * (c - u) + sum_k weights[k] * (c_k - u), with c under the prompt and c_k under prompts[k].

    Paper: "Compositional Visual Generation with Composable Diffusion Models", 2022, arXiv:2206.01714, eq. 11 (AND) and
    13 (NOT, a negative weight). Departures: u is under the negative prompt, which is empty unless one is given.
    Shapes: cond (c), uncond (u), the c_k and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, without prompts, when prompts and weights differ in number, or a prompt is empty.
    """

    branches = ("cond", "uncond")
    scale: float = 5.0  # weight of the request's own prompt, no unit
    prompts: tuple[str, ...] = ()  # what else is read, a call of the model each
    weights: tuple[float, ...] = ()  # one for each of them, no unit; below 0 is away from it

    def start(self, run: Run) -> None:
        if not self.prompts:
            raise KinemaError("composed has no prompts; give some, and a weight for each, or use cfg")
        if len(self.prompts) != len(self.weights):
            raise KinemaError(
                f"composed has {len(self.prompts)} prompts and {len(self.weights)} weights; give one each"
            )
        if not all(prompt.strip() for prompt in self.prompts):
            raise KinemaError("one of the prompts of composed is empty; say what it shows, or use the negative prompt")
        for branch, prompt in zip(self._also(), self.prompts, strict=True):
            run.read_instead(branch, prompt)

    def dropped(self) -> Mapping[str, frozenset[str]]:
        return {**STANDARD_BRANCHES, **{branch: frozenset() for branch in self._also()}}

    def _also(self) -> list[str]:
        """Names of the branches of `prompts`."""
        return [f"prompt_{k}" for k in range(len(self.prompts))]

    def guide(self, step: Step, cond: Tensor, uncond: Tensor, **also: Tensor) -> Tensor:  # type: ignore[override]
        others = [(w, also[branch], uncond) for w, branch in zip(self.weights, self._also(), strict=True)]
        return weighted(uncond, (self.scale, cond, uncond), *others)

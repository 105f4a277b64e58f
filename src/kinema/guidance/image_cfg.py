"""Guidance by prompt and picture, each with a weight of its own."""

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


@technique("image_cfg", paper="arXiv:2211.09800", base="Stable Diffusion 1.5", neutral=dict(scale=1.0, image_scale=1.0))
@dataclass(frozen=True, kw_only=True)
class ImageCFG(Technique):
    """v = u + image_scale * (i - u) + scale * (c - i): c with both, i with the picture alone, u with neither.

    Paper: "InstructPix2Pix: Learning to Follow Image Editing Instructions", 2022, arXiv:2211.09800, eq. 3. Departures:
    the picture is a first frame and not what is edited; where the prompt is left out, the negative one is read. It
    needs a model that was trained without its picture, too: CogVideoX image to video, VACE.
    Shapes: cond (c), image (i), uncond (u) and the result are (B, C, T, H, W), in latent units per unit of t.
    Raises: KinemaError at start, for a negative scale, or without a picture.
    """

    branches = {"cond": frozenset(), "image": frozenset({"text"}), "uncond": frozenset({"text", "image"})}  # noqa: RUF012
    scale: float = 7.5  # weight of the prompt, no unit; 0 or more
    image_scale: float = 1.5  # weight of the picture, no unit; 0 or more, 1 saves the call with neither

    def start(self, run: Run) -> None:
        if self.scale < 0 or self.image_scale < 0:
            raise KinemaError(f"scale {self.scale} and image_scale {self.image_scale} of image_cfg must be 0 or more")
        if run.requests[0].image is None and run.requests[0].video is None:
            raise KinemaError("image_cfg guides by a picture, and none is given; give an image, or use cfg")

    def needs(self, step: Step) -> Sequence[str]:
        return ("cond", "image") if self.image_scale == 1 else ("cond", "image", "uncond")

    def guide(self, step: Step, cond: Tensor, image: Tensor, uncond: Tensor | None = None) -> Tensor:  # type: ignore[override]
        v = image if uncond is None else weighted(uncond, (self.image_scale, image, uncond))
        return weighted(v, (self.scale, cond, image))

"""Follow a camera path by a thin branch beside the first blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from kinema.camera.steered import CameraAdapter, told, told_channels
from kinema.core.adapter import AdapterNetwork, ModelFace
from kinema.core.features import Inside
from kinema.core.registry import technique
from kinema.layers.beside import Branch, BranchNetwork


class AC3DNetwork(BranchNetwork):
    """A branch that sees rays, beside the first third of the blocks unless told otherwise."""

    def __init__(self, face: ModelFace, blocks: Sequence[int], width: int = 64, heads: int = 4) -> None:
        super().__init__(face, blocks, told_channels(face), width, heads)

    @classmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        return {"blocks": list(face.widths)[: max(1, round(len(face.widths) / 3))]}

    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> Branch:
        return self.begun(inside, told(given["rays"]))


@technique("ac3d", paper="arXiv:2411.18673", base="an 11.5B video DiT; code on CogVideoX", neutral=dict(weight=0.0))
@dataclass(frozen=True, kw_only=True)
class AC3D(CameraAdapter):
    """h_i + W_i c_i behind the first blocks, where c is a thin DiT that sees the noisy latents and the rays.

    Paper: "AC3D: Analyzing and Improving 3D Camera Control in Video Diffusion Transformers", 2024, arXiv:2411.18673.
    The base is frozen and the branch reads no text; it is trained mostly in the noise levels where the camera is
    decided, on clips of moving cameras and of still ones in front of moving things.
    Departures: the paper trains and acts in levels above 0.6 alone. So trained it tells mini as much of a clip as VD3D
    does, but the guidance by a prompt that names no camera, which in mini means a still one, undoes it further down; so
    mini's is trained on down to 0.05 and acts to 0.1. `noise_range` [1.0, 0.6] is the paper's. Rays are told by how
    they have changed since the first frame, and once where that one looks (`camera/steered.py`). The branch is as thin
    as the base is small; it sees the base's tokens through a linear layer and not through cross-attention; rays of the
    frames of a latent frame are channels of its cells, where the paper has a causal convolution over time. The
    paper's guidance, (1 + w_y + w_c) v(y, c) - w_y v(0, c) - w_c v(y, 0), is joint = False and `guidance` = 1 + w_c
    beside guidance_scale = 1 + w_y. By default text and path are joint, v(0, 0) + (s + guidance - 1)(v(y, c) -
    v(0, 0)): as precise with mini, closer to the prompt, and one call of the model less.
    Shapes: rays (B, 6 k, T, H, W), k frames of a latent frame; features (B', L, D).
    Raises: KinemaError at start, for a camera that cannot be read, or without weights for the model.
    """

    network: ClassVar[type[AdapterNetwork]] = AC3DNetwork
    noise_range: tuple[float, float] = (1.0, 0.1)

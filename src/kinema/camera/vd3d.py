"""Follow a camera path by cross-attention to its rays behind every block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from kinema.camera.steered import CameraAdapter, told, told_channels
from kinema.core.adapter import AdapterNetwork, ModelFace
from kinema.core.features import Inside, Place
from kinema.core.registry import technique
from kinema.layers.branch import counted, patches, places_table, zeros
from kinema.layers.rotary_pairs import turned


class _Seen(NamedTuple):
    tokens: tuple[int, int, int]
    rays: Tensor  # (B', L, D)


class RayBlock(nn.Module):
    """h += Z FFN(a + CrossAttn(a, p)) with a the features in the width of the rays, and Z = 0 at first."""

    def __init__(self, outer: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(outer)
        self.enter, self.norm_inner = nn.Linear(outer, width), nn.LayerNorm(width)
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.leave = zeros(nn.Linear(width, outer))

    def forward(self, h: Tensor, rays: Tensor, own: Tensor, theirs: Tensor) -> Tensor:
        """h (B', L, outer), rays (B', P, width); own and theirs: rotary tables of both."""
        a = self.enter(self.norm(h))
        q = self.q(self.norm_inner(a)).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(rays).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(turned(q, own), turned(k, theirs), v).transpose(1, 2).flatten(2)
        a = a + self.out(seen)
        out: Tensor = self.leave(self.narrow(F.gelu(self.wide(a))))
        return out


class VD3DNetwork(AdapterNetwork):
    """One token for each patch of rays, which every block of the base attends to."""

    def __init__(self, face: ModelFace, blocks: Sequence[int], width: int = 128, heads: int = 4) -> None:
        super().__init__(face, tuple(blocks))
        self.patch = face.patch if face.patch[1] > 1 else (face.patch[0], 2, 2)
        cells = self.patch[0] * self.patch[1] * self.patch[2]
        self.embed = nn.Sequential(nn.Linear(told_channels(face) * cells, width), nn.GELU(), nn.Linear(width, width))
        self.ray_blocks = nn.ModuleDict({str(i): RayBlock(face.widths[i], width, heads) for i in self.blocks})
        self.head_width = width // heads

    @classmethod
    def sizes(cls, face: ModelFace) -> dict[str, Any]:
        return {"blocks": list(face.widths)}

    def begin(self, inside: Inside, given: Mapping[str, Tensor]) -> _Seen:
        rays = inside.of(told(given["rays"]), dim=2).float()
        return _Seen(counted(rays.shape, self.patch), self.embed(patches(rays, self.patch)))

    def residual(self, seen: _Seen, place: Place, h: Tensor) -> Tensor:
        own = places_table(place.tokens, self.head_width, h.device)
        theirs = places_table(seen.tokens, self.head_width, h.device)
        out: Tensor = self.ray_blocks[str(place.block)](h.float(), seen.rays, own, theirs)
        return out


@technique("vd3d", paper="arXiv:2407.12781", base="Snap Video, a FIT transformer", neutral=dict(weight=0.0))
@dataclass(frozen=True, kw_only=True)
class VD3D(CameraAdapter):
    """h + Z FFN(h + CrossAttn(h, p)) behind every block, with p a token for each patch of Pluecker rays.

    Paper: "VD3D: Taming Large Video Diffusion Transformers for 3D Camera Control", 2024, arXiv:2407.12781.
    Departures: rays are told by how they have changed since the first frame, and once where that one looks
    (`camera/steered.py`). The paper's blocks condition the patch tokens of a FIT transformer ahead of its read;
    here they stand behind the blocks of any transformer, in a narrower width, with weights of their own and not copies
    of the base's, whose width differs. Only Z begins as zero. Text and path are guided jointly, as in kinema's AC3D.
    Shapes: rays (B, 6 k, T, H, W), k frames of a latent frame; features (B', L, D).
    Raises: KinemaError at start, for a camera that cannot be read, or without weights for the model.
    """

    network: ClassVar[type[AdapterNetwork]] = VD3DNetwork

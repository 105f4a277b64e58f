"""Images on flat objects: looked up by rays at the level of detail that the screen can show (Williams, 1983).

Colours are kept multiplied by their alpha, so that transparent texels never bleed into the edge of a picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kinema.world.spec import SceneState
from kinema.world.vocabulary import KINDS

SIZE = 256  # texels along each side of the finest level
LEVELS = 5
FLAT_KINDS = (KINDS.index("picture"), KINDS.index("letter"))


@dataclass
class Atlas:
    """All images of a batch, at LEVELS levels of detail each."""

    texels: Tensor  # (4, all texels) RGB times alpha, and alpha
    row: Tensor  # (B, N) int64 number of the image of an object; -1 where it has none
    aspect: Tensor  # (R,) width over height

    def sample(self, row: Tensor, level: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """RGBA (4, K, R), colours times alpha, at level (K,) of images row (K,); u, v (K, R) in 0..1 from top left."""
        side = torch.div(SIZE, 2**level, rounding_mode="floor")
        whole = sum((SIZE >> i) ** 2 for i in range(LEVELS))
        before = torch.tensor([sum((SIZE >> i) ** 2 for i in range(k)) for k in range(LEVELS)], device=row.device)
        first = (row * whole + before[level])[:, None]
        limit = (side - 1)[:, None]
        x, y = u * side[:, None] - 0.5, v * side[:, None] - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = x - x0, y - y0
        result: Tensor | None = None
        for dy, wy in ((0, 1 - fy), (1, fy)):
            for dx, wx in ((0, 1 - fx), (1, fx)):
                column = (x0.long() + dx).clamp_min(0).minimum(limit)
                line = (y0.long() + dy).clamp_min(0).minimum(limit)
                tap = self.texels.index_select(1, (first + line * side[:, None] + column).view(-1))
                tap = tap.view(4, *u.shape) * (wx * wy)
                result = tap if result is None else result + tap
        assert result is not None
        return result


def build_atlas(state: SceneState) -> Atlas | None:
    """The images of a batch, or nothing where no object is flat.

    Raises:
        ValueError: when a picture or a letter has no image, or an image is not RGBA (4, h, w).
    """
    flat = (state.kind == FLAT_KINDS[0]) | (state.kind == FLAT_KINDS[1])
    if not flat.any():
        return None
    row = torch.full_like(state.kind, -1)
    images: list[Tensor] = []
    aspect: list[float] = []
    for clip, index in flat.nonzero().tolist():
        image = state.texture.get((clip, index))
        name = KINDS[int(state.kind[clip, index])]
        if image is None:
            raise ValueError(f"object {index} of clip {clip} is a {name} without an image; put one into state.texture")
        if image.ndim != 3 or image.shape[0] != 4:
            raise ValueError(f"the image of a {name} has shape {tuple(image.shape)}; use RGBA (4, height, width)")
        row[clip, index] = len(images)
        aspect.append(image.shape[2] / image.shape[1])
        images.append(_pyramid(image.to(state.centre.device).float()))
    return Atlas(torch.cat(images, 1), row, torch.tensor(aspect, device=row.device, dtype=torch.float32))


def _pyramid(image: Tensor) -> Tensor:
    """All levels of one RGBA image (4, h, w) in a row: (4, texels)."""
    pixels = torch.cat([image[:3] * image[3:], image[3:]])[None]
    top = F.interpolate(pixels, (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
    return torch.cat([F.avg_pool2d(top, 1 << i).flatten(2) for i in range(LEVELS)], 2)[0]


def level_of(pixels: Tensor) -> Tensor:
    """Level of detail (M,) int64 for images shown `pixels` (M,) high, at two samples a pixel."""
    return (SIZE / (2.0 * pixels.clamp_min(1.0))).log2().floor().clamp(0, LEVELS - 1).long()

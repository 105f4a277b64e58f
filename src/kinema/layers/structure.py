"""Where things are in a clip, without how they look: the structure that an edit keeps, and how much of it.

In "Structure and Content-Guided Video Synthesis with Diffusion Models" (Gen-1), 2023, arXiv:2302.03011, structure is
depth, of which detail is taken away on purpose; edges, light and flow go the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kinema.core.errors import KinemaError
from kinema.layers import depth_anything
from kinema.layers.depth import Depth
from kinema.layers.edges import edges
from kinema.layers.optical_flow import dense_inverse_search
from kinema.layers.pixels import device

KINDS = ("depth", "edges", "grey", "flow")
LEVELS = 7  # the loosest level of detail; 0 is the exact one
EXTREMES = (0.01, 0.99)  # shares of a clip's pixels that are black and white at most
MOST = 1 << 20  # values of which extremes are taken, or up to four times as many
STILL = 1 / 256  # of the height, a motion from frame to frame that is not made to look larger
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


Scale = tuple[float, ...]  # what is black and white in the structure of a clip, see `scale_of`


def structure(frames: np.ndarray, kind: str, depth: str = "", scale: Scale | None = None) -> Tensor:
    """Frames (T, H, W, 3) uint8 -> (T, H, W) float32 in 0..1; flow gives (T, H, W, 3).

    kind: "depth", near is white; "edges", 0 or 1; "grey", the light; "flow", see `flow_colours`.
    depth: what sees depth: "" for kinema's own network, "depth_anything" or "depth_anything@MODEL" for one of
    transformers, a hub id or a folder.
    scale: of the clip that the frames are a part of, see `scale_of`; None where they are all of it.

    Raises: KinemaError for another kind, for a network that cannot be had, and for edges or flow without OpenCV.
    """
    if kind not in KINDS:
        raise KinemaError(f"there is no structure {kind!r}; use one of {', '.join(KINDS)}")
    if depth and kind != "depth":
        raise KinemaError(f"{depth!r} sees depth, and the structure is to be {kind}; leave it out")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise KinemaError(f"frames are {frames.shape} {frames.dtype}; give (T, H, W, 3) uint8, one frame at least")
    if kind == "depth":
        return normalised(torch.from_numpy(nearness(frames, depth)), scale)
    if kind == "edges":
        return torch.from_numpy(edges(frames)).float()
    if kind == "flow":
        return flow_colours(torch.from_numpy(dense_inverse_search(frames)), scale)
    luma: Tensor = torch.from_numpy(frames).float() @ torch.tensor(LUMA) / 255
    return luma


def scale_of(parts: Sequence[np.ndarray], kind: str, depth: str = "") -> Scale:
    """What is black and white in a clip, from parts (n, H, W, 3) uint8 of it: parts that share it fit together.

    The nearest and the farthest for depth, how fast things go for flow, and nothing for what is told by itself.
    """
    if kind == "depth":
        return extremes(torch.from_numpy(nearness(np.concatenate(list(parts)), depth)))
    if kind == "flow":
        return (speed(torch.cat([torch.from_numpy(dense_inverse_search(part)) for part in parts])),)
    return ()


def structure_of_depth(depth: Tensor) -> Tensor:
    """True depth of a clip (T, H, W) in metres, inf in the sky -> the structure that its frames should give."""
    return normalised(1 / depth)


def normalised(near: Tensor, scale: Scale | None = None) -> Tensor:
    """Nearness of a clip (T, H, W), up to scale and shift -> (T, H, W) in 0..1.

    (near - low) / (high - low), cut off, with the EXTREMES of the whole clip: those of single frames would make depth
    pump. 0 where all is equally near.
    """
    low, high = extremes(near) if scale is None else scale
    if high - low <= 1e-6 * max(abs(low), abs(high)):
        return torch.zeros_like(near)
    return ((near - low) / (high - low)).clamp(0, 1)


def extremes(near: Tensor) -> tuple[float, float]:
    """What nearly all of (T, H, W) lies between."""
    low, high = (float(_quantile(near, share)) for share in EXTREMES)
    return low, high


def flow_colours(flow: Tensor, scale: Scale | None = None) -> Tensor:
    """Optical flow (T-1, H, W, 2), right and down in pixels -> colours (T, H, W, 3) in 0..1; the last frame repeats.

    Channel c is 1/2 + (u cos a + v sin a) / (2 m), a = 2 pi c / 3: grey stands still, and a colour can be turned back
    into a motion. m is the length that nearly all motions of the clip stay below, so that colours keep their meaning
    from frame to frame.
    """
    (fast,) = (speed(flow),) if scale is None else scale
    still = flow.new_zeros((1, *flow.shape[1:]))
    flow = torch.cat([flow, flow[-1:] if len(flow) else still])
    angles = 2 * torch.pi * torch.arange(3, device=flow.device) / 3
    wheel = torch.stack([angles.cos(), angles.sin()])  # (2, 3)
    return (0.5 + 0.5 * (flow @ wheel) / max(fast, STILL * flow.shape[1])).clamp(0, 1)


def speed(flow: Tensor) -> float:
    """The length in pixels that nearly all motions (T, H, W, 2) stay below; 0 of none."""
    return float(_quantile(flow.norm(dim=-1), EXTREMES[1])) if len(flow) else 0.0


def _quantile(x: Tensor, share: float) -> Tensor:
    """Of maps (T, H, W), from some of their values all over the clip where there are many."""
    step = max(1, int((x.numel() / MOST) ** 0.5))
    return torch.quantile(x[:, ::step, ::step].flatten().float(), share)


def detail(structure: Tensor, level: float) -> Tensor:
    """A structure (T, H, W) or (T, H, W, 3) with less detail: 0 leaves it as it is, 7 leaves hardly more than masses.

    A Gaussian over rows and columns with a standard deviation of (2^level - 1) / 512 of the height, so that a level
    means the same at every resolution, and levels near 0 are nearly exact; at the borders its weights are those of the
    pixels that are there. Gen-1 takes detail away by blurring and shrinking the picture `level` times.
    Raises: KinemaError for a level outside 0..7.
    """
    if not 0 <= level <= LEVELS:
        raise KinemaError(f"the level of detail is {level}; use 0 (exact) to {LEVELS} (loosest)")
    if level == 0:
        return structure
    colours = structure.ndim == 4
    x = structure.movedim(-1, 1) if colours else structure
    height, width = x.shape[-2:]
    sigma = height * (2**level - 1) / 512
    x = _gaussian(height, sigma).to(x) @ x @ _gaussian(width, sigma).to(x).T
    return x.movedim(1, -1) if colours else x


def _gaussian(count: int, sigma: float) -> Tensor:
    """(count, count): how much each place takes from each, in rows that sum to 1."""
    apart = torch.arange(count, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((apart[:, None] - apart) / sigma) ** 2)
    return weights / weights.sum(1, keepdim=True)


def level_of(fidelity: float) -> float:
    """The level of detail for a fidelity of 0 (free) to 1 (exact): 7 cbrt(1 - fidelity).

    Half of the levels blur by less than what a video model's latent cells hold, and share an eighth of the fidelities.
    Raises: KinemaError outside of that.
    """
    if not 0 <= fidelity <= 1:
        raise KinemaError(f"the fidelity is {fidelity}; use 0 (free) to 1 (exact)")
    return LEVELS * math.pow(1 - fidelity, 1 / 3)


def nearness(frames: np.ndarray, by: str = "") -> np.ndarray:
    """Frames (T, H, W, 3) uint8 -> (T, H, W) float32, up to scale and shift, by the network that `by` names."""
    name, _, model = by.partition("@")
    if name not in ("", depth_anything.NAME):
        raise KinemaError(f"{by!r} sees no depth; use {depth_anything.NAME}, {depth_anything.NAME}@MODEL, or nothing")
    return (_others(model or depth_anything.USUAL) if name else _own()).nearness(frames)


@lru_cache(maxsize=1)
def _own() -> Depth:
    return Depth.load(device=device())


@lru_cache(maxsize=2)
def _others(model: str) -> depth_anything.DepthAnything:
    return depth_anything.DepthAnything(model)

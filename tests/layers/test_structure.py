"""Structure: one scale for the whole clip, the same from true depth as from pictures, and less detail by levels."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import tiny
from kinema.claims.clips import real_clips, scenes
from kinema.core.errors import KinemaError, Unreachable
from kinema.layers.depth_anything import DepthAnything
from kinema.layers.structure import (
    KINDS,
    LEVELS,
    detail,
    flow_colours,
    level_of,
    nearness,
    normalised,
    structure,
    structure_of_depth,
)


@pytest.fixture(scope="module")
def bunny() -> np.ndarray:
    return real_clips(1)[0].frames[:4]


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def fineness(x: torch.Tensor) -> float:
    """Energy of the differences between neighbours, rows and columns."""
    return float(x.diff(dim=1).square().sum() + x.diff(dim=2).square().sum())


def test_scale_and_shift_of_nearness_are_forgotten_for_the_whole_clip_and_not_by_frames() -> None:
    near = noise(3, 20, 30)
    found = normalised(near)
    torch.testing.assert_close(normalised(7 * near + 3), found)
    assert found.min() == 0 and found.max() == 1
    closer = normalised(torch.stack([near[0], near[0] + 1]))
    assert (closer[1] > closer[0]).all()  # a frame of its own would be as white as the first
    assert (normalised(torch.full((2, 4, 4), 5.0)) == 0).all()


def test_single_pixels_do_not_set_the_scale() -> None:
    near = noise(1, 100, 100)
    spoiled = near.clone()
    spoiled[0, :5, :5] = 1e6
    apart = (normalised(spoiled) - normalised(near)).abs()
    assert apart[0, 5:].max() < 0.02


def test_true_depth_goes_the_same_way_and_the_sky_is_black() -> None:
    depth = 1 + 9 * noise(2, 16, 16)
    depth[:, :3] = torch.inf
    found = structure_of_depth(depth)
    torch.testing.assert_close(found, normalised(2 / depth + 1))
    assert (found[:, :3] == 0).all() and (found[:, 3:] > 0).all()


def test_every_level_has_less_detail_and_the_first_is_exact() -> None:
    for shape in ((1, 128, 96), (1, 128, 96, 3)):
        x = noise(*shape)
        assert detail(x, 0) is x
        found = [fineness(detail(x, level)) for level in range(LEVELS + 1)]
        assert all(fine > coarse > 0 for fine, coarse in pairwise(found))
        assert detail(x, 3).shape == x.shape
        torch.testing.assert_close(detail(torch.full(shape, 0.3), 5), torch.full(shape, 0.3))


@pytest.mark.parametrize("height", [128, 256])
def test_a_level_is_a_part_of_the_height_at_every_resolution(height: int) -> None:
    point = torch.zeros(1, height, 2 * height)
    point[0, height // 2, height] = 1
    spread = detail(point, 4)[0]
    away = torch.arange(height) - height // 2
    sigma = (spread.sum(1) * away**2).sum().sqrt() / height
    across = (spread.sum(0) * (torch.arange(2 * height) - height) ** 2).sum().sqrt() / height
    assert float(sigma) == pytest.approx(15 / 512, rel=1e-3) and float(across) == pytest.approx(15 / 512, rel=1e-3)


def test_fidelity_goes_from_free_to_exact() -> None:
    assert [level_of(f) for f in (1, 0.875, 0)] == [0, 3.5, 7]
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(KinemaError, match="use 0 \\(free\\) to 1 \\(exact\\)"):
            level_of(bad)
        with pytest.raises(KinemaError, match=r"use 0 \(exact\) to 7"):
            detail(noise(1, 8, 8), 8 if bad > 1 else bad)


def test_colours_of_flow_can_be_turned_back_and_grey_stands_still() -> None:
    flow = torch.zeros(2, 32, 32, 2)
    flow[0] = torch.tensor([3.0, -4.0])
    found = flow_colours(flow)
    assert found.shape == (3, 32, 32, 3) and (found[1:] == 0.5).all()
    angles = 2 * torch.pi * torch.arange(3) / 3
    back = 2 / 3 * 2 * (found[0] - 0.5) @ torch.stack([angles.cos(), angles.sin()], 1)
    torch.testing.assert_close(back, (flow[0] / 5))
    assert (flow_colours(torch.zeros(0, 8, 8, 2)) == 0.5).all()
    shaking = flow_colours(torch.full((1, 64, 64, 2), 0.01))
    assert (shaking - 0.5).abs().max() < 0.03  # what hardly moves stays grey


def test_what_moves_right_is_seen_to_move_right() -> None:
    pattern = torch.nn.functional.avg_pool2d(noise(1, 3, 70, 90), 5, 1)[0].permute(1, 2, 0)
    pattern = ((pattern - pattern.min()) / (pattern.max() - pattern.min()) * 255).byte().numpy()
    frames = np.stack([pattern[:, 8 - 2 * t : 72 - 2 * t] for t in range(3)])
    found = structure(frames, "flow")[:, 8:-8, 8:-8]
    assert found[..., 0].mean() > 0.9 and found[..., 1:].mean() < 0.4


@pytest.mark.parametrize("kind", KINDS)
def test_a_real_clip_has_every_structure(kind: str, bunny: np.ndarray) -> None:
    found = structure(bunny, kind)
    shape = bunny.shape if kind == "flow" else bunny.shape[:3]
    assert found.shape == shape and found.dtype == torch.float32
    assert found.min() >= 0 and found.max() <= 1 and found.std() > 0.01
    if kind == "grey":
        white = structure(np.full((1, 4, 4, 3), 255, np.uint8), "grey")
        torch.testing.assert_close(white, torch.ones(1, 4, 4))
    if kind == "edges":
        assert set(found.unique().tolist()) == {0, 1}


def test_depth_of_a_real_clip_is_near_below_and_steady(bunny: np.ndarray) -> None:
    found = structure(bunny, "depth")
    assert found[:, -48:].mean() > found[:, :48].mean() + 0.3
    still = torch.from_numpy(np.abs(np.diff(bunny.astype(int), axis=0)).max(-1) <= 2)
    assert found.diff(dim=0).abs()[still].mean() < 0.01


def test_depth_seen_in_a_rendered_clip_is_nearly_the_true_one() -> None:
    clip = scenes(1, truth=True, size=64)[0]
    seen, true = structure(clip.frames.numpy(), "depth"), structure_of_depth(clip.depth)
    assert torch.corrcoef(torch.stack([seen.flatten(), true.flatten()]))[0, 1] > 0.9


def test_depth_by_another_network(tmp_path, bunny: np.ndarray, monkeypatch) -> None:
    name = f"depth_anything@{tiny.depth_anything(tmp_path)}"
    near = DepthAnything(str(tmp_path)).nearness(bunny)
    torch.testing.assert_close(structure(bunny, "depth", name), normalised(torch.from_numpy(near)))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="needs owner/nothing-like-this, and the hub cannot be reached"):
        structure(bunny, "depth", "depth_anything@owner/nothing-like-this")


def test_refusals(bunny: np.ndarray) -> None:
    for kind, depth, says in (
        ("colour", "", "no structure 'colour'; use one of depth, edges, grey, flow"),
        ("edges", "depth_anything", "sees depth, and the structure is to be edges"),
        ("depth", "clip", "'clip' sees no depth; use depth_anything"),
    ):
        with pytest.raises(KinemaError, match=says):
            structure(bunny, kind, depth)
    with pytest.raises(KinemaError, match=r"give \(T, H, W, 3\) uint8"):
        structure(bunny[0], "grey")
    with pytest.raises(KinemaError, match="'world' sees no depth"):
        nearness(bunny, "world")

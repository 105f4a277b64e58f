"""Ground truth against geometry and against pictures."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from scenes import about_y, about_z, scene

from kinema.world import truth
from kinema.world.render import render
from kinema.world.spec import SceneState


def moving() -> SceneState:
    """A striped ball that rolls past a cube while the camera dollies; three frames."""
    eyes = [(0.0, -6.0, 2.0), (0.05, -5.9, 2.0), (0.1, -5.8, 2.02)]
    things = [("ball", (-0.5, -0.6, 0.5), 0.5), ("cube", (0.4, 0.6, 0.5), 0.5)]
    state = scene(things, frames=3, side=128, eyes=eyes, ground="grass", material="striped")
    state.intrinsics[..., :2, :2] *= 2
    for t in range(3):
        state.centre[0, t, 0, 0] += 0.06 * t
        state.rotation[0, t, 0] = about_y(0.12 * t)
        state.rotation[0, t, 1] = about_z(0.5 + 0.03 * t)
        state.size[0, t, 1] = 0.5 + 0.01 * t
        state.centre[0, t, 1, 2] = state.size[0, t, 1]
    return state


def warp_back(after: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """Frame t + 1 (H, W, 3) looked up where flow (H, W, 2) says the pixels of frame t went."""
    h, w = after.shape[:2]
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    at = (torch.stack([x, y], -1) + flow) / torch.tensor([w, h]) * 2 - 1
    image = after.permute(2, 0, 1)[None].float()
    return F.grid_sample(image, at[None], mode="bilinear", padding_mode="border", align_corners=False)[0].permute(
        1, 2, 0
    )


def near_edges(mask: torch.Tensor) -> torch.Tensor:
    """Pixels within two of the border of an object in a mask (H, W): blends, which no flow describes."""
    m = mask.float()[None]
    return (F.max_pool2d(m, 5, 1, 2) != -F.max_pool2d(-m, 5, 1, 2))[0]


def test_flow_carries_one_frame_onto_the_next():
    state = moving()
    drawn = render(state)
    flow = truth.flow(state, drawn)
    assert flow.forward.shape == (1, 2, 128, 128, 2) and 0.9 < flow.visible.float().mean() < 0.999
    for t in range(2):
        before, after = drawn.frames[0, t].float(), drawn.frames[0, t + 1].float()
        warped = warp_back(after, flow.forward[0, t])
        error = (warped - before).abs().amax(-1)
        plain = (after - before).abs().amax(-1)
        here = flow.visible[0, t] & ~near_edges(drawn.mask[0, t]) & ~near_edges(drawn.mask[0, t + 1])
        assert here.float().mean() > 0.8 and error[here].mean() < 1.5
        for thing in (1, 2):
            inner = here & (drawn.mask[0, t] == thing)
            # What is left: sharp stripes are sampled twice, and the light does not turn with the ball.
            assert error[inner].mean() < 0.6 * plain[inner].mean() and error[inner].median() < 6
        assert (error[here] > 40).float().mean() < 0.01  # the moving shadow


def test_flow_of_the_ground_under_a_sideways_camera_is_focal_times_shift_over_depth():
    state = scene([("ball", (0.0, 0.0, 9.0), 0.1)], frames=2, eyes=[(0.0, -6.0, 2.0), (0.1, -6.0, 2.0)])
    drawn = render(state)
    flow = truth.flow(state, drawn)
    ground = drawn.mask[0, 0] == 0
    expected = -110.0 * 0.1 / drawn.depth[0, 0][ground]
    torch.testing.assert_close(flow.forward[0, 0, ..., 0][ground], expected, atol=2e-3, rtol=1e-3)
    assert flow.forward[0, 0, ..., 1][ground].abs().max() < 2e-3
    assert flow.forward[0, 0][drawn.mask[0, 0] == -1].abs().max() < 2e-2  # the sky does not come along


def test_pixels_that_get_covered_are_not_visible():
    state = scene([("cube", (-0.4, 0.0, 0.5), 0.5)], frames=2)
    state.centre[0, 1, 0, 0] = 0.0
    drawn = render(state)
    flow = truth.flow(state, drawn)
    covered = (drawn.mask[0, 0] == 0) & (drawn.mask[0, 1] == 1)
    free = (drawn.mask[0, 0] == 0) & (drawn.mask[0, 1] == 0)
    assert covered.sum() > 20
    assert not flow.visible[0, 0][covered].any() and flow.visible[0, 0][free].all()
    state.opacity[0, 1] = 0.0
    assert not truth.flow(state, drawn).visible[0, 0][drawn.mask[0, 0] == 1].any()


def test_surface_point_of_a_rolling_ball_turns_over_the_top():
    state = scene([("ball", (0.0, 0.0, 0.5), 0.5)], frames=9, side=65)
    state.intrinsics[..., :2, 2] = 32.5
    for t in range(9):
        angle = math.pi / 8 * t
        state.rotation[0, t, 0], state.centre[0, t, 0, 0] = about_y(angle), 0.5 * angle
    drawn = render(state)
    here = (drawn.mask[0, 0] == 1).nonzero()
    y, x = here[len(here) // 3].tolist()
    zero = torch.zeros(1, dtype=torch.int64)
    anchors = truth.surface_anchors(state, drawn, zero, zero, torch.tensor([[x, y]]))
    tracks = truth.track(state, anchors)
    arm = tracks.world[0, 0] - state.centre[0, 0, 0]
    assert abs(arm.norm() - 0.5) < 1e-3
    for t in range(9):  # a cycloid, by turning the arm by hand
        a = math.pi / 8 * t
        turned = torch.stack(
            [arm[0] * math.cos(a) + arm[2] * math.sin(a), arm[1], arm[2] * math.cos(a) - arm[0] * math.sin(a)]
        )
        torch.testing.assert_close(tracks.world[0, t], turned + torch.tensor([0.5 * a, 0.0, 0.5]), atol=1e-4, rtol=0)
    torch.testing.assert_close(tracks.pixel[0, 0], torch.tensor([x + 0.5, y + 0.5]), atol=1e-2, rtol=0)
    assert tracks.visible[0, 0]
    with pytest.raises(ValueError, match="sky"):
        truth.surface_anchors(state, drawn, zero, zero, torch.tensor([[0, 0]]))


def test_points_behind_are_hidden_and_centres_are_not_hidden_by_themselves():
    state = scene([("cube", (0.0, -1.5, 0.6), 0.6), ("ball", (0.0, 1.0, 0.3), 0.3), ("ball", (1.2, 1.0, 0.3), 0.3)])
    tracks = truth.track(state, truth.centre_anchors(state))
    assert tracks.visible[:, 0].tolist() == [True, False, True]
    drawn = render(state)
    assert not (drawn.mask == 2).any() and (drawn.mask == 3).any()


def test_arm_of_a_figure_is_followed():
    state = scene([("figure", (0.0, 0.0, 0.9), 0.9)], frames=2, side=128)
    state.intrinsics[..., :2, :2] *= 2
    state.pose[0, 1, 0, 1] = 0.4  # the right arm swings forward
    drawn = render(state)
    flow = truth.flow(state, drawn)
    still = drawn.mask[0, 0] == 1
    moved = still & (flow.forward[0, 0].norm(dim=-1) > 0.5)
    x = moved.nonzero()[:, 1].float()
    assert 20 < moved.sum() < 0.4 * still.sum()
    assert (x < 64).all()  # it looks at us, so its right is on our left


@pytest.mark.parametrize("kind", ["ball", "cube", "cylinder", "cone", "ring", "figure"])
def test_boxes_hold_what_is_seen(kind):
    state = scene([(kind, (0.2, 0.0, 0.6), 0.6)])
    state.rotation[:] = about_z(0.4) @ about_y(0.3)
    drawn = render(state)
    seen = truth.mask_boxes(drawn.mask, 1)[0, 0, 0]
    full = truth.boxes_2d(state)[0, 0, 0]
    assert (seen[:2] >= full[:2].floor()).all() and (seen[2:] <= full[2:].ceil()).all()
    y, x = (drawn.mask[0, 0] == 1).nonzero().unbind(-1)
    assert seen.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
    corners = truth.boxes_3d(state)[0, 0, 0]
    torch.testing.assert_close(corners.mean(0), state.centre[0, 0, 0], atol=1e-5, rtol=0)

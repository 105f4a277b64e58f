"""The renderer against geometry done by hand or another way."""

from __future__ import annotations

import math

import pytest
import torch
from scenes import about_y, about_z, scene

from kinema.world import cameras, render, shapes
from kinema.world.render import render_frames
from kinema.world.spec import CameraSpec, SceneSpec
from kinema.world.vocabulary import CAMERAS, GROUNDS, KINDS, SKIES

SOLIDS = ("ball", "cube", "cylinder", "cone", "ring")


def distance(kind: str, p: torch.Tensor) -> torch.Tensor:
    """Signed distance (exact, or at least of the right sign) to a unit shape at p (..., 3), from its definition."""
    x, y, z = p.unbind(-1)
    rho = (x * x + y * y).sqrt()
    if kind == "ball":
        return p.norm(dim=-1) - 1
    if kind == "cube":
        return p.abs().amax(-1) - 1
    if kind == "cylinder":
        return torch.maximum(rho - shapes.CYLINDER_RADIUS, z.abs() - 1)
    if kind == "cone":
        return torch.maximum(rho - shapes.CONE_RADIUS * (1 - z) / 2, -1 - z)
    return (((x * x + z * z).sqrt() - shapes.RING_CORE) ** 2 + y * y).sqrt() - shapes.RING_TUBE


def inside(mask: torch.Tensor) -> torch.Tensor:
    """A mask (B, T, H, W) without its border pixels, which are blends."""
    return torch.nn.functional.max_pool2d(1 - mask.float(), 3, 1, 1) == 0


@pytest.mark.parametrize("kind", SOLIDS)
def test_rays_enter_shapes_where_marching_does(kind):
    source = torch.Generator().manual_seed(0)
    origin = torch.nn.functional.normalize(torch.randn(400, 3, generator=source), dim=-1) * 4
    aim = torch.randn(400, 3, generator=source) * 0.5
    way = torch.nn.functional.normalize(aim - origin, dim=-1)
    steps = torch.linspace(2, 6, 4001)
    values = distance(kind, origin[:, None] + steps[:, None] * way[:, None])
    within = values < 0
    marched = steps[within.int().argmax(1)]
    ray = shapes.Ray(*origin.unbind(-1), *way.unbind(-1))
    span = shapes.ring_span(ray, steps=40) if kind == "ring" else shapes.SPANS[kind](ray)
    hit, clear = span.leave > span.enter, values.amin(1).abs() > 0.02  # leave out rays that only graze
    assert (hit == within.any(1))[clear].all()
    both = hit & clear
    assert both.sum() > 50
    assert (span.enter - marched)[both].abs().max() < 0.012


@pytest.mark.parametrize("kind", SOLIDS)
def test_normals_are_gradients_of_the_distance(kind):
    source = torch.Generator().manual_seed(1)
    origin = torch.nn.functional.normalize(torch.randn(300, 3, generator=source), dim=-1) * 4
    ray = shapes.Ray(*origin.unbind(-1), *(-origin / 4 + 0.08 * torch.randn(300, 3, generator=source)).unbind(-1))
    span = shapes.SPANS[kind](ray)
    hit = span.leave > span.enter
    at = torch.stack(ray.at(span.enter), -1)[hit].double().requires_grad_()
    (gradient,) = torch.autograd.grad(distance(kind, at).sum(), at)
    normal = torch.stack(shapes.normal(kind, *at.detach().float().unbind(-1)), -1).double()
    agreement = (torch.nn.functional.normalize(gradient, dim=-1) * normal).sum(-1)
    assert (agreement > 0.999).float().mean() > 0.97  # the rest lies on edges


def test_depth_of_ground_and_ball_is_analytic():
    state = scene([("ball", (0.0, 0.0, 0.5), 0.5)], side=65)
    state.intrinsics[..., :2, 2] = 32.5
    drawn = render.render(state)
    pitch, f = -0.2, 110.0
    row = torch.arange(65) + 0.5
    slope = math.sin(pitch) - (row - 32.5) / f * math.cos(pitch)  # rise of the ray for a step of 1 in depth
    ground = -2.0 / slope
    below = row > 60
    torch.testing.assert_close(drawn.depth[0, 0, :, 0][below], ground[below], rtol=1e-4, atol=1e-4)
    # A ray through the ball, with the law of cosines in the plane x = 0.
    eye, centre = torch.tensor([0.0, -6.0, 2.0]), torch.tensor([0.0, 0.0, 0.5])
    way = torch.tensor([0.0, math.cos(pitch) + (row[38] - 32.5) / f * math.sin(pitch), float(slope[38])])
    b = torch.dot(centre - eye, way) / way.norm()
    reach = b - (0.25 - ((centre - eye).norm() ** 2 - b * b)).sqrt()
    torch.testing.assert_close(drawn.depth[0, 0, 38, 32], reach / way.norm(), rtol=1e-4, atol=1e-4)
    assert drawn.mask[0, 0, 38, 32] == 1 and drawn.mask[0, 0, 0, 0] == -1 and drawn.depth[0, 0, 0, 0] == math.inf


@pytest.mark.parametrize("kind", ["ball", "cube", "cylinder", "ring"])
def test_mask_is_centred_on_the_projected_centre(kind):
    state = scene([(kind, (0.4, 0.0, 0.9), 0.4)], side=128)
    state.intrinsics[..., :2, :2] *= 2
    mask = render.render(state).mask[0, 0] == 1
    y, x = mask.nonzero().float().add(0.5).mean(0)
    centre = torch.tensor([0.4, 0.0, 0.9, 1.0])
    u, v, w = state.intrinsics[0, 0] @ (state.world_to_camera[0, 0] @ centre)[:3]
    assert abs(x - u / w) < 1.0 and abs(y - v / w) < 2.0  # perspective moves the middle of a silhouette a little


def test_masks_of_disjoint_objects_do_not_touch_and_boxes_lose_nothing():
    things = [("ball", (-1.0, 0.0, 0.4), 0.4), ("cone", (0.0, 0.3, 0.4), 0.4), ("cube", (1.0, 0.0, 0.4), 0.4)]
    together = render.render(scene(things)).mask[0, 0]
    assert sorted(together.unique().tolist()) == [-1, 0, 1, 2, 3]
    for i, thing in enumerate(things):
        alone = render.render(scene([thing])).mask[0, 0]
        assert torch.equal(alone == 1, together == i + 1)


def test_nearer_object_hides_farther_one():
    things = [("cube", (0.0, -1.0, 0.4), 0.4), ("ball", (0.1, 1.0, 0.5), 0.5)]
    for order in (things, things[::-1]):
        drawn = render.render(scene(order, colours=("red",)))
        both = [render.render(scene([t])) for t in order]
        nearest = torch.minimum(both[0].depth, both[1].depth)
        torch.testing.assert_close(drawn.depth, nearest)
        # Pixels deep inside the silhouette of the cube look the same with and without the ball behind it.
        cube = order.index(things[0])
        inner = inside(both[cube].mask == 1)[0]
        alone = render_frames(scene([things[0]]))
        assert (drawn.frames.int() - alone.int())[0][inner].abs().max() <= 1


def test_object_inside_another_is_not_seen():
    ball, cube = ("ball", (0.0, 0.0, 0.8), 0.6), ("cube", (0.0, -0.05, 0.8), 0.3)  # the centre of the cube is nearer
    both, alone = render.render(scene([ball, cube])), render.render(scene([ball]))
    assert torch.equal(both.mask, alone.mask) and torch.equal(both.depth, alone.depth)
    inner = inside(alone.mask == 1) & (both.mask == 1)
    facing_sun = inner & (alone.frames.sum(-1) > 200)
    assert (both.frames.int() - alone.frames.int())[facing_sun].abs().max() <= 1


def test_transparent_object_is_a_blend():
    state = scene([("ball", (0.0, 0.0, 2.0), 0.5)])  # in front of the sky, away from its shadow
    solid, inner = render_frames(state).float(), inside(render.render(state).mask == 1)
    state.opacity.zero_()
    nothing = render_frames(state).float()
    state.opacity.fill_(0.25)
    faint, mask = render_frames(state).float(), render.render(state).mask
    assert (mask == 1).sum() == 0 and inner.sum() > 100
    torch.testing.assert_close(faint[inner], 0.25 * solid[inner] + 0.75 * nothing[inner], atol=1.1, rtol=0)


def test_shadow_falls_away_from_the_sun():
    for sky, side in (("day", 1), ("sunset", 1), ("night", -1)):  # the moon stands on the other side
        bare = render_frames(scene([("ball", (0.0, 0.0, 9.0), 0.01)], sky=sky)).float()
        state = scene([("ball", (0.0, 0.0, 0.5), 0.5)], sky=sky)
        drawn = render.render(state)
        darker = ((bare - drawn.frames.float()).sum(-1) > 20) & (drawn.mask == 0)
        columns = darker[0, 0].nonzero()[:, 1].float() + 0.5
        assert len(columns) > 10 and (columns.mean() - 32) * side > 3


def test_one_object_shades_another():
    pair = [("cube", (0.0, 0.0, 0.5), 0.5), ("ball", (-0.9, -1.0, 1.9), 0.4)]
    drawn = render.render(scene(pair))
    alone = render_frames(scene(pair[:1])).float()
    darker = (alone - drawn.frames.float()).sum(-1)[drawn.mask == 1]
    assert (darker > 30).sum() > 20 and darker.min() > -2


def test_same_scene_gives_the_same_bytes_in_any_batch():
    one, two = scene([("ring", (0.0, 0.0, 0.5), 0.5)]), scene([("cone", (0.3, 0.0, 0.5), 0.5)], ground="wood")
    both = {k: torch.cat([v, getattr(two, k)]) for k, v in vars(one).items() if isinstance(v, torch.Tensor)}
    batch = render_frames(type(one)(**both, height=64, width=64))
    assert torch.equal(batch[:1], render_frames(one)) and torch.equal(batch[1:], render_frames(two))
    assert torch.equal(render.render(one).frames, render_frames(one))


def test_odd_sizes_are_crops_of_larger_ones():
    state = scene([("ring", (-0.5, 0.0, 0.5), 0.5), ("figure", (0.6, -0.4, 0.6), 0.6)])
    whole = render.render(state)
    state.width, state.height = 37, 51  # same camera, so the top left part of the same picture
    part = render.render(state)
    assert torch.equal(part.mask, whole.mask[:, :, :51, :37])
    same = (part.frames.int() - whole.frames[:, :, :51, :37].int()).abs().amax(-1)
    assert same[part.mask >= 0].max() <= 1  # the sky's gradient depends on the middle of the frame


def test_threads_change_nothing():
    state = scene([("cone", (0.0, 0.0, 0.5), 0.5)], frames=9, side=128)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = render_frames(state)
        torch.set_num_threads(3)
        assert torch.equal(render_frames(state), one) and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", [*SOLIDS, "figure"])
def test_patterns_turn_with_the_object(kind):
    turn = about_y(0.5) if kind in ("ball", "ring") else about_z(0.3)
    plain, striped = (scene([(kind, (0.0, 0.0, 0.6), 0.6)], material=m) for m in ("matte", "striped"))
    turned = scene([(kind, (0.0, 0.0, 0.6), 0.6)], material="striped")
    turned.rotation[:] = turn
    change = (render_frames(turned).float() - render_frames(striped).float()).abs().amax(-1)
    assert (change > 30).sum() > 12
    assert (render_frames(plain).float() - render_frames(striped).float()).abs().amax() > 60


def test_shiny_has_a_highlight():
    matte, shiny = (scene([("ball", (0.0, 0.0, 0.6), 0.6)], material=m) for m in ("matte", "shiny"))
    inner = render.render(matte).mask == 1
    assert render_frames(shiny)[inner].float().amin(-1).max() > render_frames(matte)[inner].float().amin(-1).max() + 60


def test_picture_shows_its_image_upright_and_letters_take_the_colour():
    image = torch.ones(4, 32, 32)
    image[0, :16], image[1, :16], image[2] = 1.0, 0.0, 0.0  # red above
    image[0, 16:], image[1, 16:] = 0.0, 1.0  # green below
    image[3, :, :8] = 0.0  # and a quarter on the left cut out
    state = scene([("picture", (0.0, 0.0, 0.8), 0.8)])
    state.texture[(0, 0)] = image
    drawn = render.render(state)
    y, x = (drawn.mask[0, 0] == 1).nonzero().unbind(-1)
    frame = drawn.frames[0, 0].float()
    assert (x.float().mean() + 0.5) > 33  # the left part is missing
    top, bottom = frame[y.min() + 3, x.float().mean().int()], frame[y.max() - 3, x.float().mean().int()]
    assert top[0] > 2 * top[1] and bottom[1] > 2 * bottom[0]
    state.kind.fill_(KINDS.index("letter"))
    letter = render_frames(state)[0, 0].float()
    assert (letter[y, x].mean(0)[0] > 1.5 * letter[y, x].mean(0)[1:]).all()  # red, as its colour says
    state.texture.clear()
    with pytest.raises(ValueError, match="letter without an image"):
        render_frames(state)


@pytest.mark.parametrize("move", CAMERAS)
def test_camera_moves(move):
    spec = SceneSpec(seed=0, objects=(), events=(), camera=CameraSpec(move=move))
    k, pose = cameras.camera_path(spec)
    r, t = pose[:, :3, :3].double(), pose[:, :3, 3].double()
    eye = -(r.transpose(1, 2) @ t[..., None])[..., 0]
    assert (r @ r.transpose(1, 2) - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-6
    assert (torch.linalg.det(r) - 1).abs().max() < 1e-6
    assert (eye[:, 2] > 0.2).all() and k.shape == (25, 3, 3) and pose.shape == (25, 4, 4)
    p = (k @ pose[:, :3] @ torch.tensor([0.0, 0.0, 0.5, 1.0]))[:, :]
    x, y = p[:, 0] / p[:, 2], p[:, 1] / p[:, 2]
    assert ((x > 0) & (x < 128) & (y > 0) & (y < 128)).all()
    moved = eye[-1] - eye[0]
    says = {
        "still": lambda: moved.norm() == 0 and torch.equal(pose[0], pose[-1]),
        "pan left": lambda: moved.norm() < 1e-5 and x[-1] - x[0] > 40,  # what is seen goes the other way
        "pan right": lambda: moved.norm() < 1e-5 and x[-1] - x[0] < -40,
        "tilt up": lambda: moved.norm() < 1e-5 and y[-1] - y[0] > 40,
        "tilt down": lambda: moved.norm() < 1e-5 and y[-1] - y[0] < -40,
        "zoom in": lambda: abs(k[-1, 0, 0] / k[0, 0, 0] - 1.7) < 1e-3,
        "zoom out": lambda: abs(k[0, 0, 0] / k[-1, 0, 0] - 1.7) < 1e-3,
        "dolly in": lambda: moved @ r[0, 2] > 2.0,
        "dolly out": lambda: moved @ r[0, 2] < -2.0,
        "orbit left": lambda: moved[0] < -4 and abs(eye[0].norm() - eye[-1].norm()) < 1e-4,
        "orbit right": lambda: moved[0] > 4 and abs(eye[0].norm() - eye[-1].norm()) < 1e-4,
        "rise": lambda: abs(moved[2] - 2.0) < 1e-4 and moved[:2].norm() < 1e-5,
    }
    assert says[move]()


def test_medium_ball_fills_a_quarter_of_the_height():
    k, _ = cameras.camera_path(SceneSpec(seed=0, objects=(), events=(), camera=CameraSpec()))
    assert abs(k[0, 1, 1] * 1.0 / 6.5 - 128 / 4) < 0.5


def test_bad_cameras_are_refused():
    for bad in (CameraSpec(move="roll"), CameraSpec(distance=0.5), CameraSpec(amount=-1.0)):
        with pytest.raises(ValueError, match="camera"):
            cameras.camera_path(SceneSpec(seed=0, objects=(), events=(), camera=bad))
    state = scene([("ball", (0.0, 0.0, 0.5), 0.5)])
    state.world_to_camera[..., :3, :3] = about_y(0.0) @ about_z(0.4) @ state.world_to_camera[..., :3, :3]
    with pytest.raises(ValueError, match="level"):
        render_frames(state)


def test_grounds_and_skies_differ():
    means = []
    for ground in GROUNDS:
        frames = torch.stack([render_frames(scene([("ball", (0, 0, 9.0), 0.1)], ground=ground, sky=s)) for s in SKIES])
        means.append(frames[0, 0, 0, 40:].float().mean((0, 1)))
        assert (frames[0] != frames[1]).any() and frames[2].float().mean() < frames[0].float().mean() - 40
    apart = torch.cdist(torch.stack(means), torch.stack(means)) + 1e3 * torch.eye(len(means))
    assert apart.min() > 25

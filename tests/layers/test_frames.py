"""Tokens by frame: text before the clip, what stands beside it, the places of a UNet, some of the tokens."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from kinema.core.attention import Site
from kinema.core.positions import Positions
from kinema.core.technique import Step
from kinema.core.windows import Window
from kinema.layers.frames import Kept, View, frame_tokens

SELF, JOINT, TEMPORAL = (Site(0, kind, 2, 4) for kind in ("self", "joint", "temporal"))


def step(shape=(1, 4, 3, 4, 4), patch=(1, 2, 2), **more):
    run = SimpleNamespace(conditions=SimpleNamespace(shape=shape), backbone=SimpleNamespace(patch=patch))
    return Step(0, 1, 1.0, 0.0, run=run, **more)


def tokens(count, batch=1):
    return torch.randn(batch, 2, count, 4, generator=torch.Generator().manual_seed(0))


def test_text_and_what_stands_beside_the_clip_belong_to_no_frame():
    places = torch.zeros(16, 3)  # three frames of 2 x 2 tokens, and one frame beside them
    q = tokens(5 + 16)
    positions = Positions(places, places, first=5, extra=4)
    found = frame_tokens(step(), JOINT, q, q, positions)
    expected = [-1] * 5 + [0] * 4 + [1] * 4 + [2] * 4 + [-1] * 4
    assert found.q.tolist() == found.k.tolist() == expected
    order = torch.randperm(21, generator=torch.Generator().manual_seed(1))
    part = frame_tokens(step(), JOINT, q[:, :, order], q[:, :, :7], positions.part(order, torch.arange(7)))
    assert part.q.tolist() == [expected[i] for i in order.tolist()] and part.k.tolist() == expected[:7]
    window = frame_tokens(step(window=Window(1, 3)), SELF, q[:, :, :8], q[:, :, :8], None)
    assert (window.frames, window.q.tolist()) == (2, [0] * 4 + [1] * 4)


@pytest.mark.parametrize("site, batch, count", [(SELF, 2, 12), (JOINT, 2, 12 + 3), (TEMPORAL, 2 * 12, 3)])
def test_a_volume_has_the_clips_tokens_where_they_stand(site, batch, count):
    at = step((1, 4, 3, 5, 7), (1, 1, 1), branch="cond+uncond") if site is TEMPORAL else step((2, 4, 3, 4, 4))
    rows, columns = (3, 4) if site is TEMPORAL else (2, 2)  # 5 x 7 cells, one level down
    u, place = tokens(count, batch), torch.zeros(12, 3)
    found = frame_tokens(at, site, u, u, None if site is TEMPORAL else Positions(place, place, first=count - 12))
    volume = found.video(u)
    assert volume.shape == (2, 2, 3, rows, columns, 4)
    for frame, row, column in [(0, 0, 0), (2, 1, 1), (1, 0, 1)]:
        place = row * columns + column
        there = u[12 + place, :, frame] if site is TEMPORAL else u[1, :, count - 12 + 4 * frame + place]
        assert torch.equal(volume[1, :, frame, row, column], there)
    assert torch.equal(found.with_video(u, volume), u)
    changed = found.with_video(u, volume + 1)
    assert torch.equal((changed - u).abs().amax((0, 1, 3)) > 0.5, found.q >= 0)


def test_a_table_of_frames_is_the_sum_over_keys_and_the_mean_over_queries():
    q, k = tokens(17, batch=2).unbind(0)
    q, k = q[None], k[None]
    places = torch.zeros(12, 3)
    found = frame_tokens(step(), JOINT, q, k, Positions(places, places, first=5))
    whole = (q @ k.mT / 2).softmax(-1)
    by_hand = [
        [whole[:, :, 5 + 4 * i : 9 + 4 * i, 5 + 4 * j : 9 + 4 * j].sum(-1).mean(-1) for j in range(3)] for i in range(3)
    ]
    torch.testing.assert_close(found.table(q, k), torch.stack([torch.stack(row, -1) for row in by_hand], -2))


def test_a_table_as_a_bias_leaves_text_alone():
    q, places = tokens(14), torch.zeros(12, 3)
    found = frame_tokens(step(), JOINT, q, q, Positions(places, places, first=2))
    bias = found.bias(torch.arange(9.0).reshape(3, 3) + 1)
    assert bias.shape == (14, 14) and not bias[:2].any() and not bias[:, :2].any()
    assert (bias[2 + 4 * 1, 2 + 4 * 2], bias[13, 2]) == (6, 7)


def test_what_is_made_of_tokens_is_kept_for_the_same_tokens_alone():
    q, places, made = tokens(12), torch.zeros(12, 3), []
    kept, own = Kept(), Positions(places, places)

    def asked(positions, q=q):
        found = frame_tokens(step(), SELF, q, q, positions)
        return kept.of(found, positions, lambda: made.append(positions) or len(made))

    assert [asked(own), asked(Positions(places, places)), asked(replace(own, q=places + 1)), asked(own)] == [1, 1, 2, 3]
    assert asked(own.part(k=torch.arange(12)), q) == 4
    assert [asked(own), asked(replace(own, turned=True)), asked(own)] == [5, 6, 7]


def test_a_view_takes_tokens_that_follow_each_other_without_a_copy():
    q, places = tokens(12), torch.arange(36.0).reshape(12, 3)
    view = View.of(Positions(places, places), torch.arange(4, 8), torch.tensor([0, 2, 3]))
    assert view.q == slice(4, 8) and view.k.tolist() == [0, 2, 3]
    found = view.attend(q, q, q + 1, lambda q, k, v, positions: (q, k, v, positions))
    assert torch.equal(found[0], q[:, :, 4:8]) and torch.equal(found[2], q[:, :, [0, 2, 3]] + 1)
    assert torch.equal(found[3].q, places[4:8]) and torch.equal(found[3].k, places[[0, 2, 3]])

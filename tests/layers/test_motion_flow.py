"""Attention motion flow against clips whose motion is known."""

import pytest
import torch

from kinema.layers.motion_flow import attention_flow, flow_error

GRID = (3, 4, 5)


def codes(shift):
    """Queries and keys (1, 2, T S, D) of a clip that moves by `shift` (rows, columns) a frame, wrapping around.

    Every token has a one-hot code of its content, split between two heads.
    """
    frames, rows, columns = GRID
    first = torch.eye(rows * columns).reshape(rows, columns, -1)
    clip = torch.stack([first.roll((t * shift[0], t * shift[1]), (0, 1)) for t in range(frames)])
    u = clip.reshape(1, -1, 2, rows * columns // 2).transpose(1, 2)
    return u, u


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, -1), (0, 0)])
def test_the_flow_of_a_shifted_clip_is_the_shift(shift):
    flow = attention_flow(*codes(shift), GRID, hard=True).reshape(3, 3, 4, 5, 2)
    frames, rows, columns = GRID
    for i in range(frames):
        for j in range(frames):
            for y in range(rows):
                for x in range(columns):
                    there = (y + (j - i) * shift[0]) % rows - y, (x + (j - i) * shift[1]) % columns - x
                    assert tuple(flow[i, j, y, x].tolist()) == there


def test_the_expected_flow_tends_to_the_best_match_and_is_the_mean_without_any():
    q, k = codes((0, 1))
    hard = attention_flow(q, k, GRID, hard=True)
    torch.testing.assert_close(attention_flow(q, k, GRID, temperature=1e3), hard)
    middle = torch.tensor([1.5, 2.0]) - torch.stack(torch.meshgrid(torch.arange(4), torch.arange(5), indexing="ij"), -1)
    flat = attention_flow(q, 0 * k, GRID)
    torch.testing.assert_close(flat, middle.reshape(1, 1, 1, 20, 2).expand_as(flat))


def test_logits_are_averaged_over_heads_before_the_softmax():
    q, k = torch.randn(2, 2, 3, 60, 4, generator=torch.Generator().manual_seed(0))
    logits = (q @ k.mT / 4**0.5).mean(1)  # (B, L, L)
    map_ = (2 * logits.unflatten(2, (3, 20))).softmax(-1).unflatten(1, (3, 20)).transpose(2, 3)  # (B, T, T, S, S)
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(5.0))
    torch.testing.assert_close(attention_flow(q, k, GRID), map_ @ places - places, atol=1e-5, rtol=1e-5)


def test_only_what_moves_in_the_reference_counts():
    flow = torch.ones(1, 2, 2, 3, 2, requires_grad=True)
    reference = torch.zeros(1, 2, 2, 3, 2)
    reference[0, 0, 1, 2] = torch.tensor([2.0, 0.0])
    assert flow_error(flow, reference).item() == 1.0  # ((1 - 2)^2 + (1 - 0)^2) / 2
    still = flow_error(flow, torch.zeros_like(reference))
    (slope,) = torch.autograd.grad(still, flow)
    assert still.item() == 0 and not slope.any()

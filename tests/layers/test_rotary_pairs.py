"""Rotary positions as plain numbers."""

import pytest
import torch

from kinema.layers.rotary_pairs import reproduces, table_of, turned


def angles(heads):
    return torch.rand(heads, 7, 4, generator=torch.Generator().manual_seed(1)) * 6


def neighbours(angle):
    def turn(u):
        a = torch.view_as_complex(u.unflatten(-1, (-1, 2)).contiguous()) * torch.polar(torch.ones_like(angle), angle)
        return torch.view_as_real(a).flatten(-2)

    return turn


@pytest.mark.parametrize("heads", [1, 3])
def test_a_table_read_off_a_rotation_does_the_same(heads):
    turn, u = neighbours(angles(heads)), torch.randn(2, 3, 7, 8)
    table = table_of(turn, u)
    assert table.shape == (2, heads, 7, 8) and reproduces(table, turn, u)
    torch.testing.assert_close(turned(u, table), turn(u))
    assert turned(u.bfloat16(), table).dtype == torch.bfloat16


def test_halves_are_not_neighbours():
    def halves(u):
        a, b = u.chunk(2, -1)
        angle = angles(1)
        return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], -1)

    u = torch.randn(1, 3, 7, 8)
    assert not reproduces(table_of(halves, u), halves, u)

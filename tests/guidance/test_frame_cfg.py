"""The weight of each frame, in numbers."""

import pytest
import torch

from kinema.core.errors import KinemaError
from kinema.guidance.frame_cfg import FrameCFG


def test_weight_grows_in_equal_parts():
    cond, uncond = torch.randn(2, 2, 4, 5, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    guided = FrameCFG(first=1.0, last=3.0).guide(None, cond, uncond)
    for frame, scale in enumerate((1.0, 1.5, 2.0, 2.5, 3.0)):
        expected = uncond[:, :, frame] + scale * (cond[:, :, frame] - uncond[:, :, frame])
        torch.testing.assert_close(guided[:, :, frame], expected)
    torch.testing.assert_close(guided[:, :, 0], cond[:, :, 0])


def test_one_frame_has_the_first_weight():
    cond, uncond = torch.ones(1, 1, 1, 2, 2), torch.zeros(1, 1, 1, 2, 2)
    assert FrameCFG(first=2.0, last=3.0).guide(None, cond, uncond).unique().item() == 2.0


def test_refuses_a_negative_weight():
    with pytest.raises(KinemaError, match="first -1.0 and last 3.0 of frame_cfg must be 0 or more"):
        FrameCFG(first=-1.0).start(None)

from types import SimpleNamespace

import pytest
import torch

from kinema.core.errors import KinemaError
from kinema.core.technique import Step
from kinema.guidance.cfg import CFG

STEP = Step(index=4, count=8, t=0.5, t_next=0.375)
C, U = torch.randn(2, 1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_scale_one_is_cond_and_zero_is_uncond():
    torch.testing.assert_close(CFG(scale=1.0).guide(STEP, C, U), C)
    torch.testing.assert_close(CFG(scale=0.0).guide(STEP, C, U), U)


def test_equal_branches_leave_nothing_to_guide():
    torch.testing.assert_close(CFG(scale=7.0).guide(STEP, C, C), C)


def test_second_scale_holds_below_the_expert_boundary():
    run = SimpleNamespace(backbone=SimpleNamespace(expert_boundary=0.6))
    low = Step(index=4, count=8, t=0.5, t_next=0.375, run=run)
    high = Step(index=1, count=8, t=0.8, t_next=0.7, run=run)
    guide = CFG(scale=1.0, low_noise_scale=0.0)
    torch.testing.assert_close(guide.guide(low, C, U), U)
    torch.testing.assert_close(guide.guide(high, C, U), C)


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(scale=-1.0), "guidance_scale is -1.0"),
        (dict(low_noise_scale=-2.0), "low_noise_scale is -2.0"),
        (dict(low_noise_scale=3.0), "has one expert"),
    ],
)
def test_refuses_at_start(bad, says):
    run = SimpleNamespace(backbone=SimpleNamespace(expert_boundary=None, name="mini"))
    with pytest.raises(KinemaError, match=says):
        CFG(**bad).start(run)

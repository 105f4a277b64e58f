"""What is made along with the video: guided by the same owner, advanced beside it, seen by no other hook."""

from dataclasses import dataclass

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from core.test_loop import SHAPE, ToTarget, request
from kinema.core.companion import Companion
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.schedule import CompanionSolver, Solver
from kinema.core.technique import Technique
from kinema.guidance.apg import APG
from kinema.guidance.cfg import CFG


class WithSound(ToTarget):
    """Its companion flows to a target of its own, or to zero without text."""

    euler, unipc = (
        FlowMatchEulerDiscreteScheduler(shift=2.0),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=2.0),
    )

    def __init__(self, scheduler=euler, joint=True):
        super().__init__()
        self.scheduler, self.joint_branches = scheduler, joint
        self.heard = torch.linspace(2, 3, 10).reshape(1, 2, 5, 1, 1)

    def prepare(self, requests):
        self.conditions = super().prepare(requests)
        self.conditions.companion = Companion("sound", torch.zeros_like(self.heard))
        return self.conditions

    def solver(self, conditions):
        return CompanionSolver(self.scheduler, conditions.num_inference_steps, self.device, conditions.companion)

    def noise(self, conditions, generators):
        conditions.companion.x = torch.randn(self.heard.shape, generator=torch.Generator().manual_seed(1))
        return super().noise(conditions, generators)

    def velocity(self, x, t, conditions, dropped):
        companion = conditions.companion
        companion.answers.append((companion.x - (0 if "text" in dropped else 1) * self.heard) / t)
        return super().velocity(x, t, conditions, dropped)


@pytest.mark.parametrize("joint", [False, True])
def test_both_are_guided_and_reach_their_data(joint):
    backbone = WithSound(joint=joint)
    video = sample(backbone, request(), [CFG(scale=3.0)])
    torch.testing.assert_close(video, 3 * backbone.target, atol=1e-4, rtol=0)
    torch.testing.assert_close(backbone.conditions.companion.x, 3 * backbone.heard, atol=1e-4, rtol=0)


def test_each_keeps_the_history_of_its_own_steps_and_of_its_own_guidance():
    backbone = WithSound(WithSound.unipc)
    sample(backbone, request(), [APG(scale=3.0)])
    together = backbone.conditions.companion.x

    alone = ToTarget()  # the sound as if it were the video
    alone.target = backbone.heard
    alone.noise = lambda *_: torch.randn(backbone.heard.shape, generator=torch.Generator().manual_seed(1))
    alone.solver = lambda conditions: Solver(WithSound.unipc, conditions.num_inference_steps, alone.device)
    assert torch.equal(sample(alone, request(), [APG(scale=3.0)]), together)


@dataclass(frozen=True, kw_only=True)
class Spoils(Technique):
    """Changes everything of the video that it can; calls the network twice, and in the second step not at all."""

    name = "spoils"

    def init_noise(self, run, x):
        return 0 * x

    def velocity(self, step, x, branch, next):
        return torch.ones_like(x) if step.index == 1 else next(x) + next(x + 1)

    def clean(self, step, x0):
        return x0 + 1

    def after_step(self, step, x):
        return -x


def test_hooks_of_the_video_leave_it_alone():
    plain, spoiled = WithSound(), WithSound()
    before, after = sample(plain, request()), sample(spoiled, request(), [Spoils()])
    assert not torch.equal(before, after) and before.shape == after.shape == torch.Size(SHAPE)
    # The flow is straight: the answer of the step before is that of this step, up to rounding.
    torch.testing.assert_close(spoiled.conditions.companion.x, plain.conditions.companion.x, atol=1e-5, rtol=0)


def test_a_branch_that_is_not_asked_for_moves_with_one_that_is():
    sound = Companion("sound", torch.zeros(1))

    def asked(**answers):
        sound.answers += [torch.tensor([v]) for v in answers.values()]
        sound.keep(list(answers))

    asked(cond=1.0, uncond=5.0)
    assert sound.taken(["cond", "uncond"]) == {"cond": 1.0, "uncond": 5.0}
    asked(cond=3.0)
    assert sound.taken(["cond", "uncond"]) == {"cond": 3.0, "uncond": 7.0}
    assert sound.taken(["uncond"]) == {"uncond": 7.0}
    with pytest.raises(KinemaError, match="not asked for 'perturbed' yet, and the sound needs"):
        sound.taken(["cond", "perturbed"])


@dataclass(frozen=True, kw_only=True)
class Notes(Technique):
    """Guidance that is told whose velocities it gets, and stands still in the last step."""

    name = "notes"
    seen: list

    def needs(self, step):
        return [] if step.index == step.count - 1 else ["cond"]

    def guide(self, step, cond):
        self.seen.append((step.of, tuple(step.x.shape)))
        return cond


def test_guidance_knows_whose_velocities_it_gets_and_may_stand_still():
    backbone, notes = WithSound(), Notes(seen=[])
    at = []
    sample(backbone, request(), [notes], on_step=lambda step, x: at.append((x, step.run.conditions.companion.x)))
    assert notes.seen == 3 * [("video", SHAPE), ("sound", (1, 2, 5, 1, 1))]
    assert all(torch.equal(a, b) for a, b in zip(at[-1], at[-2], strict=True))
    assert not torch.equal(at[-2][1], at[-3][1])

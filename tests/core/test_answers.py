"""What a hook returns is looked at, so that a mistake is told with its technique and its name."""

import re
from dataclasses import dataclass

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.technique import Technique
from kinema.request import Request

ASKED = Request(prompt="a red ball rolls", num_inference_steps=2, num_frames=5, height=32, width=32, seed=1)
HOOKS = ("init_noise", "before_step", "velocity", "attend", "guide", "clean", "after_step", "finish")


def wrong(hook, found):
    """A technique of which one hook returns `found` of what it should."""

    class Wrong(Technique):
        name = "wrong"

        def changed(self, *given, **branches):
            was = getattr(Technique, hook)(self, *given, **branches)
            return found(was)

    setattr(Wrong, hook, Wrong.changed)
    return dataclass(frozen=True, kw_only=True)(Wrong)()


@pytest.mark.parametrize("hook", HOOKS)
def test_another_answer_than_a_tensor_of_the_shape_is_refused(tiny_wan, hook):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    assert torch.equal(sample(backbone, ASKED, [wrong(hook, lambda x: x)]), sample(backbone, ASKED))
    with pytest.raises(KinemaError, match=f"the hook {hook!r} of wrong returned None; let it return a tensor of"):
        sample(backbone, ASKED, [wrong(hook, lambda x: None)])
    with pytest.raises(KinemaError, match=re.escape(f"the hook {hook!r} of wrong returned a tensor of (1, ")):
        sample(backbone, ASKED, [wrong(hook, lambda x: x[..., :1])])


def test_numbers_that_are_none_are_told_with_the_techniques(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="grew beyond what their type holds, with wrong; use smaller weights"):
        sample(backbone, ASKED, [wrong("finish", lambda x: x / 0)])

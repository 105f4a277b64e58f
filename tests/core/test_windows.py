"""Windows over a clip: which frames, what a model sees of them, and the mean of its answers."""

from dataclasses import dataclass

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.blend import Blend, blended
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.core.technique import Technique
from kinema.core.windows import Window, fuse, triangle, windows
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=2, seed=1)


def test_windows_cover_a_clip_and_the_last_is_pinned_to_its_end():
    assert [w.counted for w in windows(10, 4, 3)] == [range(4), range(3, 7), range(6, 10)]
    assert [(w.first, w.stop) for w in windows(9, 4, 3)] == [(0, 4), (3, 7), (5, 9)]
    assert windows(9, 4, 3, lead=1) == [Window(0, 4), Window(2, 7, 1), Window(4, 9, 1)]
    assert windows(3, 4, 2) == [Window(0, 3)]


def test_fused_answers_are_their_weighted_mean():
    assert triangle(4).tolist() == [1, 2, 2, 1] and triangle(5).tolist() == [1, 2, 3, 2, 1]
    parts = [Window(0, 4), Window(1, 6, lead=1)]  # the second counts frames 2 to 5
    seen = [(w, torch.full((1, 2, w.stop - w.first, 1, 1), float(i))) for i, w in enumerate(parts)]
    fused = fuse(seen, 6, [triangle(4), triangle(4)])[0, 0, :, 0, 0]
    torch.testing.assert_close(fused, torch.tensor([0, 0, 1 / 3, 2 / 3, 1, 1]))
    assert fuse(seen, 6)[0, 0, :, 0, 0].tolist() == [0, 0, 0.5, 0.5, 1, 1]


@dataclass(frozen=True, kw_only=True)
class FirstHalf(Technique):
    """Shows the model the first frames alone, and answers 0 for the others."""

    name = "first_half"
    windowed = True
    frames: int = 2

    def velocity(self, step, x, branch, next):
        part = Window(0, self.frames)
        return torch.cat([next(part.of(x), part), torch.zeros_like(x[:, :, self.frames :])], dim=2)


@dataclass(frozen=True, kw_only=True)
class Told(Technique):
    """The last latent frames read another text."""

    name = "told"

    def start(self, run):
        run.read_texts(["a blue cube falls"])
        run.state[self] = []

    def context(self, step, site, frames):
        step.run.state[self].append((step.window, frames))
        return (torch.arange(frames) >= 2)[None]


def test_the_model_sees_a_part_as_a_clip_of_its_own(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    request = Request(prompt="a red ball rolls", num_frames=13, **SIZE)
    x = backbone.noise(backbone.prepare([request]), [torch.Generator().manual_seed(1)])
    with Run.open(backbone, request, [FirstHalf()]) as run, torch.no_grad():
        seen = run.velocity(run.schedule[0], x, "cond")
    alone = Request(prompt="a red ball rolls", num_frames=5, **SIZE)
    with Run.open(backbone, alone, []) as run, torch.no_grad():
        torch.testing.assert_close(seen[:, :, :2], run.velocity(run.schedule[0], x[:, :, :2], "cond"), rtol=0, atol=0)


def test_a_part_reads_the_texts_of_its_own_frames(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    asked = dict(num_frames=13, **SIZE)
    x = backbone.noise(backbone.prepare([Request(prompt="x", **asked)]), [torch.Generator().manual_seed(1)])

    @dataclass(frozen=True, kw_only=True)
    class LastHalf(Technique):
        name = "last_half"

        def velocity(self, step, x, branch, next):
            part = Window(2, 4)
            return torch.cat([torch.zeros_like(x[:, :, :2]), next(part.of(x), part)], dim=2)

    def answer(prompt, *techniques):
        with Run.open(backbone, Request(prompt=prompt, **asked), techniques) as run, torch.no_grad():
            return run.velocity(run.schedule[0], x, "cond")

    told = answer("a red ball rolls", LastHalf(), Told())
    torch.testing.assert_close(told, answer("a blue cube falls", LastHalf()))
    assert (told - answer("a red ball rolls", LastHalf())).abs().max() > 1e-4


def test_windows_of_windows_are_refused(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="first_half and first_half both show the model its clip in windows"):
        denoise(backbone, Request(prompt="a", num_frames=13, **SIZE), [FirstHalf(frames=3), FirstHalf()])


def test_a_blend_is_between_its_texts(tiny_wan):
    backbone = load(tiny_wan, device="cpu", dtype="float32")
    with Run.open(backbone, Request(prompt="a", num_frames=5, **SIZE), []) as run:
        run.read_texts(["a red ball", Blend(("a red ball", "a blue cube"), (0.25, 0.75)), "a blue cube"])
        first, between, last = (text["text"] for text in run.conditions.more_texts)
    torch.testing.assert_close(between, 0.25 * first + 0.75 * last)
    masks = [{"text_mask": torch.tensor([[True, False]])}, {"text_mask": torch.tensor([[True, True]])}]
    assert blended(masks, (0.5, 0.5))["text_mask"].tolist() == [[True, True]]


def test_windows_that_are_alike_see_as_many_frames_each():
    found = windows(9, 4, 3, lead=1, alike=True)
    assert found == [Window(0, 4), Window(3, 7, 1), Window(5, 9, 1)]
    assert sorted({f for w in found for f in w.counted}) == list(range(9))
    assert windows(4, 4, 3, lead=1, alike=True) == [Window(0, 4)]

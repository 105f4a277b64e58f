"""Which text a frame reads, by the timeline of the prompt."""

import pytest
import torch
from diffusers import DDIMScheduler

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.core.schedule import Clock
from kinema.events.prompt_schedule import PromptSchedule, mixed
from kinema.events.talc import TALC
from kinema.request import Request

SIZE = dict(num_frames=13, height=32, width=32, num_inference_steps=2, seed=1, fps=8)  # 4 latent frames
TWO = "a red ball rolls, then a blue cube falls"


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def test_talc_lets_every_frame_read_its_own_event(backbone):
    with Run.open(backbone, Request(prompt=TWO, **SIZE), [part := TALC()]) as run:
        table = part.context(run.schedule[0], backbone.sites[0], 4)
        assert table.tolist() == [[True, True, False, False], [False, False, True, True]]
        v = run.velocity(run.schedule[0], x := run.noise(), "cond")
    # Two events of one text: every frame reads that text and nothing else.
    with Run.open(backbone, Request(prompt="a red ball rolls, then a red ball rolls", **SIZE), [TALC()]) as run:
        alone = run.velocity(run.schedule[0], x, "cond")
    with Run.open(backbone, Request(prompt="a red ball rolls", **SIZE), []) as run:
        torch.testing.assert_close(alone, run.velocity(run.schedule[0], x, "cond"))
    assert (v - alone).abs().max() > 1e-4


def test_talc_refuses_a_batch_of_several_prompts(backbone):
    with pytest.raises(KinemaError, match="talc lets frames read texts of their own, the same for a batch"):
        denoise(backbone, [Request(prompt="a, then b", **SIZE), Request(prompt="a, then c", **SIZE)], [TALC()])


def test_texts_hand_over_in_a_line_around_the_border():
    frames = torch.tensor([[True] * 8 + [False] * 8, [False] * 8 + [True] * 8])
    weights = mixed(frames, 0.5, 15)
    # The paper's: the first text until 3/8, the second from 5/8, a line in between.
    assert weights[:6, 0].tolist() == [1.0] * 6 and weights[10:, 1].tolist() == [1.0] * 6
    torch.testing.assert_close(weights[6:10, 1], torch.tensor([0.125, 0.375, 0.625, 0.875], dtype=torch.float64))
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(16, dtype=torch.float64))
    assert torch.equal(mixed(frames, 0.0, 4), frames.T.double())
    assert mixed(frames, 0.5, 1)[6:10, 1].tolist() == [0.0, 0.5, 0.5, 1.0]


def test_every_block_reads_the_mixture_in_steps_5_to_15_of_50():
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    levels = Clock(scheduler.alphas_cumprod).levels[981::-20]
    high, low = PromptSchedule().mixed_range
    assert [i for i, t in enumerate(levels) if high >= t >= low] == list(range(5, 16))


def test_the_schedule_lets_early_blocks_read_the_base(backbone):
    request = Request(prompt=TWO, **SIZE)
    with Run.open(backbone, request, [part := PromptSchedule(mixing=0.0, mixed_range=(0.5, 0.4))]) as run:
        step = run.schedule[0]  # t = 1, outside the range
        first, last = (part.context(step, site, 4) for site in (backbone.sites[0], backbone.sites[-1]))
        base = int(last[:, -1].nonzero())  # what the last frame reads
        assert first[base].all() and first.sum() == 4
        assert last.sum(dim=0).tolist() == [1, 1, 1, 1] and last[base].tolist() == [False, False, True, True]
    with pytest.raises(KinemaError, match="prompt_schedule lets events follow each other"):
        denoise(backbone, Request(prompt="a ball rolls, meanwhile a cube falls", **SIZE), [PromptSchedule()])

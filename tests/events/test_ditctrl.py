"""Segments that attend to the one ahead of them."""

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.positions import Positions
from kinema.core.run import Run
from kinema.core.schedule import Clock
from kinema.core.windows import Window, fuse
from kinema.events import ditctrl
from kinema.events.ditctrl import DiTCtrl, Segments, Subject, mask_of, mixtures, parted
from kinema.events.vstar import VSTAR
from kinema.guidance.cfg import CFG
from kinema.layers.events import Events
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=4, seed=1, fps=8)
TWO = "a red ball rolls, then a blue cube falls"


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def velocity(backbone, prompt, x, *techniques, step=0):
    request = Request(prompt=prompt, num_frames=4 * (x.shape[2] - 1) + 1, **SIZE)
    with Run.open(backbone, request, techniques) as run:
        return run.velocity(run.schedule[step], x, "cond")


def test_prompts_hand_over_in_whole_transitions():
    frames = torch.tensor([[True] * 6 + [False] * 6, [False] * 6 + [True] * 6])
    found = mixtures(Events(("a", "b"), frames), [1.0, 3.0, 4.5, 6.0, 8.9, 11.0], transitions=2)
    weights = [dict(zip(blend.prompts, blend.weights, strict=True)).get("b", 0.0) for blend in found]
    assert weights == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1])
    assert next(blend.prompts for blend in found) == ("a",) and [blend.prompts for blend in found][-1] == ("b",)


def test_a_target_shares_in_steps_2_to_24_of_50_of_cogvideox():
    scheduler = CogVideoXDDIMScheduler(rescale_betas_zero_snr=True, snr_shift_scale=3.0)
    high, low = DiTCtrl().share_range
    levels = Clock(scheduler.alphas_cumprod).levels[::-20]
    assert [i for i, t in enumerate(levels) if high >= t >= low] == list(range(2, 25))


def test_without_sharing_it_is_the_blend_of_its_segments(backbone):
    x = torch.randn(1, 48, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    made = velocity(backbone, "a ball", x, DiTCtrl(window=4, overlap=2, share_range=(0.0, 0.0)))
    parts = [Window(0, 4), Window(2, 6, lead=1)]
    alone = [(w, velocity(backbone, "a ball", w.of(x))) for w in parts]
    weights = [torch.tensor([1.0, 3, 3, 1]), torch.tensor([3.0, 3, 1])]
    torch.testing.assert_close(made, fuse(alone, 6, weights), rtol=0, atol=2e-6)


def test_a_target_reads_the_keys_and_values_of_its_source(backbone):
    """Segments that are the same latents with the same text: then the source's keys are the target's own."""
    x = torch.randn(1, 48, 2, 2, 2, generator=torch.Generator().manual_seed(0)).repeat(1, 1, 3, 1, 1)
    shared, apart = (
        velocity(backbone, "a ball", x, DiTCtrl(window=4, overlap=2, share_range=r, block_range=(0, 1)))
        for r in ((1.0, 0.0), (0.0, 0.0))
    )
    torch.testing.assert_close(shared, apart, rtol=0, atol=2e-6)
    other = torch.cat([x[:, :, :2] + 1, x[:, :, 2:]], dim=2)
    shared, apart = (
        velocity(backbone, "a ball", other, DiTCtrl(window=4, overlap=2, share_range=r, block_range=(0, 1)))
        for r in ((1.0, 0.0), (0.0, 0.0))
    )
    torch.testing.assert_close(shared[:, :, :2], apart[:, :, :2], rtol=0, atol=2e-6)  # the source's alone
    assert (shared - apart)[:, :, 4:].abs().max() > 1e-4, "the target's frames do not see the source"


def test_segments_share_in_joint_attention_with_texts_of_their_own(tmp_path):
    backbone = load(cases()["cogvideox 5b"].build(tmp_path), device="cpu", dtype="float32")
    request = {**cases()["cogvideox 5b"].request, "num_frames": 25, "num_inference_steps": 2, "seed": 1}
    made = [
        denoise(backbone, Request(prompt=TWO, **request), [DiTCtrl(window=4, overlap=2, share_range=r)])[0]
        for r in ((1.0, 0.0), (0.0, 0.0))
    ]
    assert made[0].isfinite().all() and (made[0] - made[1]).abs().max() > 1e-5


def test_a_target_reads_its_source_in_every_part_of_its_queries(backbone):
    """VSTAR asks for attention once for the queries of each frame."""
    x = torch.randn(1, 48, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    part = DiTCtrl(window=4, overlap=2, share_range=(1.0, 0.0), block_range=(0, 1))
    parted = VSTAR(deviation=1e6)  # all frames are near each other: nothing but the parts is left of it
    made = [velocity(backbone, "a ball", x, *parts) for parts in ((part,), (parted, part))]
    torch.testing.assert_close(*made, rtol=0, atol=2e-6)


@pytest.mark.parametrize("masked", [True, False])
def test_where_text_is_masked_a_target_keeps_its_own(backbone, masked):
    part, site, places = DiTCtrl(window=4), Site(1, "joint", 2, 4), torch.zeros(4, 3)
    q, k, v, source_k, source_v = torch.randn(5, 1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    positions = Positions(places, places, text=4)  # four tokens of the video, two of text
    with Run.open(backbone, Request(prompt=TWO, num_frames=21, **SIZE), [part]) as run:
        run.state[part] = Segments(
            [], [], range(2), masked, role="target", kept={site: (source_k, source_v, positions)}
        )
        given = part.attend(run.schedule[0], site, q, k, v, positions, lambda *given: given)
    for read, own, source in zip(given[1:3], (k, v), (source_k, source_v), strict=True):
        assert torch.equal(read[:, :, :4], source[:, :, :4])
        assert torch.equal(read[:, :, 4:], (own if masked else source)[:, :, 4:])


def test_it_is_known_which_models_mask_their_text(tmp_path):
    for row, masked in (("hunyuan t2v", True), ("cogvideox 5b", False)):
        backbone, asked = load(cases()[row].build(tmp_path / row), device="cpu", dtype="float32"), cases()[row].request
        request, part = Request(prompt=TWO, **{**asked, "num_frames": 25}), DiTCtrl(window=4, overlap=2)
        with Run.open(backbone, request, [part]) as run:
            assert run.state[part].masked is masked


def test_a_clip_of_one_segment_reads_the_whole_prompt(backbone):
    x = torch.randn(1, 48, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(velocity(backbone, TWO, x, DiTCtrl(window=4)), velocity(backbone, TWO, x))


def plain(q, k, v, positions, bias):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)


MODEL = Attention.of(lambda q, k, positions: (q, k), plain)


@pytest.mark.parametrize("ahead", [0, 2])
def test_the_subject_sees_the_subject_and_the_rest_the_rest(ahead):
    """Eight tokens of a clip, two of text ahead of them or behind, and one that stands beside the clip."""
    places = torch.zeros(9, 3)
    text = range(2) if ahead else range(9, 11)
    positions = Positions(places, places, first=ahead, text=0 if ahead else 9, extra=1)
    q, k, v = torch.randn(3, 2, 2, 11, 4, generator=torch.Generator().manual_seed(0))
    source, target = torch.rand(2, 2, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    source[1] = False  # the second sample does not show its subject
    shown = torch.zeros(2, 11, 2)  # (B, L, query or key): 1 for the subject, 2 for all else of the clip
    shown[:, ahead : ahead + 8] = 2 - torch.stack([target, source], dim=2).float()
    of_q, of_k = shown.unbind(dim=2)
    sees = (of_q[:, :, None] == of_k[:, None]) | (of_q == 0)[:, :, None] | (of_k == 0)[:, None]
    assert sees[0, list(text)].all() and not sees[0].all()
    sees[1] = True
    logits = (q @ k.mT / 2).masked_fill(~sees[:, None], -torch.inf)
    torch.testing.assert_close(parted(q, k, v, positions, MODEL, source, target), logits.softmax(-1) @ v)


def test_a_mask_is_where_words_are_looked_at():
    looked = torch.tensor([[[0.1, 0.2, 0.11, 0.14], [0.3, 0.3, 0.3, 0.3], [5.0, 1.0, 2.1, 2.3]]])
    assert mask_of(looked, 0.3).tolist() == [[[False, True, False, True], [False] * 4, [True, False, False, True]]]


def test_how_much_is_looked_at_words_adds_up_over_layers():
    q, k, v = torch.randn(3, 1, 2, 6, 4, generator=torch.Generator().manual_seed(0))
    places = torch.zeros(4, 3)
    subject, asked = Subject([[], [0, 1]]), Positions(places, places, text=4)
    for _ in range(2):
        subject.look(1, q, k, v, asked, MODEL, 4)
    wanted = (q @ k.mT / 2).softmax(-1)[:, :, :4, 4:].sum(-1).mean(1)
    torch.testing.assert_close(subject.looked, 2 * wanted)


@pytest.mark.parametrize("row", ["wan 2.1 t2v", "cogvideox 5b", "hunyuan t2v", "mochi"])
def test_a_subject_is_shared_apart_on_every_family(row, tmp_path, monkeypatch):
    case = cases()[row]
    backbone = load(case.build(tmp_path), device="cpu", dtype="float32")
    frames = 6 * backbone.frames_per_latent + 1
    request = Request(
        prompt="a red ball rolls, then a red ball falls",
        **{**case.request, "num_frames": frames, "num_inference_steps": 2, "seed": 1, "fps": 8},
    )
    blocks = 1 + max(site.block for site in backbone.sites)
    fields = dict(window=4, overlap=2, share_range=(1.0, 0.0), block_range=(0, blocks - 1))

    def made(**more):
        return denoise(backbone, request, [CFG(scale=3.0), DiTCtrl(**fields, **more)])[0]

    shared, apart = made(), made(subject="red ball")
    assert apart.isfinite().all() and (apart - shared).abs().max() > 1e-5
    monkeypatch.setattr(ditctrl, "mask_of", lambda looked, threshold: looked < 0)
    torch.testing.assert_close(made(subject="red ball"), shared, rtol=0, atol=1e-4)


def test_masks_are_of_the_layers_so_far_and_of_the_prompt(backbone):
    """Where text is an attention of its own, the first block has nothing to go by."""
    part, request = DiTCtrl(window=4, overlap=2, share_range=(1.0, 0.0), subject="ball", block_range=(0, 1)), {**SIZE}
    with Run.open(backbone, Request(prompt="a red ball", num_frames=21, **request), [CFG(), part]) as run:
        x = torch.randn(run.conditions.shape, generator=torch.Generator().manual_seed(0))
        run.velocity(run.schedule[0], x, "uncond")
        assert not run.state[part].subject.masks
        run.velocity(run.schedule[0], x, "cond")
        assert set(run.state[part].subject.masks) == {(0, "source", 1), (1, "target", 1)}


def test_what_does_not_overlap_is_refused(backbone):
    for part, words in [
        (DiTCtrl(threshold=0.0), "threshold of ditctrl is 0.0"),
        (DiTCtrl(window=4, subject="red ball"), "subject of ditctrl: the prompt 'a blue cube falls' does not say"),
        (DiTCtrl(window=4, subject="a", block_range=(0, 0)), "ditctrl has nothing ahead of block 0"),
        (DiTCtrl(window=4, overlap=4), "overlap of ditctrl is 4 latent frames; use 1 to 3"),
        (DiTCtrl(transitions=-1), "transitions of ditctrl is -1"),
        (DiTCtrl(share_range=(0.2, 0.4)), "share_range of ditctrl"),
    ]:
        with pytest.raises(KinemaError, match=words):
            denoise(backbone, Request(prompt=TWO, num_frames=21, **SIZE), [part])
    with pytest.raises(KinemaError, match="ditctrl lets events follow each other"):
        denoise(backbone, Request(prompt="a ball rolls, meanwhile a cube falls", num_frames=21, **SIZE), [DiTCtrl()])

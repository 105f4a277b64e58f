"""Long clips made in windows: the analytic mean, a cut in each overlap, and the start kept in sight."""

from dataclasses import dataclass

import pytest
import torch
from PIL import Image

from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.run import Run
from kinema.core.technique import Technique
from kinema.core.windows import fuse, windows
from kinema.events.ditctrl import DiTCtrl
from kinema.guidance.cfg import CFG
from kinema.long import randomized_blending
from kinema.long.anchor_memory import AnchorMemory
from kinema.long.freelong import FreeLong
from kinema.long.freenoise import FreeNoise
from kinema.long.gen_l_video import GenLVideo
from kinema.long.randomized_blending import RandomizedBlending, cut_weights
from kinema.request import Request

SIZE = dict(height=32, width=32, num_inference_steps=2, seed=1, fps=8)


@pytest.fixture(scope="module")
def backbone(tiny_wan):
    return load(tiny_wan, device="cpu", dtype="float32")


def velocity(backbone, prompt, x, *techniques, step=0):
    request = Request(prompt=prompt, num_frames=4 * (x.shape[2] - 1) + 1, **SIZE)
    with Run.open(backbone, request, techniques) as run:
        for t in run.techniques:
            t.before_step(run.schedule[step], x)
        return run.velocity(run.schedule[step], x, "cond")


def test_gen_l_video_is_the_mean_of_short_clips_with_their_own_texts(backbone):
    x = torch.randn(1, 48, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    prompt = "a red ball rolls, then a blue cube falls"
    long = velocity(backbone, prompt, x, GenLVideo(window=3, stride=3))
    texts = ["a red ball rolls", "a blue cube falls"]
    by_hand = [(w, velocity(backbone, text, w.of(x))) for w, text in zip(windows(6, 3, 3, lead=1), texts, strict=True)]
    torch.testing.assert_close(long, fuse(by_hand, 6), rtol=0, atol=2e-6)
    assert (long - velocity(backbone, "a red ball rolls", x, GenLVideo(window=3, stride=3))).abs().max() > 1e-4


def test_windows_are_cut_once_in_every_overlap():
    parts = windows(14, 6, 4, lead=1)
    seen = set()
    for seed in range(20):
        weights = cut_weights(parts, torch.Generator().manual_seed(seed))
        of = [
            [f for f, w in zip(p.counted, ws.tolist(), strict=True) if w] for p, ws in zip(parts, weights, strict=True)
        ]
        assert [f for frames in of for f in frames] == list(range(14)), "every frame belongs to one window, in order"
        seen.add(len(of[0]))
    assert seen == {4, 5, 6}


def test_randomized_blending_takes_whole_frames_and_other_cuts_in_another_step(backbone, monkeypatch):
    x = torch.randn(1, 48, 7, 2, 2, generator=torch.Generator().manual_seed(0))
    parts = windows(7, 4, 1, lead=1)
    alone = [(w, velocity(backbone, "a ball", w.of(x))) for w in parts]
    made = velocity(backbone, "a ball", x, RandomizedBlending(window=4, overlap=3))
    answers = [[v[:, :, f - w.first] for w, v in alone if f in w.counted] for f in range(7)]
    assert all(any(torch.allclose(made[:, :, f], a, atol=2e-6) for a in answers[f]) for f in range(7))
    drawn = []
    monkeypatch.setattr(randomized_blending, "cut_weights", lambda *of: drawn.append(cut_weights(*of)) or drawn[-1])
    request = Request(prompt="a ball", num_frames=25, **SIZE)
    denoise(backbone, request, [RandomizedBlending(window=4, overlap=3), CFG()])
    cuts = [torch.cat(weights).tolist() for weights in drawn]
    assert cuts[0] == cuts[1] and cuts[2] == cuts[3], "the branches of the guidance share the cuts of a step"
    assert cuts[0] != cuts[2]


def test_the_start_of_a_clip_is_seen_by_its_later_windows_only(backbone):
    x = torch.randn(1, 48, 6, 2, 2, generator=torch.Generator().manual_seed(0))
    apart = GenLVideo(window=3, stride=3)
    plain, kept = (velocity(backbone, "a ball", x, apart, *more) for more in ((), (AnchorMemory(),)))
    torch.testing.assert_close(kept[:, :, :3], plain[:, :, :3], rtol=0, atol=2e-6)
    assert (kept - plain)[:, :, 3:].abs().max() > 1e-4


def test_a_start_that_is_given_is_told_as_clean(backbone, tmp_path):
    Image.new("RGB", (32, 32), (200, 40, 30)).save(tmp_path / "first.png")
    for image, told in ((None, None), (tmp_path / "first.png", 0.0)):
        request = Request(prompt="a ball", image=image, num_frames=21, **SIZE)
        with Run.open(backbone, request, [part := AnchorMemory(), GenLVideo(window=3, stride=3)]) as run:
            assert part.tokens(run.schedule[0]).t == told


@dataclass(frozen=True, kw_only=True)
class Apart(Technique):
    """Hides from the queries of every so many frames the keys of others."""

    frames: int

    def attend(self, step, site, q, k, v, positions, next):
        of_q, of_k = (places[:, 0] // self.frames for places in (positions.q, positions.k))
        return next(q, k, v, positions, torch.where(of_q[:, None] == of_k, 0.0, -torch.inf))


def test_windows_of_attention_in_segments_that_read_each_other(backbone):
    """A window of the target reads the same window of the source: rotary places are as far apart as ever."""
    x = torch.randn(1, 48, 10, 2, 2, generator=torch.Generator().manual_seed(0))
    segments = DiTCtrl(window=6, overlap=2, share_range=(1.0, 0.0), block_range=(0, 1))
    windowed = FreeNoise(window=2, stride=2, reschedule=False)
    made = velocity(backbone, "a ball", x, segments, windowed)
    torch.testing.assert_close(made, velocity(backbone, "a ball", x, segments, Apart(frames=2)), rtol=0, atol=5e-6)
    alone = DiTCtrl(window=6, overlap=2, share_range=(0.0, 0.0))
    assert (made - velocity(backbone, "a ball", x, alone, windowed)).abs().max() > 1e-4, "nothing is shared"


@pytest.mark.parametrize("kind", [FreeNoise, FreeLong])
def test_windows_ahead_of_segments_that_read_each_other_are_refused(backbone, kind):
    request = Request(prompt="a ball", num_frames=37, **SIZE)
    segments = DiTCtrl(window=6, overlap=2)
    says = f"{kind.name} passes windows of 2 latent frames of the segments of 6 .* put ditctrl ahead of it"
    with pytest.raises(KinemaError, match=says), Run.open(backbone, request, [kind(window=2), segments]):
        pass
    for parts in ([segments, kind(window=2)], [kind(window=6), segments], [kind(window=2), DiTCtrl(window=10)]):
        assert denoise(backbone, request, parts)[0].isfinite().all()


def test_what_cannot_be_windowed_is_refused_at_start(backbone):
    request = Request(prompt="a ball", num_frames=21, **SIZE)
    for parts, words in [
        ([GenLVideo(window=3, stride=4)], "gen_l_video has windows of 3 latent frames every 4"),
        ([GenLVideo(), RandomizedBlending()], "gen_l_video and randomized_blending both show the model its clip"),
        ([RandomizedBlending(window=4, overlap=4)], "overlap of randomized_blending is 4 latent frames; use 1 to 3"),
        ([AnchorMemory()], "anchor_memory remembers the start of a clip that is made in windows"),
    ]:
        with pytest.raises(KinemaError, match=words):
            denoise(backbone, request, parts)

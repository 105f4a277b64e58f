"""Words drawn into boxes: how boxes are read, and what they do to attention."""

import math
from types import SimpleNamespace

import pytest
import torch

from kinema.backbones.load import load
from kinema.core.attending import Attention
from kinema.core.attention import Site
from kinema.core.errors import KinemaError
from kinema.core.loop import denoise
from kinema.core.positions import Positions
from kinema.core.technique import Step
from kinema.core.windows import Window
from kinema.events.talc import TALC
from kinema.layers.regions import Region, read_regions
from kinema.quality.paint_with_words import Painting, PaintWithWords
from kinema.request import Request

SIZE = dict(height=32, width=32, num_frames=5, num_inference_steps=2, seed=1)


class State(dict):
    def __getitem__(self, technique):
        return super().__getitem__(0)


def step(painting, shape, patch=(1, 2, 2), t=0.75, **more):
    conditions = SimpleNamespace(shape=shape)
    run = SimpleNamespace(conditions=conditions, backbone=SimpleNamespace(patch=patch), state=State({0: painting}))
    run.reads_prompt = lambda branch: branch == "cond"
    return Step(0, 1, t, 0.0, run=run, **{"branch": "cond", **more})


def attention():
    def attend(q, k, v, positions, bias):
        return (q @ k.mT / q.shape[-1] ** 0.5 + (0 if bias is None else bias)).softmax(-1) @ v

    return Attention.of(lambda q, k, positions: (q, k), attend)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def weights_of(part, at, kind, q, k, positions):
    """The map of an attention."""
    eye = torch.eye(k.shape[2]).expand(*k.shape[:2], -1, -1)
    return part.attend(at, Site(0, kind, 2, 8), q, k, eye, positions, attention())


LEFT = Painting((Region("ball", 0.0, 0.0, 0.5, 1.0),), torch.tensor([[False, True]]), [[[2]]])


@pytest.mark.parametrize("kind, words, text", [("cross", 0, 0), ("joint", 5, 0)])
def test_the_bias_is_the_papers(kind, words, text):
    count = words + 2 * 4 + (3 if kind == "joint" else 0)  # two frames of 2 x 2 tokens, and some beside the clip
    q, places = normal(1, 2, count, 8), torch.zeros(count - words, 3)
    k = q.flip(1) if kind == "joint" else normal(1, 2, 5, 8, seed=1)
    positions = Positions(places, places if kind == "joint" else places[:0], first=words, text=text)
    logits = q @ k.mT / 8**0.5
    of_text = slice(0, 5)
    w = 0.4 * math.log(1 + 3) * logits[:, :, words : words + 8, of_text].amax((-2, -1), keepdim=True)  # t / (1 - t) = 3
    if kind == "joint":
        w = 0.4 * math.log(1 + 3) * logits[:, :, words : words + 8, of_text].amax((-2, -1), keepdim=True)
    mask = torch.zeros(count, k.shape[2])
    mask[[words + 4, words + 6], 2] = 1  # the left column of the second frame
    at = step(LEFT, (1, 4, 2, 4, 4))
    found = weights_of(PaintWithWords(weight=0.4), at, kind, q, k, positions)
    torch.testing.assert_close(found, (logits + w * mask).softmax(-1))
    capped = weights_of(PaintWithWords(weight=0.4, most_sigma=1.0), at, kind, q, k, positions)
    torch.testing.assert_close(capped, (logits + w / 2 * mask).softmax(-1))
    # Much of it leaves only the word there, and nothing changes elsewhere.
    all_of_it = weights_of(PaintWithWords(weight=1e3), at, kind, q, k, positions)
    torch.testing.assert_close(all_of_it[:, :, mask[:, 2] == 1, 2], torch.ones(1, 2, 2))
    assert torch.equal(all_of_it[:, :, mask[:, 2] == 0], logits.softmax(-1)[:, :, mask[:, 2] == 0])
    # A part of the tokens is painted as they are in the whole.
    order = torch.randperm(count, generator=torch.Generator().manual_seed(2))
    part = weights_of(PaintWithWords(weight=1e3), at, kind, q[:, :, order], k, positions.part(q=order))
    torch.testing.assert_close(part, all_of_it[:, :, order])


def test_nothing_is_painted_at_weight_0_or_without_the_prompt():
    q, k, places = normal(1, 2, 8, 8), normal(1, 2, 5, 8, seed=1), torch.zeros(8, 3)
    positions, plain = Positions(places, places[:0]), (q @ k.mT / 8**0.5).softmax(-1)
    assert torch.equal(
        weights_of(PaintWithWords(weight=0.0), step(LEFT, (1, 4, 2, 4, 4)), "cross", q, k, positions), plain
    )
    at = step(LEFT, (1, 4, 2, 4, 4), branch="uncond")
    assert torch.equal(weights_of(PaintWithWords(), at, "cross", q, k, positions), plain)
    seen = step(LEFT, (1, 4, 2, 4, 4), window=Window(0, 1))  # the first frame, in which the box is not
    first = weights_of(PaintWithWords(), seen, "cross", q[:, :, :4], k, Positions(places[:4], places[:0]))
    torch.testing.assert_close(first, plain[:, :, :4])


def test_a_unet_has_frames_in_its_batch_and_smaller_pictures_below():
    painting = Painting(LEFT.regions, LEFT.frames, [[[2]], [[0]]])  # two samples, whose prompts say it elsewhere
    q, k = normal(4, 2, 6, 8), normal(4, 2, 5, 8, seed=1)  # 2 x 3 places, one level down from 4 x 6
    found = weights_of(PaintWithWords(weight=1e3), step(painting, (2, 4, 2, 4, 6)), "cross", q, k, None)
    plain = (q @ k.mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(found[[0, 2]], plain[[0, 2]])  # the first frames
    inside = torch.tensor([0, 1, 3, 4])  # the second column is half in the box
    assert torch.all(found[1][:, inside, 2] > 0.999) and torch.all(found[3][:, inside, 0] > 0.999)
    torch.testing.assert_close(found[[1, 3]][:, :, [2, 5]], plain[[1, 3]][:, :, [2, 5]])


def test_a_token_of_two_frames_is_painted_where_one_of_them_is():
    frames = torch.tensor([[False, True, False, False]])  # a frame ahead of the clip, the clip's first, two more
    shares = Painting(LEFT.regions, frames, [[[2]]]).shares(step(None, (1, 4, 4, 4, 4)), 1, 2, every=2)
    assert shares.flatten().tolist() == [1, 0, 0, 0]


def test_boxes_are_read_and_share_cells():
    found = read_regions("red ball: 0.1 0.2 .5 1 @ 0-1.5s; tree: 0 0 1 0.5\nred ball: 0.5 0 1 1 @ 50-100%", "regions")
    assert found[0] == Region("red ball", 0.1, 0.2, 0.5, 1.0, "0-1.5s")
    assert [region.when for region in found] == ["0-1.5s", "", "50-100%"]
    share = Region("a", 0.25, 0.0, 0.75, 0.25).share(2, 2)
    assert share.tolist() == [[0.25, 0.25], [0, 0]]  # half of a row, half of each column
    torch.testing.assert_close(Region("a", 0.1, 0.2, 0.5, 1.0).share(7, 5).mean(), torch.tensor(0.4 * 0.8))


@pytest.mark.parametrize(
    "regions, says",
    [
        ("", "regions of paint_with_words is empty; say where words of the prompt are"),
        ("ball 0 0 1 1", "write words, a colon, and left top right bottom"),
        ("ball: 0 0 1", "write words, a colon"),
        ("ball: 0 0 1.5 1", "use left < right and top < bottom, all from 0 to 1"),
        ("ball: 0.5 0 0.5 1", "use left < right"),
        ("cube: 0 0 1 1", "does not say 'cube'"),
        ("ball: 0 0 1 1 @ soon", "expected a range as in 0-1.5s"),
        ("ball: 0 0 1 1 @ 0-90s", "times '0-90s' of 'ball'"),
    ],
)
def test_refuses_boxes_that_cannot_be_painted(tiny_wan, regions, says):
    backbone = load(tiny_wan, device="cpu")
    with pytest.raises(KinemaError, match=says):
        denoise(backbone, Request(prompt="a red ball", **SIZE), [PaintWithWords(regions=regions)])
    with pytest.raises(KinemaError, match="with talc frames read others; use one"):
        denoise(backbone, Request(prompt="a red ball", **SIZE), [PaintWithWords(regions="ball: 0 0 1 1"), TALC()])

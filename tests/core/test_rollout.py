"""Videos in chunks: what each is made of, what is carried, and going on after an interruption."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from core.test_loop import ToTarget
from kinema.core.chunks import Chunk, seed_of, split
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.core.rollout import Finished, Rollout, cut, joined
from kinema.core.technique import Technique
from kinema.request import Request

ASKED = dict(prompt="a", num_inference_steps=2, seed=7)


class Counting(ToTarget):
    """Frames that are 8 times as many as the chunk's number, counted up; the noise is seen in none of them."""

    defaults = SimpleNamespace(num_frames=8, height=4, width=4)

    def decode_pieces(self, x, conditions=None):
        frames = torch.arange(8, dtype=torch.uint8).reshape(1, 8, 1, 1, 1)
        yield from (frames + 8 * round(float(x.mean()))).split(3, dim=1)

    def sound(self, conditions):
        return None


class Drawing(Counting):
    """Its decoder goes on with the random numbers of the run."""

    def noise(self, conditions, generators):
        conditions.extra["generators"] = generators
        return super().noise(conditions, generators)

    def decode_pieces(self, x, conditions=None):
        yield torch.randint(256, (1, 8, 1, 1, 1), generator=conditions.extra["generators"][0], dtype=torch.uint8)


@dataclass(frozen=True, kw_only=True)
class InChunks(Technique):
    """Chunk i ends at i everywhere; what each found and saw is written down."""

    plan: tuple = (Chunk(request=Request(**ASKED), shown=8),)
    seen: list
    name = "in_chunks"

    def chunks(self, backbone, request):
        return self.plan

    def start(self, run):
        if run.requests[0].prompt == "refused":
            raise KinemaError("this chunk cannot be")
        before = None if run.before is None else run.before.flatten().tolist()
        told = {key: value.tolist() for key, value in run.carried[self].items()}
        self.seen.append((run.chunk.index, run.requests[0].seed, before, told))

    def init_noise(self, run, x):
        return torch.randn(x.shape, generator=run.generators[0])

    def finish(self, run, x):
        return torch.full_like(x, run.chunk.index)

    def carry(self, run, x):
        return {"ends": x.mean()[None], **run.carried[self]}


class Memory:
    """A shelf in memory, which can lose what came last."""

    def __init__(self):
        self.kept = {}

    def load(self, index):
        return self.kept.get(index)

    def save(self, index, finished):
        assert isinstance(finished, Finished)
        self.kept[index] = finished


def plan(*shapes, **asked):
    requests = [Request(**{**ASKED, "seed": seed_of(7, i), **asked}) for i in range(len(shapes))]
    return tuple(Chunk(request=r, overlap=o, shown=n) for r, (o, n) in zip(requests, shapes, strict=True))


def test_chunks_follow_each_other_and_show_each_frame_once():
    seen = []
    technique = InChunks(plan=plan((0, None), (2, None), (3, 2)), seen=seen)
    frames = sample(Counting(), Request(**ASKED, num_frames=16), [technique])
    assert frames.flatten().tolist() == [*range(8), *range(10, 16), 19, 20]
    rehearsed, made = seen[:3], seen[3:]
    assert [entry[2:] for entry in rehearsed] == [(None, {})] * 3
    assert [entry[2] for entry in made] == [None, [5, 6, 7], [13, 14, 15]]
    assert [entry[3] for entry in made] == [{}, {"ends": [0.0]}, {"ends": [0.0]}]
    assert [entry[1] for entry in made] == [7, seed_of(7, 1), seed_of(7, 2)] and len({e[1] for e in made}) == 3


def test_no_more_frames_are_held_than_the_next_chunk_repeats():
    rollout = Rollout(Counting(), Request(**ASKED), [InChunks(plan=plan((0, None), (2, None), (3, 2)), seen=[])])
    for frames in rollout.frames():
        assert frames.shape[1] <= 3 and rollout._before.untyped_storage().nbytes() <= 3


@pytest.mark.parametrize("kind", [Counting, Drawing])
def test_a_rollout_goes_on_behind_the_last_finished_chunk(kind):
    asked, chunks = Request(**ASKED), plan((0, None), (2, None), (3, 2))
    whole, shelf, calls, seen = sample(kind(), asked, [InChunks(plan=chunks, seen=[])]), Memory(), [], []

    def stop(step, x):
        if step.run.chunk.index == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Rollout(kind(), asked, [InChunks(plan=chunks, seen=[])], stop, shelf).frames())
    assert sorted(shelf.kept) == [0, 1]
    technique = InChunks(plan=chunks, seen=seen)
    rollout = Rollout(kind(), asked, [technique], lambda step, x: calls.append(step.run.chunk.index), shelf)
    assert torch.equal(torch.cat(list(rollout.frames()), dim=1), whole)
    assert calls == [2, 2] and seen[-1][0] == 2 and seen[-1][3] == {"ends": [0.0]}


@pytest.mark.parametrize(
    "chunks, asked, says",
    [
        (plan((0, None)) + plan((0, None), prompt="refused"), {}, "this chunk cannot be"),
        (plan((0, None), (2, None)), {"num_frames": 15}, "makes 14 frames in 2 chunks; num_frames is 15"),
        ((), {}, "differ; make them alike"),
    ],
)
def test_what_cannot_be_is_known_before_the_first_chunk(chunks, asked, says):
    steps = []
    with pytest.raises(KinemaError, match=says):
        sample(Counting(), Request(**ASKED, **asked), [InChunks(plan=chunks, seen=[])], lambda *a: steps.append(a))
    assert not steps


def test_two_plans_are_refused_with_both_names():
    with pytest.raises(KinemaError, match="in_chunks and in_chunks both own 'chunks'"):
        sample(Counting(), Request(**ASKED), [InChunks(seen=[]), InChunks(seen=[])])


def test_the_requests_of_a_batch_share_their_chunks():
    @dataclass(frozen=True, kw_only=True)
    class AsLongAsItsSeed(Technique):
        name = "uneven"

        def chunks(self, backbone, request):
            return split(request, request.seed, 4, 0)

    with pytest.raises(KinemaError, match="uneven makes the requests of a batch in chunks that differ"):
        Rollout(Counting(), [Request(prompt="a", seed=4), Request(prompt="a", seed=8)], [AsLongAsItsSeed()])


def test_split_covers_the_video_and_keeps_what_is_given_to_its_beginning():
    asked = Request(prompt="a", seed=1, image="first.png")
    chunks = split(asked, 20, 9, 3, given=True)
    assert [(c.overlap, c.shown, c.given) for c in chunks] == [(0, 9, False), (3, 6, True), (3, 5, True)]
    assert [c.request.num_frames for c in chunks] == [9] * 3
    assert [c.request.image for c in chunks] == ["first.png", None, None]
    assert split(asked, 9, 9, 3) == [Chunk(request=asked)]
    with pytest.raises(KinemaError, match="chunks of 9 frames cannot repeat 9; use an overlap of 0 to 8"):
        split(asked, 20, 9, 9)


def test_seeds_of_chunks_follow_from_the_video_s():
    assert seed_of(None, 3) is None and seed_of(5, 0) == 5
    drawn = {seed_of(s, i) for s in range(50) for i in range(1, 50)}
    assert len(drawn) == 50 * 49 and max(drawn) < 2**53


def test_frames_are_cut_out_of_pieces():
    pieces = torch.arange(10).reshape(1, 10).split(4, dim=1)
    for first, count in ((0, None), (3, 2), (4, 6), (9, 1), (0, 10)):
        expected = list(range(10))[first : None if count is None else first + count]
        assert torch.cat(list(cut(pieces, first, count)), dim=1).flatten().tolist() == expected


def test_sounds_are_joined_at_the_frames_they_belong_to():
    waves = torch.arange(12.0).reshape(1, 1, 12)  # 2 samples a frame
    one, two = (Chunk(request=Request(prompt="a"), overlap=o, shown=n) for o, n in ((0, 6), (2, 5)))
    sound, rate = joined([(one, 4.0, waves, 8), (two, 4.0, 100 + waves, 8)])
    assert rate == 8 and sound.flatten().tolist() == [*range(12), *range(104, 112), 0.0, 0.0]

"""Events by latent frame: the middle of a frame's time decides, gaps and overlaps are as they were asked for."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.timeline import Timeline


def table(text, num_frames=25, fps=8.0, k=4):
    return ["".join("01"[cell] for cell in row) for row in Timeline.parse(text).frames(num_frames, fps, k).tolist()]


@pytest.mark.parametrize(
    "text, rows",
    [
        # 25 frames at 8 fps are 7 latent frames: 0, 1-4, 5-8, ... in seconds 0-0.125, 0.125-0.625, 0.625-1.125, ...
        ("a", ["1111111"]),
        ("a, then b", ["1111000", "0000111"]),  # the middle of latent frame 3 is 1.375 s, of 4 it is 1.875 s
        ("0-0.125s: a | 0.125-3.125s: b", ["1000000", "0111111"]),
        ("0-1s: a | 2-3.125s: b", ["1110000", "0000011"]),  # a gap: latent frames 3 and 4 belong to nothing
        ("0-2s: a | 1-3s: meanwhile b", ["1111100", "0001111"]),
        ("a, meanwhile b, then c", ["1111000", "1111000", "0000111"]),
        ("[0:9] a | [9:25] b", ["1110000", "0001111"]),
        ("[0:11] a | [11:25] b", ["1110000", "0001111"]),  # frames 9 and 10 of 9-12: the middle, 11, is b's
        ("[0%:50%] a | [50%:100%] b", ["1111000", "0000111"]),
    ],
)
def test_table(text, rows):
    assert table(text) == rows


@given(st.integers(0, 20), st.sampled_from([1, 2, 4, 6, 8]), st.floats(1, 60), st.lists(st.floats(0.05, 1), max_size=3))
def test_events_end_to_end_share_all_frames(latents, k, fps, weights):
    frames = 1 + k * latents
    edges = torch.tensor([0.0, *weights, 1.0]).cumsum(0)
    edges = (edges / edges[-1] * 100).tolist()
    text = " | ".join(f"[{a:.6f}%:{b:.6f}%] {i}" for i, (a, b) in enumerate(pairwise(edges)))
    try:
        found = Timeline.parse(text).frames(frames, fps, k)
    except KinemaError as error:
        assert "too short for a frame" in str(error)
    else:
        assert found.shape[1] == latents + 1 and found.sum(0).tolist() == [1] * (latents + 1)


@pytest.mark.parametrize(
    "text, says",
    [
        (
            "0-0.1s: a | 0.2-0.3s: b | 1-3s: c",
            "the event 'b' lasts from 0.2 to 0.3 s, too short for a frame",
        ),
        ("0-2s: a | 2-4s: b", "ends at 4 s; the video is 3.125 s long"),
    ],
)
def test_refused(text, says):
    with pytest.raises(KinemaError, match=says):
        table(text)

"""How long a video is, and that times are followed or refused."""

from types import SimpleNamespace

import pytest

from kinema.core.errors import KinemaError
from kinema.events.talc import TALC
from kinema.guidance.cfg import CFG
from kinema.request import Request
from kinema.timing import check_times, lasting

MODEL = SimpleNamespace(name="mini", frames_step=4, defaults=SimpleNamespace(fps=8.0))


@pytest.mark.parametrize(
    "values, frames, told",
    [
        (dict(prompt="a", seconds=3.125), 25, ""),
        (dict(prompt="a", seconds=12), 97, "12 s at 8 fps is 96 frames; mini takes 4k + 1, so the video has 97 frames"),
        (dict(prompt="a", seconds=12, fps=24), 289, "12 s at 24 fps is 288 frames"),
        (dict(prompt="a", seconds=0.1), 1, "the video has 1 frames, 0.125 s"),
        (dict(prompt="a", num_frames=7), 7, ""),
        (dict(prompt="a"), None, ""),
        (dict(timeline="0-3s: a | 3-6s: b"), 49, "6 s at 8 fps is 48 frames"),
        (dict(timeline="[0:14] a | [14:46] b"), 49, "46 frames"),  # nearest would be 45, and cut the last event short
        (dict(timeline="0-3s: a | 3-6s: b", seconds=3), 25, "3 s"),  # what is asked for is refused later, not changed
        (dict(timeline="[0%:50%] a | [50%:100%] b"), None, ""),
        (dict(timeline="[0:9] a | [9:25] b"), 25, ""),
    ],
)
def test_length(values, frames, told, caplog):
    found = lasting(Request(**values), MODEL)
    assert found.num_frames == frames and (found.seconds is None or frames is None)
    assert told in caplog.text and bool(told) == bool(caplog.text)


@pytest.mark.parametrize("values", [dict(prompt="0-1s: a | 1-2s: b"), dict(prompt="x", timeline="0-1s: a | 1-2s: b")])
def test_times_need_a_technique_that_follows_them(values):
    check_times(Request(**values), [CFG(), TALC()])
    check_times(Request(prompt="a, then b"), [CFG()])
    with pytest.raises(KinemaError, match=r"gives times, and no technique .* add one that does \(.*talc.*\), or write"):
        check_times(Request(**values), [CFG()])

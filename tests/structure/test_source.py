"""Clips of any length as sources: read forwards, in parts, with their cuts."""

import itertools

import numpy as np
import pytest

from kinema.core.errors import KinemaError
from kinema.layers import source as sources
from kinema.layers.source import Source, spread
from kinema.layers.structure import scale_of, structure
from kinema.structure.source import Part, cut_up, nearest_size
from kinema.video import Video, clip_address


def clip(count=23, height=32, width=48):
    """Frames that say their number in their red, in places that no encoder loses."""
    frames = np.full((count, height, width, 3), 90, dtype=np.uint8)
    frames[..., 0] = (10 * np.arange(count) % 250)[:, None, None]
    return frames


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ""])
def test_any_frames_of_any_kind_of_file_are_those_of_the_whole(suffix, tmp_path):
    path = tmp_path / f"clip{suffix}"
    Video(clip(), fps=12.5).save(path)
    whole = Video.load(path)
    source = Source.open(str(path), cuts=False)
    assert (len(source), source.survey.height, source.survey.width) == (23, 32, 48)
    assert source.survey.fps == pytest.approx(12.5, rel=0.01)
    for wanted in (range(5), range(3, 9), range(15, 20), range(1, 4), [0, 7, 22], [21, 22, 23, 30]):
        numbers = [min(i, 22) for i in wanted]
        assert np.array_equal(source.frames(wanted), whole.frames[numbers])


def test_a_source_holds_a_part_and_decodes_no_frame_twice(monkeypatch):
    read = []

    def counted(path):
        for number in itertools.count():
            read.append(number)
            yield np.full((16, 16, 3), number % 256, np.uint8)

    monkeypatch.setattr(sources, "pictures", counted)
    source = Source("x", sources.Survey(1000, 8.0, 16, 16, ((0, 1000),)))
    for first in range(0, 100, 8):
        found = source.frames(range(first, first + 13))
        assert found[:, 0, 0, 0].tolist() == [n % 256 for n in range(first, first + 13)]
        assert len(source._last) == 13
    assert read == list(range(109))


def test_cuts_are_found_while_it_is_read(tmp_path):
    red, blue = np.full((9, 32, 48, 3), (200, 30, 30), np.uint8), np.full((4, 32, 48, 3), (20, 40, 220), np.uint8)
    Video(np.concatenate([red, blue, red]), fps=8).save(tmp_path / "cut.mp4")
    assert Source.open(str(tmp_path / "cut.mp4")).survey.shots == ((0, 9), (9, 13), (13, 22))
    assert Source.open(str(tmp_path / "cut.mp4"), cuts=False).survey.shots == ((0, 22),)


def test_large_frames_are_shrunk_as_they_are_read():
    source = Source.open(clip_address(clip(2, 600, 1200)))
    assert source.frames([0]).shape == (1, 512, 1024, 3) and source.survey.height == 600


@pytest.mark.parametrize("what, says", [("", "source is empty"), ("nowhere.mp4", "no file or folder nowhere.mp4")])
def test_a_clip_that_is_not_there_is_refused(what, says):
    with pytest.raises(KinemaError, match=says):
        Source.open(what)


def test_a_folder_whose_pictures_differ_in_size_is_refused(tmp_path):
    Video(clip(3), fps=8).save(tmp_path / "pictures")
    Video(clip(1, 16, 16), fps=8).save(tmp_path / "other")
    (tmp_path / "other" / "frame_0000.png").rename(tmp_path / "pictures" / "frame_0003.png")
    with pytest.raises(KinemaError, match="frame 3 of .* has another size"):
        Source.open(str(tmp_path / "pictures"))


def test_parts_cover_every_frame_once_and_never_cross_a_cut():
    for shots, count in (
        (((0, 60),), 60),
        (((0, 7), (7, 40), (40, 41)), 41),
        (((0, 9), (9, 20)), 31),
        (((0, 30),), 11),
    ):
        parts = list(cut_up(shots, count, 13, 5))
        shown = [range(p.first + p.overlap, p.stop) for p in parts]
        assert [i for r in shown for i in r] == list(range(count))
        cuts = {first for first, _ in shots if first < count}
        assert {p.first for p in parts if p.overlap == 0} == cuts
        assert all(p.overlap in (0, 5) and p.stop - p.first <= 13 and p.shot[0] <= p.first for p in parts)
    assert list(cut_up(((0, 20),), 20, 13, 5)) == [Part(0, 13, 0, (0, 20)), Part(8, 20, 5, (0, 20))]


def test_samples_are_spread_from_the_first_frame_to_the_last():
    assert spread(10, 13, 32) == [10, 11, 12]
    assert spread(0, 101, 5) == [0, 25, 50, 75, 100]


def test_parts_that_share_a_scale_fit_together():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (6, 24, 32, 3), dtype=np.uint8)
    frames[3:] //= 4
    for kind in ("depth", "flow", "grey"):
        whole = structure(frames, kind, scale=scale_of([frames], kind))
        assert np.array_equal(whole, structure(frames, kind))
        last = structure(frames[3:], kind, scale=scale_of([frames], kind))
        np.testing.assert_allclose(last, whole[3:], atol=1e-3)
    assert scale_of([frames[3:]], "depth") != scale_of([frames], "depth")


class Square:
    """What a model says of sizes, of one that makes 128 x 128 in steps of 16."""

    pixels_per_cell, patch = 8, (1, 2, 2)
    defaults = type("Defaults", (), {"height": 128, "width": 128})


@pytest.mark.parametrize(
    "shape, size", [(1.0, (128, 128)), (9 / 16, (96, 176)), (16 / 9, (176, 96)), (3 / 4, (112, 144)), (0.5, (96, 192))]
)
def test_the_size_is_near_the_shape_and_the_area(shape, size):
    assert nearest_size(Square, shape) == size
    assert nearest_size(Square, shape, height=64)[0] == 64

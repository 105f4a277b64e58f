"""Reading and writing video: what is written comes back, whole or not at all, and the same every time."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from kinema.core.errors import KinemaError
from kinema.files import replacing, sha256
from kinema.lettering import LINE, cut, length, wrapped, write
from kinema.video import Video, contact_sheet, load_picture

META = {"kinema": {"prompt": "é ü 火", "long": ["x" * 4000, 1.5, None]}}


def clip(frames: int = 9, height: int = 48, width: int = 64, **more) -> Video:
    """A disc that moves over smooth ground."""
    t, y, x = np.ogrid[:frames, :height, :width]
    ground = np.stack(np.broadcast_arrays(80 + x + 0 * t, 60 + y + 0 * t, 120 + 0 * t + 0 * x + 0 * y), -1)
    disc = (x - 12 - 4 * t) ** 2 + (y - height / 2) ** 2 < 80
    return Video(np.where(disc[..., None], (200, 60, 50), ground).astype(np.uint8), **{"fps": 8, **more})


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


@pytest.mark.parametrize("name, least", [("a.mp4", 33), ("a.webm", 31), ("a.gif", 34), ("a", 100)])
def test_comes_back(tmp_path, name, least):
    video = clip()
    back = Video.load(video.save(tmp_path / name, META))
    assert back.frames.shape == video.frames.shape and back.fps == 8 and back.metadata == META
    assert psnr(back.frames, video.frames) > least
    assert os.listdir(tmp_path) == [name]  # nothing temporary is left


@pytest.mark.parametrize("colour", [(200, 40, 40), (40, 180, 60), (40, 60, 210), (250, 250, 250)])
@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_colours_stay(tmp_path, colour, suffix):  # a wrong matrix or range would shift them by 10 and more
    video = Video(np.full((3, 32, 32, 3), colour, np.uint8))
    back = Video.load(video.save(tmp_path / f"a.{suffix}"))
    np.testing.assert_allclose(back.frames.mean((0, 1, 2)), colour, atol=4)


@pytest.mark.parametrize("name, times", [("a.mp4", 16), ("a.webm", 4), ("a.gif", 2)])
def test_same_video_same_bytes(tmp_path, name, times):  # 80 x 62 is a size at which x264 may differ, one time in ten
    video = clip(height=62, width=80, sound=np.sin(np.arange(18000) / 6).astype(np.float32))
    assert len({video.save(tmp_path / name, META).read_bytes() for _ in range(times)}) == 1


@pytest.mark.parametrize("fps", [8, 12.5, 23.976, 24, 29.97, 60])
def test_frame_rates_stay(tmp_path, fps):
    assert Video.load(clip(fps=fps).save(tmp_path / "a.mp4")).fps == pytest.approx(fps, rel=1e-4)


@pytest.mark.parametrize("suffix", ["mp4", "webm"])
def test_odd_sizes_grow_by_one(tmp_path, suffix):
    video = clip(height=47, width=63)
    back = Video.load(video.save(tmp_path / f"a.{suffix}"))
    assert back.frames.shape == (9, 48, 64, 3) and psnr(back.frames[:, :47, :63], video.frames) > 31


def test_frames_that_stay_the_same_are_not_lost_in_gif(tmp_path):
    video = Video(np.repeat(clip(3).frames, [4, 1, 6], axis=0), fps=12)
    back = Video.load(video.save(tmp_path / "a.gif"))
    assert len(back) == 11 and psnr(back.frames, video.frames) > 34


@pytest.mark.parametrize("name, rate", [("a.mp4", 16000), ("a.webm", 48000), ("a", 16000)])
@pytest.mark.parametrize("channels", [1, 2])
def test_sound_comes_back_in_time(tmp_path, name, rate, channels):
    time = np.arange(18000) / 16000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time) * (time > 0.5)).astype(np.float32)
    sound = tone if channels == 1 else np.stack([tone, 0 * tone], 1)
    back = Video.load(clip(sound=sound).save(tmp_path / name))
    assert back.sample_rate == rate and back.sound.shape[1:] == sound.shape[1:]
    left = back.sound if channels == 1 else back.sound[:, 0]
    onset = np.argmax(np.abs(left) > 0.25) / rate
    assert onset == pytest.approx(0.5, abs=0.01)
    if channels == 2:
        assert np.abs(back.sound[:, 1]).max() < 0.02


def test_one_frame_of_one_pixel(tmp_path):
    for name in ("a.mp4", "a.webm", "a.gif", "a"):
        assert len(Video.load(Video(np.zeros((1, 1, 1, 3), np.uint8)).save(tmp_path / name))) == 1


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a.png", "a.txt"])
@pytest.mark.parametrize("content", [b"", b"no video", b"GIF89a\x00\x00", b"\x89PNG\r\n\x1a\n\x00"])
def test_broken_files_are_one_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(KinemaError) as error:
        Video.load(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
def test_files_that_are_cut_short_are_refused(tmp_path, name):
    path = clip().save(tmp_path / name)
    data = path.read_bytes()
    for part in (0.2, 0.6, 0.95):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(KinemaError, match="cut short" if part > 0.5 and name != "a.gif" else name):
            Video.load(path)


def test_a_webm_that_does_not_say_its_length_is_read(tmp_path):
    path = clip().save(tmp_path / "a.webm")
    data = bytearray(path.read_bytes())
    size = data.index(b"\x18\x53\x80\x67") + 4
    data[size : size + 8] = b"\x01" + b"\xff" * 7  # as of a stream
    path.write_bytes(data)
    assert len(Video.load(path)) == 9


@pytest.mark.parametrize(
    "comment",
    ["plain words", '{"fps": "x", "frames": 1, "metadata": 3}', '{"fps": 8.0, "frames": 999999, "metadata": {}}'],
)
def test_foreign_gifs_are_read_by_their_own_timing(tmp_path, comment):
    from PIL import Image

    pictures = [Image.new("RGB", (8, 8), (80 * i, 0, 0)) for i in range(3)]
    pictures[0].save(
        tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 200, 100], comment=comment
    )
    back = Video.load(tmp_path / "a.gif")
    assert len(back) == 4 and back.fps == 10


def test_videos_too_long_for_memory_are_refused(tmp_path, monkeypatch):
    for name in ("a.mp4", "a.gif", "a"):
        clip().save(tmp_path / name)
    monkeypatch.setattr("kinema.formats.MAX_BYTES", 5 * 48 * 64 * 3)
    for name in ("a.mp4", "a.gif", "a"):
        with pytest.raises(KinemaError, match="too long"):
            Video.load(tmp_path / name)


def test_missing_and_impossible_places(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("x")
    for name, says in [
        ("no/a.mp4", "does not exist"),
        ("a.avi", "use .mp4, .webm or .gif"),
        ("file/a.mp4", "is not a folder"),
        ("file", "it is a file"),
        ("other", "holds other things"),
    ]:
        with pytest.raises(KinemaError, match=says):
            clip().save(tmp_path / name)
    with pytest.raises(KinemaError, match="there is no file"):
        Video.load(tmp_path / "no.mp4")
    with pytest.raises(KinemaError, match="no pictures"):
        Video.load(tmp_path / "other")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError, OSError])
def test_a_stopped_write_leaves_what_was_there(tmp_path, stop):
    path = tmp_path / "a.mp4"
    path.write_text("before")
    with pytest.raises(KinemaError if stop is OSError else stop), replacing(path) as temporary:
        temporary.write_text("half")
        raise stop
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["a.mp4"]


def test_no_space_leaves_what_was_there(tmp_path):
    import errno

    with pytest.raises(KinemaError, match="no space left"), replacing(tmp_path / "a.mp4"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    clip(9).save(tmp_path / "a")
    clip(3).save(tmp_path / "a")
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == ["frame_0000.png", "frame_0001.png", "frame_0002.png", "video.json"]
    assert json.loads((tmp_path / "a" / "video.json").read_text())["fps"] == 8


@pytest.mark.parametrize(
    "values, says",
    [
        (dict(frames=np.zeros((2, 4, 4), np.uint8)), "shape"),
        (dict(frames=np.zeros((0, 4, 4, 3), np.uint8)), "at least one frame"),
        (dict(frames=np.zeros((2, 4, 4, 3), np.float32)), "uint8"),
        (dict(frames=np.zeros((2, 4, 4, 3), np.uint8), fps=0), "fps is 0"),
        (dict(frames=np.zeros((2, 4, 4, 3), np.uint8), sound=np.zeros((2, 5))), "sound has shape"),
        (dict(frames=np.zeros((2, 4, 4, 3), np.uint8), sound=np.array([np.nan])), "not numbers"),
    ],
)
def test_impossible_videos(values, says):
    with pytest.raises(KinemaError, match=says):
        Video(**values)


def test_transparent_pictures_lie_on_black(tmp_path):
    from PIL import Image

    Image.new("RGBA", (2, 2), (200, 100, 0, 0)).save(tmp_path / "a.png")
    assert not load_picture(tmp_path / "a.png").any()


def test_contact_sheet_shows_first_and_last(tmp_path):
    video = clip(40)
    sheet = contact_sheet(video, columns=5, count=10, cell=64)
    assert sheet.size == (5 * 68 + 4, 2 * (48 + LINE + 4) + 4)
    pixels = np.asarray(sheet)
    assert np.array_equal(pixels[4:52, 4:68], video.frames[0])
    assert np.array_equal(pixels[8 + 48 + LINE :, 276:340][:48], video.frames[-1])
    assert contact_sheet(video, columns=5, cell=64).size[1] == 4 * (48 + LINE + 4) + 4  # every second of 40
    with pytest.raises(KinemaError, match="columns is 0"):
        contact_sheet(video, columns=0)


def test_words_keep_their_spaces():
    assert length("a b") - length("ab") == pytest.approx(0.32 * 13) and length("rolls to the left") > 80
    sheet = Image.new("RGB", (60, LINE))
    write(sheet, (0, 0), "l l", (255, 255, 255))
    dark = [not np.asarray(sheet)[:, x].any() for x in range(12)]
    assert sum(dark[2:8]) >= 3  # pixels between the letters
    assert cut("a long text", length("a long...") + 1) == "a long..." and cut("a", 1) == ""
    assert wrapped("a b c", length("a b") + 0.1) == ["a b", "c"]


def test_notebooks_get_a_player():
    html = clip(2)._repr_html_()
    assert html.startswith("<video") and "data:video/mp4;base64," in html


def test_hash_follows_the_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(b"abcd")
    assert sha256(path) != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

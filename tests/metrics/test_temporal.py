"""Flow and the metrics of motion, cuts, drift, seams and frequencies on clips whose numbers are known."""

import importlib.util

import numpy as np
import pytest
from clips import scenes, world_clips

from kinema.core.errors import KinemaError
from kinema.metrics.corruptions.temporal import spliced
from kinema.metrics.extractors.extractor import Extractor, load_extractor
from kinema.metrics.flow import back_flow, flow, inconsistent, occlusion, warp
from kinema.metrics.metric import find
from kinema.metrics.shots import shots
from kinema.metrics.temporal.dynamic_degree import fastest
from kinema.metrics.temporal.high_frequency import spatial_share, temporal_energy
from kinema.metrics.temporal.seam_score import seam
from kinema.metrics.temporal.sharpness import laplacian_variance
from kinema.metrics.temporal.temporal_consistency import cosines
from kinema.metrics.temporal.warping_error import difference
from kinema.metrics.viewing import Viewing


def texture(height=96, width=160, seed=0):
    """A smooth random picture, (H, W, 3) uint8."""
    from scipy.ndimage import gaussian_filter

    x = gaussian_filter(np.random.default_rng(seed).standard_normal((height, width, 3)), (2, 2, 0))
    return np.clip(128 + 40 * x / x.std(), 0, 255).astype(np.uint8)


def pan(rights, size=64):
    """A camera that passes a texture: frame t shows it `rights[t]` pixels moved to the right."""
    wide = texture()
    return Viewing(np.stack([wide[16 : 16 + size, 48 - r : 48 - r + size] for r in rights]), fps=10.0)


def grey(*levels, size=16):
    return Viewing(np.stack([np.full((size, size, 3), level, np.uint8) for level in levels]))


STEADY = pan([0, 2, 4, 6, 8, 10, 12, 14])


def test_flow_of_a_shift_is_the_shift_both_ways():
    inside = np.s_[:, 16:-16, 16:-16]
    np.testing.assert_allclose(flow(STEADY)[inside], np.broadcast_to([2, 0], (7, 32, 32, 2)), atol=0.1)
    np.testing.assert_allclose(back_flow(STEADY)[inside], np.broadcast_to([-2, 0], (7, 32, 32, 2)), atol=0.1)
    assert not occlusion(STEADY)[inside].any()
    assert occlusion(STEADY)[:, 16:-16, -1].all(), "the last column leaves the picture"
    again = warp(STEADY.frames[1], flow(STEADY)[0])[16:-16, 16:-16].astype(int)
    assert np.abs(again - STEADY.frames[0, 16:-16, 16:-16]).mean() < 1.5


def test_flow_follows_the_objects_of_the_world():
    for clip in scenes(2, truth=True):
        there, thing = clip.flow.numpy(), (clip.visible & (clip.mask[:-1] > 0)).numpy()
        off = np.linalg.norm(flow(Viewing(clip.frames.numpy())) - there, axis=-1)[thing].mean()
        assert off < 0.5 * np.linalg.norm(there, axis=-1)[thing].mean()


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 9, 70), (2, 70, 9), (1, 20, 20)])
def test_flow_of_small_pictures_and_of_a_single_frame(shape):
    clip = Viewing(np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8))
    for found in (flow(clip), back_flow(clip)):
        assert found.shape == (shape[0] - 1, *shape[1:], 2) and found.dtype == np.float32 and np.isfinite(found).all()
    assert occlusion(clip).shape == (shape[0] - 1, *shape[1:])


def test_hidden_is_what_does_not_come_back_or_leaves_the_picture():
    there, back = np.zeros((8, 9, 2), np.float32), np.zeros((8, 9, 2), np.float32)
    there[..., 0], back[..., 0] = 2, -2
    hidden = inconsistent(there, back)
    assert not hidden[:, :7].any() and hidden[:, 7:].all()
    there[..., 0], back[..., 0] = 0.7, 0  # 0.49 is less than 0.01 * 0.49 + 0.5
    assert not inconsistent(there, back)[:, :8].any()
    there[..., 0] = 0.72
    assert inconsistent(there, back).all()


def test_other_estimators_of_flow_are_named_or_refused():
    with pytest.raises(KinemaError, match="no other models"):
        load_extractor("dis@fast")
    if importlib.util.find_spec("torchvision") is None:
        with pytest.raises(KinemaError, match=r"kinema\[raft\]"):
            load_extractor("raft")


def test_raft_from_a_folder(tmp_path):
    flows = pytest.importorskip("torchvision.models.optical_flow")
    from safetensors.torch import save_file

    save_file(flows.raft_large(weights=None).state_dict(), tmp_path / "model.safetensors")
    raft = load_extractor(f"raft@{tmp_path}")
    clip = Viewing(STEADY.frames[:2, :20, :33])
    assert flow(clip, raft).shape == (1, 20, 33, 2) and raft.label == f"raft@{tmp_path}"
    with pytest.raises(KinemaError, match="knows no model"):
        load_extractor("raft@nothing")


def test_warping_error_sees_light_and_not_motion():
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    still, shown = np.zeros((4, 4, 2), np.float32), np.zeros((4, 4), bool)
    assert difference(black, white, still, shown) == 1
    assert difference(black, black + 51, still, shown) == pytest.approx(0.04)
    shown[:, 1:] = True
    white[:, 1:] = 0
    assert difference(black, white, still, shown) == 1, "what is hidden does not count"
    assert difference(black, white, still, shown | True) is None
    raw = np.square(np.diff(STEADY.frames.astype(float) / 255, axis=0)).mean()
    assert find("warping_error")(STEADY) < 0.05 * raw
    lighter = STEADY.frames.copy()
    lighter[1::2] = np.minimum(lighter[1::2].astype(int) + 20, 255)
    assert find("warping_error")(lighter) == pytest.approx((20 / 255) ** 2, rel=0.2)


def test_a_clip_that_stands_still_or_alternates():
    still = Viewing(np.repeat(texture()[None, :32, :32], 8, 0))
    names = ("flicker", "warping_error", "dynamic_degree", "cuts", "colour_drift", "sharpness_drift")
    assert not any(find(name)(still) for name in (*names, "camera_motion_residual"))
    assert find("seam_score")(still) == 1
    assert find("motion_smoothness")(still) is None and find("temporal_high_frequency")(still) is None
    blink = grey(*[0, 255] * 4)
    assert find("flicker")(blink) == 255 and find("temporal_high_frequency")(blink) > 0.99
    assert find("cuts")(blink) == 7
    assert find("spatial_high_frequency")(blink) is None, "all frames are flat"


def test_a_pan_is_fast_smooth_and_the_cameras():
    lengths = np.stack([np.arange(100.0).reshape(10, 10), np.zeros((10, 10))], -1)
    assert fastest(lengths, np.ones((10, 10), bool)) == 97 and fastest(lengths, lengths[..., 0] < 20) == 19
    assert find("dynamic_degree")(STEADY) == pytest.approx(2 * 10 / 64, rel=0.1)
    assert find("motion_smoothness")(STEADY) > 0.95
    assert find("camera_motion_residual")(STEADY) < 0.05 * find("dynamic_degree")(STEADY)
    assert find("motion_smoothness")(pan([0, 2, 0, 2, 0, 2])) < 0.05, "it turns back at every frame"
    assert find("motion_smoothness")(pan([0, 1, 4, 5, 8, 9])) == pytest.approx(0.5, abs=0.05), "|a| = 2 of 4"
    moving = STEADY.frames.copy()
    for t, frame in enumerate(moving):  # on the other side of the picture, something goes the other way
        frame[8:24, 40 - 2 * t : 56 - 2 * t] = texture(seed=1)[:16, :16]
    share = 16 * 16 / 64**2
    assert find("camera_motion_residual")(Viewing(moving, fps=10.0)) > 0.5 * share * 4 * 10 / 64


class Turned(Extractor):
    """What goes one way comes back from farther the same way: each of its moves turns round."""

    name, gives, usual = "turned", frozenset({"flow"}), ""

    def flow(self, frames):
        far = np.float32(0.1 if frames[0, 0, 0, 0] < frames[-1, 0, 0, 0] else 0.2)
        return np.broadcast_to(far * np.array([0.26, 0.25], np.float32), (len(frames) - 1, *frames.shape[1:3], 2))


def test_motion_that_turns_round_is_no_less_than_not_smooth():
    """In float32 |w + b| is more than |w| + |b| here."""
    assert find("motion_smoothness")(grey(0, 1, 2), extractor=Turned("")) == 0


def test_two_clips_glued_together_have_one_cut():
    one, other = (clip.frames[:10] for clip in world_clips(2))
    glued = Viewing(np.concatenate([one, 255 - other[:, ::-1]]))
    assert shots(glued) == [(0, 10), (10, 20)] and find("cuts")(glued) == 1
    assert shots(Viewing(one)) == [(0, 10)]
    assert [len(shots(spliced(world_clips(1)[0], grade))) for grade in (0.2, 1.0)] == [2, 6]


def test_drift_of_colour_and_sharpness():
    assert find("colour_drift")(grey(*[0] * 10, *[255] * 10)) == pytest.approx(100, abs=0.01)
    assert find("colour_drift")(grey(0)) is None
    halves = grey(*[0] * 5, *[0] * 5).frames.copy()
    halves[5:, 8:] = 255  # mean and standard deviation of lightness go from 0 to 50
    assert find("colour_drift")(halves) == pytest.approx(50 * np.sqrt(2), abs=0.01)
    from scipy.ndimage import laplace

    picture = texture()
    level = np.repeat(picture[..., :1], 3, -1)
    variance = laplacian_variance(level[None])
    assert variance == pytest.approx(laplace(level[..., 0].astype(float), mode="mirror").var(), rel=1e-9)
    fading = Viewing(np.stack([level] * 5 + [np.full_like(level, 9)] * 5))
    assert find("sharpness_drift")(fading) == pytest.approx(-np.log2(variance + 1))


def test_a_seam_is_a_change_beyond_the_usual_one():
    assert seam([1, 1, 5, 1, 1]) == 5 and seam([2, 2, 6, 2, 4], borders=[3, 5]) == 2.5
    assert seam([0, 0, 3, 0]) == 6, "less than half a grey level is rounding"
    with pytest.raises(ValueError, match="borders"):
        seam([1, 1], borders=[5])
    assert find("seam_score")(grey(0, 2, 4, 6, 16, 18, 20)) == 5
    assert find("seam_score")(grey(0, 9, 0)) is None


@pytest.mark.parametrize("size", [32, 33])
def test_energy_of_waves_is_where_they_are(size):
    place = np.arange(size)
    slow, fast = (100 * np.sin(2 * np.pi * cycles * place / size) for cycles in (2, 8))  # 1/8 and 1/2 of the highest
    for wave, share in ((slow, 0), (fast, 1), (slow + fast, 0.5)):
        rows = np.broadcast_to(wave, (1, size, size))
        assert spatial_share(rows) == pytest.approx(share, abs=0.02)
        assert spatial_share(rows.transpose(0, 2, 1)) == pytest.approx(share, abs=0.02)
        high, total = temporal_energy(wave[:, None])
        assert high / total == pytest.approx(share, abs=0.02)


@pytest.mark.parametrize(("length", "width"), [(8, 9), (9, 8)])
def test_energy_is_all_there(length, width):
    picture = np.random.default_rng(0).standard_normal((length, width))
    w = np.square(np.sin(np.pi * (np.arange(length) + 0.5) / length))
    changes = (picture - w @ picture / w.sum()) * w[:, None]
    assert temporal_energy(picture)[1] == pytest.approx(length * np.square(changes).sum())  # Parseval
    both = np.outer(w, np.square(np.sin(np.pi * (np.arange(width) + 0.5) / width)))
    energy = np.square(np.abs(np.fft.fft2((picture - (picture * both).sum() / both.sum()) * both)))
    high = np.hypot(np.fft.fftfreq(length)[:, None], np.fft.fftfreq(width)) > 0.125
    assert spatial_share(picture[None]) == pytest.approx(energy[high].sum() / energy.sum())


class Turning(Extractor):
    """Features that turn by as many degrees as the first pixel's grey level says."""

    name, gives, usual = "turning", frozenset({"frames"}), ""

    def frames(self, frames):
        angle = np.deg2rad(frames[:, 0, 0, 0].astype(np.float32))
        return np.stack([np.cos(angle), np.sin(angle)], -1)


def test_features_of_neighbours_and_of_both_ends():
    np.testing.assert_allclose(
        cosines(np.array([[1, 0], [3, 4], [0, 0]]), np.array([[0, 2], [6, 8], [1, 1]])), [0, 1, 0]
    )
    clip = grey(0, 60, 60, 0)
    assert find("temporal_consistency")(clip, extractor=Turning("")) == pytest.approx((0.5 + 1 + 0.5) / 3, abs=1e-6)
    assert find("feature_drift")(grey(0, 30, 60), extractor=Turning("")) == pytest.approx(0.5, abs=1e-6)

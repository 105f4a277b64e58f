"""Metrics against a reference: closed forms, and the same numbers as other implementations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clips import real_clips, scenes

import tiny
from kinema.core.errors import KinemaError, Unreachable
from kinema.metrics.control.colourfulness import colourfulness
from kinema.metrics.control.depth_agreement import agreement, aligned
from kinema.metrics.control.edge_f1 import edge_f1, edges, f1
from kinema.metrics.control.first_frame import first_frame_psnr, first_frame_ssim
from kinema.metrics.control.layout_iou import box_iou, layout_iou, layout_overlap
from kinema.metrics.control.lpips import lpips
from kinema.metrics.control.mask_iou import iou, mask_iou
from kinema.metrics.control.motion_fidelity import best_cosine, motion_fidelity
from kinema.metrics.control.psnr import psnr
from kinema.metrics.control.ssim import ssim
from kinema.metrics.control.subject_similarity import mean_cosine
from kinema.metrics.control.trajectory_error import centre_distance, trajectory_error
from kinema.metrics.extractors.extractor import load_extractor


@pytest.fixture(scope="module")
def pair():
    """Two clips that differ: neighbouring pieces of a real video, 4 frames each."""
    frames = real_clips()[2].frames
    return frames[:4], frames[3:7]


def test_ssim_agrees_with_skimage_and_torchmetrics(pair):
    from skimage.metrics import structural_similarity
    from torchmetrics.functional.image import structural_similarity_index_measure

    told = dict(channel_axis=-1, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    found = ssim(pair[0], reference=pair[1])
    assert found == pytest.approx(np.mean([structural_similarity(a, b, **told) for a, b in zip(*pair, strict=True)]))
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2).double() for x in pair)
    _, places = structural_similarity_index_measure(a, b, data_range=255.0, sigma=1.5, return_full_image=True)
    assert places.shape == a.shape  # torchmetrics also counts the border, where part of the window is made up
    assert found == pytest.approx(float(places[..., 5:-5, 5:-5].mean()), abs=1e-4)


def test_ssim_of_two_flat_pictures():
    """No variance: (2 a b + c1) / (a^2 + b^2 + c1), also where the picture is smaller than the window."""
    c1 = (0.01 * 255) ** 2
    for size in (8, 16):
        a, b = (np.full((2, size, size, 3), value, np.uint8) for value in (100, 150))
        assert ssim(a, reference=b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-6)


def test_psnr_of_known_errors_and_as_skimage(pair):
    from skimage.metrics import peak_signal_noise_ratio

    grey = np.full((2, 8, 8, 3), 100, np.uint8)
    assert psnr(grey, reference=grey + 10) == pytest.approx(20 * np.log10(25.5))
    assert psnr(grey * 0, reference=grey * 0 + 255) == 0 and psnr(grey, reference=grey) == 100
    assert psnr(pair[0], reference=pair[1]) == pytest.approx(peak_signal_noise_ratio(*pair))


def test_first_frames_are_compared_alone(pair):
    a, b = pair
    for whole, first in ((psnr, first_frame_psnr), (ssim, first_frame_ssim)):
        assert first(a, reference=b[:1]) == whole(a[:1], reference=b[:1])
        assert first(a, reference=np.concatenate([a[:1], b])) == whole(a, reference=a)
    with pytest.raises(KinemaError, match="use two of one size"):
        first_frame_psnr(a, reference=b[:, :64])


@pytest.fixture(scope="module")
def lpips_folder(tmp_path_factory):
    """Random weights in the layout of the package lpips."""
    from safetensors.torch import save_file

    generator, folder = torch.Generator().manual_seed(0), tmp_path_factory.mktemp("lpips")
    shapes = {"slice1.0": (64, 3, 11), "slice2.3": (192, 64, 5), "slice3.6": (384, 192, 3),
              "slice4.8": (256, 384, 3), "slice5.10": (256, 256, 3)}  # fmt: skip
    held = {}
    for i, (name, (out, into, size)) in enumerate(shapes.items()):
        held[f"net.{name}.weight"] = torch.randn(out, into, size, size, generator=generator) / (into * size**2) ** 0.5
        held[f"net.{name}.bias"] = torch.randn(out, generator=generator) / 10
        held[f"lin{i}.model.1.weight"] = torch.rand(1, out, 1, 1, generator=generator)
    save_file(held, folder / "model.safetensors")
    return folder, held


def test_lpips_is_the_formula(lpips_folder, pair):
    """Each layer's normalised features, their squared difference weighted, mean over places, sum over layers."""
    folder, held = lpips_folder

    def layers(frames):
        x = torch.from_numpy(frames).permute(0, 3, 1, 2).double() / 127.5 - 1
        x = (x - torch.tensor([-0.030, -0.088, -0.188])[:, None, None]) / torch.tensor([0.458, 0.448, 0.450])[
            :, None, None
        ]
        given = {k: v.double() for k, v in held.items()}
        for i, (name, stride, padding) in enumerate(
            [("slice1.0", 4, 2), ("slice2.3", 1, 2), ("slice3.6", 1, 1), ("slice4.8", 1, 1), ("slice5.10", 1, 1)]
        ):
            x = F.max_pool2d(x, 3, 2) if i in (1, 2) else x
            x = F.conv2d(x, given[f"net.{name}.weight"], given[f"net.{name}.bias"], stride, padding).relu()
            yield F.normalize(x, dim=1), given[f"lin{i}.model.1.weight"]

    both = zip(layers(pair[0]), layers(pair[1]), strict=True)
    true = sum(F.conv2d((a - b) ** 2, weight).mean((1, 2, 3)) for (a, weight), (b, _) in both).mean()
    found = lpips(pair[0], reference=pair[1], extractor=f"lpips@{folder}")
    assert found == pytest.approx(float(true), rel=1e-4)
    assert lpips(pair[0], reference=pair[0], extractor=f"lpips@{folder}") == 0
    tiny = np.zeros((1, 8, 8, 3), np.uint8)
    assert lpips(tiny, reference=tiny + 200, extractor=f"lpips@{folder}") > 0


def test_lpips_without_weights_says_what_to_do(pair, tmp_path):
    with pytest.raises(Unreachable, match="name it as lpips@FOLDER"):
        lpips(pair[0], reference=pair[1])
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(KinemaError, match="is not LPIPS with AlexNet"):
        lpips(pair[0], reference=pair[1], extractor=f"lpips@{tmp_path}")


def test_colourfulness_in_closed_form():
    """Half red, half grey: rg 255 and 0, yb 127.5 and 0."""
    frames = np.full((1, 8, 8, 3), 77, np.uint8)
    frames[:, :4] = 255, 0, 0
    assert colourfulness(frames) == pytest.approx(1.3 * np.hypot(127.5, 63.75))
    assert colourfulness(np.full((2, 8, 8, 3), 77, np.uint8)) == 0


def test_f1_and_iou_of_bits():
    a, b = np.array([1, 1, 1, 0, 0], bool), np.array([1, 0, 0, 1, 0], bool)
    assert f1(a, b) == pytest.approx(2 * 1 / 5)
    assert iou(a, b) == pytest.approx(1 / 4)
    none = np.zeros(5, bool)
    assert (f1(none, none), f1(a, none), iou(none, none), iou(a, none)) == (1, 0, None, 0)


def test_edges_are_steps_of_thirty_grey_levels():
    """3x3 Sobel gradients of a step are four times its height; Canny's upper threshold is 120."""
    frames = np.full((2, 16, 16, 3), 100, np.uint8)
    frames[0, :, 8:], frames[1, :, 8:] = 131, 129
    found = edges(frames)
    assert found[0, 2:-2].sum(1).tolist() == [1] * 12 and found[0, :, 7:9].any(1)[2:-2].all() and not found[1].any()
    moved = np.roll(frames[:1], 3, 2)
    assert edge_f1(frames[:1], reference=frames[:1]) == 1 and edge_f1(frames[:1], reference=moved) == 0


def test_depth_is_compared_up_to_scale_and_shift():
    rng = np.random.default_rng(0)
    true, other = rng.random((3, 8, 8)), rng.random((3, 8, 8))
    np.testing.assert_allclose(aligned(3 * true + 5, true), true)
    assert agreement(3 * true + 5, true) == pytest.approx(1)
    assert agreement(-true, true) == pytest.approx(-1)
    assert agreement(other, true) == pytest.approx(np.corrcoef(other.ravel(), true.ravel())[0, 1])
    left = np.square(aligned(other, true) - true).sum() / np.square(true - true.mean()).sum()
    assert 1 - agreement(other, true) ** 2 == pytest.approx(left)
    assert agreement(true, np.ones_like(true)) is None and agreement(np.ones_like(true), true) == 0


def test_depth_anything_gives_a_map_of_the_frames_size(tmp_path, pair):
    """A small random model, in the layout of the hub; the same as transformers gives."""
    import transformers

    folder = tiny.depth_anything(tmp_path)
    network = transformers.AutoModelForDepthEstimation.from_pretrained(folder)
    processor = transformers.DPTImageProcessorPil.from_pretrained(folder)
    found = load_extractor(f"depth_anything@{tmp_path}").depth(pair[0])
    assert found.shape == pair[0].shape[:3] and found.dtype == np.float32
    with torch.no_grad():
        seen = network.eval()(**processor(list(pair[0]), return_tensors="pt")).predicted_depth
    true = F.interpolate(seen[:, None], pair[0].shape[1:3], mode="bicubic", align_corners=False)[:, 0].numpy()
    np.testing.assert_allclose(found, true, rtol=1e-4, atol=1e-5)
    assert true.std() > 0


def test_boxes_overlap():
    nan = [np.nan] * 4
    a = np.array([[0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 1, 1], nan, nan])
    b = np.array([[0, 0, 4, 4], [2, 0, 6, 4], [5, 5, 6, 6], [0, 0, 1, 1], nan])
    np.testing.assert_allclose(box_iou(a, b), [1, 1 / 3, 0, 0, np.nan])


def test_layout_counts_what_is_missing_and_what_is_too_much():
    one = np.tile([0.0, 0, 4, 4], (1, 5, 1))
    far = one + 10
    assert layout_overlap(one, one) == 1
    assert layout_overlap(np.concatenate([far, one]), np.concatenate([one, far])) == 1  # in any order
    assert layout_overlap(np.concatenate([one, far]), one) == 0.5
    assert layout_overlap(one, np.concatenate([far, one])) == 0.5
    assert layout_overlap(one[:0], one) == 0 and layout_overlap(one[:0], one[:0]) is None
    half = one.copy()
    half[:, 3:] = np.nan  # gone in the last two of five frames
    assert layout_overlap(half, one) == pytest.approx(3 / 5)


def test_centres_are_compared_where_both_are_seen():
    at = np.zeros((1, 4, 2))
    off = at + np.array([0.3, 0.4])
    assert centre_distance(off, at) == pytest.approx(0.5)
    off[:, 2:] = np.nan
    assert centre_distance(off, at) == pytest.approx(0.5)
    assert centre_distance(at, np.concatenate([at, at + 0.1])) == pytest.approx(0.5)  # one is right, one is missing
    assert centre_distance(np.concatenate([at + 0.1, at]), at) == 0 and centre_distance(at, at[:0]) is None


def test_layout_is_measured_in_shares_of_the_picture():
    frames = scenes(2, truth=True)[1].frames.numpy()
    assert layout_iou(frames, reference=frames) == mask_iou(frames, reference=frames) == 1
    assert trajectory_error(frames, reference=frames) == 0
    larger = frames.repeat(2, 1).repeat(2, 2)
    assert layout_iou(larger, reference=frames) > 0.9 and trajectory_error(larger, reference=frames) < 0.01
    with pytest.raises(KinemaError, match="use two of one length"):
        layout_iou(frames[:3], reference=frames)


def test_all_pairs_of_frames_are_compared():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3, 5)), rng.standard_normal((4, 5))
    true = np.mean([x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x in a for y in b])
    assert mean_cosine(a, b) == pytest.approx(true)
    assert mean_cosine(a[:1], -a[:1]) == pytest.approx(-1)


def _steps(*velocities, count=8):
    """Tracks of one velocity each, in units of what counts as standing still."""
    return np.tile(np.array(velocities, float)[:, None], (1, count, 1))


def test_motion_agrees_by_direction():
    right, left, up, still = [100.0, 0], [-100.0, 0], [0, -100.0], [0.0, 0]
    assert best_cosine(_steps(right), _steps(right)) == pytest.approx(1)
    assert best_cosine(_steps(right), _steps([300.0, 0])) == pytest.approx(1, abs=1e-3)  # faster
    assert best_cosine(_steps(right), _steps(left)) == pytest.approx(-1, abs=1e-3)
    assert best_cosine(_steps(right), _steps(up)) == pytest.approx(0, abs=1e-3)
    assert best_cosine(_steps(still), _steps(still)) == pytest.approx(1)
    assert best_cosine(_steps([1.0, 0]), _steps(still)) == pytest.approx(np.sqrt(0.5))
    # two tracks against one: both ways, 1 from the single track, the mean of 1 and 0 from the two
    assert best_cosine(_steps(right, up), _steps(right)) == pytest.approx((0.5 + 1) / 2, abs=1e-3)


def test_motion_needs_tracks_that_last():
    brief = _steps([1.0, 0])
    brief[:, 5:] = np.nan
    assert best_cosine(brief, _steps([1.0, 0])) is None
    lasting = _steps([1.0, 0])
    lasting[:, 7:] = np.nan
    assert best_cosine(lasting, _steps([1.0, 0])) == pytest.approx(1)
    flat = np.zeros((4, 32, 32, 3), np.uint8)
    assert motion_fidelity(flat, reference=flat) is None


def test_motion_of_a_clip_at_half_size_is_the_same():
    import cv2

    frames = real_clips()[0].frames[:9]
    half = np.stack([cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) for f in frames])
    assert motion_fidelity(half, reference=frames) > 0.9
    assert motion_fidelity(frames[::-1].copy(), reference=frames) < motion_fidelity(half, reference=frames)

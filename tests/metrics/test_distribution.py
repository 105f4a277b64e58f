"""Distances between sets, their quality and variety, and the apart of space and time: on sets with known answers."""

import numpy as np
import pytest
import scipy.linalg
import torch
from clips import world_clips
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.inception import InceptionScore
from torchmetrics.image.kid import poly_mmd

from kinema.claims.stream import Stream, verdicts
from kinema.core.errors import KinemaError
from kinema.metrics.corruptions.corruption import corruptions
from kinema.metrics.corruptions.motion import shuffle
from kinema.metrics.corruptions.picture import blur
from kinema.metrics.distribution.frechet import frechet_distance
from kinema.metrics.distribution.frechet_infinity import at_infinity
from kinema.metrics.distribution.inception_score import mean_score, split_score
from kinema.metrics.distribution.kernel_distance import squared_mmd
from kinema.metrics.distribution.manifolds import mean_density, share_reached, share_within
from kinema.metrics.distribution.stream import amplitudes, histogram_agreement, skewness, slope
from kinema.metrics.metric import find
from kinema.metrics.moments import Moments
from kinema.metrics.neighbours import reach
from kinema.metrics.rows import blocks, spread
from kinema.metrics.viewing import Viewing


def drawn(count, width, seed=0):
    return np.random.default_rng(seed).standard_normal((count, width))


def normal(mean, variance):
    """Moments of an endless sample: N(mean, variance * I)."""
    return Moments(10**9, np.full(4, float(mean)), np.eye(4) * variance * (10**9 - 1))


@pytest.mark.parametrize("unbiased", [True, False])
def test_moments_of_parts_are_those_of_the_whole(unbiased):
    rows = drawn(5000, 8) * np.arange(1, 9) + 1e6  # a large mean would drown E[x x^T] - mu mu^T
    whole, first, second = Moments.of(rows), Moments.of(rows[:1234]), Moments.of(rows[1234:])
    first.merge(second)
    first.merge(Moments())
    expected = np.cov(rows.T, ddof=int(unbiased))
    for moments in (whole, first):
        assert moments.count == 5000
        np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance(unbiased), expected, rtol=1e-8, atol=1e-8)


def test_rows_are_read_in_blocks_and_spread_evenly():
    frames = [np.full((3, 2), i) for i in range(5)]
    assert [len(block) for block in blocks(frames, 4)] == [4, 4, 4, 3]
    np.testing.assert_array_equal(np.concatenate(list(blocks(frames, 4))), np.concatenate(frames))
    np.testing.assert_array_equal(spread(np.arange(9.0)[:, None], 3).ravel(), [0, 4, 8])
    np.testing.assert_array_equal(spread(frames, 4)[:, 0], [0, 1, 3, 4])  # rows 0, 5, 9 and 14 of 15


def test_bad_features_are_refused():
    with pytest.raises(KinemaError, match="one D, here 2"):
        spread([np.zeros(2), np.zeros(3)])
    with pytest.raises(KinemaError, match="not finite"):
        Moments.of([np.array([np.nan])])
    for name in ("frechet", "kernel_distance", "precision"):
        with pytest.raises(KinemaError, match="3 and 2 numbers a row"):
            find(name)(drawn(8, 3), drawn(8, 2))


def test_frechet_distance_of_known_normal_distributions():
    assert frechet_distance(normal(0, 1), normal(2, 1)) == pytest.approx(16)
    assert frechet_distance(normal(0, 1), normal(0, 4)) == pytest.approx(4)


@pytest.mark.parametrize("count, floor", [(256, 300), (2048, 39.4)])
def test_floor_of_the_frechet_distance(count, floor):
    assert find("frechet")(drawn(count, 400), drawn(count, 400, 1)) == pytest.approx(floor, rel=0.01)


@pytest.mark.parametrize("name", ["frechet", "fvd"])
def test_frechet_distance_agrees_with_scipy_and_torchmetrics(name):
    a, b = drawn(200, 24) @ drawn(24, 24, 2), drawn(300, 24, 1) + 0.3
    ddof = {"frechet": 1, "fvd": 0}[name]
    s_a, s_b = np.cov(a.T, ddof=ddof), np.cov(b.T, ddof=ddof)
    root = np.trace(scipy.linalg.sqrtm(s_a @ s_b)).real
    by_scipy = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(s_a + s_b) - 2 * root
    by_torchmetrics = _compute_fid(*(torch.from_numpy(x) for x in (a.mean(0), s_a, b.mean(0), s_b)))
    assert find(name)(a, b) == pytest.approx(by_scipy, rel=1e-9) == pytest.approx(float(by_torchmetrics), rel=1e-9)


def test_frechet_distance_is_exact_with_fewer_clips_than_numbers():
    a, b = drawn(8, 128), drawn(8, 128, 1)
    assert find("frechet")(a, a) == pytest.approx(0, abs=1e-9)
    # The same 16 points in the 16 dimensions that they span, where the covariances are the only ones of rank 7.
    basis = np.linalg.qr(np.concatenate([a, b]).T)[0]
    assert find("frechet")(a, b) == pytest.approx(find("frechet")(a @ basis, b @ basis), rel=1e-9)
    # Along one line: (mu_1 - mu_2)^2 + (s_1 - s_2)^2.
    along = np.array([0.6, 0.8, 0])
    line = (np.outer([0, 2, 4], along), np.outer([1, 1, 7], along))
    assert find("frechet")(*line) == pytest.approx(1 + (2 - np.sqrt(12)) ** 2)


def test_frames_are_rows_of_their_own():
    a, b = drawn(40, 3), drawn(40, 3, 1)
    for one, other in (("fid", "frechet"), ("kid", "kernel_distance")):
        assert find(one)(a.reshape(8, 5, 3), b.reshape(8, 5, 3)) == pytest.approx(find(other)(a, b), rel=1e-12)


def test_endless_sets_have_no_bias():
    assert at_infinity(drawn(100, 1), lambda chosen: 3 + 7 / len(list(chosen))) == pytest.approx(3)
    reference = Moments(10**9, np.zeros(8), np.eye(8) * (10**9 - 1))
    found = [drawn(400, 8, seed) for seed in range(20)]
    plain = [frechet_distance(Moments.of(rows), reference) for rows in found]
    endless = [at_infinity(rows, lambda chosen: frechet_distance(Moments.of(chosen), reference)) for rows in found]
    assert np.mean(plain) > 0.05 and abs(np.mean(endless)) < 0.2 * np.mean(plain)  # a line is not quite the curve
    assert at_infinity(found[0][::-1], mean_score) == pytest.approx(at_infinity(found[0], mean_score), rel=1e-12)


def test_kernel_distance_agrees_with_torchmetrics_and_has_no_bias():
    a, b = drawn(1500, 10), drawn(1500, 10, 1) * 1.2
    assert squared_mmd(a, b) == pytest.approx(float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b))), rel=1e-9)
    draws = [squared_mmd(drawn(12, 5, 2 * i), drawn(20, 5, 2 * i + 1)) for i in range(200)]
    assert abs(np.mean(draws)) < 2 * np.std(draws, ddof=1) / np.sqrt(200)


def test_inception_score():
    sure = 100 * np.eye(5)
    assert mean_score(sure) == pytest.approx(5)
    assert mean_score(sure[[0, 1, 1, 0]]) == pytest.approx(2)
    assert mean_score(np.ones((7, 5))) == pytest.approx(1)
    logits = drawn(60, 5) * 3
    peer = InceptionScore(feature=torch.nn.Identity(), splits=3)
    peer.features.append(torch.from_numpy(logits))
    torch.manual_seed(0)
    order = torch.randperm(60)  # the peer shuffles before it splits
    torch.manual_seed(0)
    assert split_score(logits[order], splits=3) == pytest.approx(float(peer.compute()[0]), rel=1e-4)


def test_precision_recall_density_coverage_of_points_on_a_line():
    real, made = np.array([[0.0], [1], [3], [6]]), np.array([[0.5], [3.5], [20], [21]])
    np.testing.assert_allclose(reach(real, 1), [1, 1, 4, 9])  # to the next one, squared
    # Balls of the real points: [-1, 1], [0, 2], [1, 5], [3, 9]; of the made ones [-2.5, 3.5] twice 3 wide, [19, 21] ...
    assert share_within(made, real, 1) == 0.5
    assert share_within(real, made, 1) == 1.0
    assert mean_density(made, real, 1) == 1.0  # 0.5 is in two balls, 3.5 in two
    assert share_reached(real, made, 1) == 0.5  # the balls of 20 and 21 hold no real point


def test_equal_sets_are_as_good_and_as_varied():
    rows = drawn(60, 4)
    for name in ("precision", "recall", "density", "coverage"):
        assert find(name)(rows, rows[::-1]) == 1
    copies = np.repeat(rows[:1], 60, axis=0)  # one clip 60 times: perfect, and as poor as can be
    assert [find(name)(copies, rows) for name in ("precision", "recall")] == [1, 1 / 60]
    assert find("coverage")(rows + 100, rows) == 0


def test_coverage_of_one_distribution():
    # An exact result of the paper: 1 - (N - 1) ... (N - k) / ((2 N - 1) ... (2 N - k)).
    found = [find("coverage")(drawn(100, 8, 2 * i), drawn(100, 8, 2 * i + 1)) for i in range(20)]
    i = np.arange(1, 6)
    assert np.mean(found) == pytest.approx(1 - np.prod((100 - i) / (200 - i)), abs=0.01)


@pytest.mark.parametrize("b, released, textbook", [(0, 256.646, 1.2581), (-1, 56.052, 1.5570), (-2, 15.730, 1.9663)])
def test_skewness_of_a_power_law(b, released, textbook):
    assert skewness(np.array([b]), 8)[0] == pytest.approx(released, abs=1e-3)
    assert skewness(np.array([b]), 8, power=1.5)[0] == pytest.approx(textbook, abs=1e-4)
    spectrum = 3 * np.arange(1, 9.0)[:, None] ** b
    assert slope(spectrum)[0] == pytest.approx(b, abs=1e-5)


def test_amplitudes_of_a_wave():
    wave = 4 + 5 * np.cos(2 * np.pi * 3 * np.arange(16) / 16)[:, None]
    expected = np.zeros(9)
    expected[[0, 3]] = 2 * 4 * 16 / 9, 2 * 5 * 8 / 9
    np.testing.assert_allclose(amplitudes(wave)[:, 0], expected, atol=1e-12)


def test_histograms_agree_where_the_released_code_says_so():
    a, b = np.array([[1.22], [1.27], [4.92]]), np.array([[1.22], [4.92], [4.98], [2.03]])
    one, other = np.zeros(50), np.zeros(50)  # of bins 0.1 wide, from int(1.22) - 1 = 0 to int(4.98) + 1 = 5
    one[[12, 49]] = 2, 1
    other[[12, 20, 49]] = 1, 1, 2
    assert histogram_agreement(a, b) == pytest.approx(np.corrcoef(one, other)[0, 1] ** 2)


def signals(count=200, seed=0):
    """Features of clips that differ in how they look (mean) and in how fast they change, 16 frames of 6 numbers."""
    rng = np.random.default_rng(seed)
    path = np.cumsum(rng.standard_normal((count, 16, 6)), axis=1)
    return 10 * rng.standard_normal((count, 1, 6)) + path - path.mean(1, keepdims=True)


def test_stream_tells_time_from_space():
    clips, order = signals(), np.random.default_rng(1).permutation(16)
    three = [find(name) for name in ("stream_t", "stream_f", "stream_d")]
    assert [m(clips, clips) for m in three] == [1, 1, 1]
    t, f, d = (m(clips[:, order], clips) for m in three)
    assert t < 0.7 and f == d == 1
    t, f, d = (m(clips + 100, clips) for m in three)
    assert t == pytest.approx(1, abs=1e-6) and f == d == 0
    t, f, d = (m(clips[np.arange(200) % 20], clips) for m in three)
    assert f == 1 and d < 0.3
    ragged = [clip[: 13 + i % 4] for i, clip in enumerate(clips)]  # only the first 13 frames of each count
    assert three[0](ragged, clips) == 1
    with pytest.raises(KinemaError, match="shortest clip has 3 frames"):
        three[0](clips[:, :3], clips)
    with pytest.raises(KinemaError, match="features of every frame"):
        three[0](clips[:, 0], clips[:, 0])


def colour_and_sharpness(frames):
    """Features of frames that follow a blur smoothly: mean and spread of each colour, and how sharp edges are."""
    x = frames.astype(np.float32)
    steps, bends = (np.abs(np.diff(x, n, axis=2)).mean((1, 2, 3)) for n in (1, 2))
    return np.column_stack([x.mean((1, 2)), x.std((1, 2)), 1000 * bends / (steps + 1e-3)])


def test_shuffled_frames_move_t_and_not_f_and_a_blur_moves_f_and_not_t():
    clips = [clip.but(frames=clip.frames[::2]) for clip in world_clips(192, size=32)]
    clean, shuffled, blurred = (
        [colour_and_sharpness(clip.frames) for clip in made]
        for made in (clips, [shuffle(clip, 1.0) for clip in clips], [blur(clip, 1.0) for clip in clips])
    )
    t, f = find("stream_t"), find("stream_f")
    assert t(shuffled, clean) < 0.15 and f(shuffled, clean) == 1
    assert t(blurred, clean) > 0.9 and f(blurred, clean) < 0.2


def test_verdicts_of_the_claim():
    found = {
        "itself": Stream(1, 1, 1),
        "other scenes": Stream(0.8, 0.9, 0.9),
        "shuffled": Stream(0.49, 0.99, 1),
        "blurred": Stream(0.81, 0.5, 0),
        "repeated": Stream(0.6, 1, 0.5),
    }
    assert all(verdicts(found).values())
    worse = {"shuffled": Stream(0.51, 0.99, 1), "blurred": Stream(0.79, 0.5, 0), "repeated": Stream(0.6, 0.97, 0.5)}
    assert not any(verdicts(found | worse).values())
    assert not any(verdicts({name: Stream(1, 1, 1) for name in found}).values())


def test_faults_of_sets():
    clips = [Viewing(np.full((5, 4, 6, 3), i, np.uint8)) for i in range(8)]
    faults = {name: fault for name, fault in corruptions().items() if fault.of == "set"}

    def shades(name, grade):
        return [sorted(set(clip.frames.ravel().tolist())) for clip in faults[name](clips, grade)]

    assert len({*map(tuple, shades("fewer_modes", 1 / 3))}) == 4 and len({*map(tuple, shades("fewer_modes", 1.0))}) == 1
    assert shades("reordered", 1.0) != shades("reordered", 0.0) == [[i] for i in range(8)]
    assert sorted(shades("reordered", 1.0)) == [[i] for i in range(8)]
    assert sum(len(each) == 2 for each in shades("mixed", 0.5)) == 4
    for name, fault in (("some_blurred", blur), ("some_shuffled", shuffle)):
        noise = [
            clip.but(frames=np.random.default_rng(i).integers(0, 256, (5, 16, 16, 3), np.uint8))
            for i, clip in enumerate(clips)
        ]
        found = faults[name](noise, 0.25)
        changed = [i for i in range(8) if found[i] is not noise[i]]
        assert len(changed) == 2
        np.testing.assert_array_equal(found[changed[0]].frames, fault(noise[changed[0]], 1.0).frames)

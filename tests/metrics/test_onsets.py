"""Onsets, impacts and their agreement, on sounds and motions whose times are known."""

from __future__ import annotations

import numpy as np
import pytest
from clips import scenes, world_clips

from kinema.core.errors import KinemaError
from kinema.metrics.impacts import envelope
from kinema.metrics.impacts import peaks as impact_frames
from kinema.metrics.onsets import HOP, RATE, mel_bands, mono, onset_times, onsets, peaks, strength
from kinema.metrics.sound.av_align import av_align, motion_peaks, shared
from kinema.metrics.sound.onset_agreement import f_measure, matched
from kinema.metrics.viewing import Viewing

# Of librosa 0.11.0, for the sound of test_the_flux_is_that_of_librosa: some strengths, and all onsets.
LIBROSA = {1: 0.0, 3: 0.5726, 5: 1.4301, 8: 0.6649, 11: 2.6028, 14: 0.6485, 17: 14.2342, 20: 0.6048}
LIBROSA_ONSETS = [6, 12, 17]


def clicks(*times: float, rate: int = RATE, seconds: float = 3.0) -> np.ndarray:
    """A ringing click at each time."""
    wave, t = np.zeros(round(seconds * rate)), np.arange(rate // 5) / rate
    for time in times:
        first = round(time * rate)
        ring = np.exp(-t / 0.03) * np.sin(2 * np.pi * 600 * t)
        wave[first : first + len(ring)] += 0.5 * ring[: len(wave) - first]
    return wave


def test_clicks_are_heard_when_they_sound_at_any_rate_and_loudness():
    times = (0.5, 1.2, 1.9, 2.4)
    for rate in (8000, 16000, RATE, 48000):
        np.testing.assert_allclose(onset_times(clicks(*times, rate=rate), rate), times, atol=0.05)
    np.testing.assert_array_equal(onset_times(0.1 * clicks(*times), RATE), onset_times(clicks(*times), RATE))
    assert len(onset_times(np.zeros(RATE), RATE)) == len(onset_times(np.zeros(0), RATE)) == 0


def test_the_contacts_of_a_rendered_clip_are_heard():
    found = 0
    for clip, scene in zip(world_clips(4), scenes(4), strict=True):
        heard = onsets(clip)
        for contact in scene.contacts:
            assert np.abs(heard - contact.time).min() < 0.05, "every contact is heard"
            found += 1
    assert found >= 4


def test_the_flux_is_that_of_librosa():
    """A chirp that gets louder in steps, as librosa.onset hears it at 22050 samples per second."""
    t = np.arange(RATE // 2) / RATE
    wave = np.sin(2 * np.pi * (200 + 1500 * t) * t) * (1 + np.floor(8 * t))
    assert len(strength(wave)) == 1 + len(wave) // HOP
    np.testing.assert_allclose(strength(wave)[list(LIBROSA)], list(LIBROSA.values()), atol=1e-4)
    assert peaks(strength(wave)).tolist() == LIBROSA_ONSETS


def test_the_mel_bands_have_equal_area():
    bands = mel_bands()
    width = RATE / 2 / (bands.shape[1] - 1)
    assert bands.shape == (128, 1025) and (bands >= 0).all()
    np.testing.assert_allclose(bands[60:].sum(1) * width, 1, atol=0.02)  # the lowest are narrower than a bin


def test_where_motion_ends_is_an_impact():
    flow = np.zeros((8, 10, 10, 2), np.float32)
    flow[:4, :5, :, 1] = 3  # half of the picture falls in pairs 0 to 3, then stands
    assert np.flatnonzero(envelope(flow)).tolist() == [4] and impact_frames(envelope(flow)).tolist() == [4]
    assert envelope(flow)[4] == pytest.approx(1.5)
    turned = flow.copy()
    turned[4:, :5, :, 1] = -3  # it bounces: what falls ends, though as much moves as before
    assert impact_frames(envelope(turned)).tolist() == [4]
    steady = np.full((8, 10, 10, 2), 2, np.float32)
    assert len(impact_frames(envelope(steady))) == 0


def test_peaks_of_motion_are_above_both_neighbours():
    flow = np.zeros((6, 4, 4, 2), np.float32)
    flow[:, :, :, 0] = np.array([1, 2, 5, 2, 4, 4])[:, None, None]  # towards frames 1 to 6
    assert motion_peaks(flow, fps=10).tolist() == [0.3]
    assert motion_peaks(flow / 50, fps=10).tolist() == [0.3] and motion_peaks(flow / 51, fps=10).tolist() == []


def test_av_align_of_lists():
    seen = np.array([1.0, 2.0])
    assert shared(seen, seen, 10) == 1 and shared(seen + 0.5, seen, 10) == 0
    assert shared(np.array([1.05, 1.5]), seen, 10) == pytest.approx(1 / 3)
    assert shared(np.array([1.125]), np.array([1.0]), 8) == 0  # a whole frame is too late
    assert shared(np.array([1.95, 2.0, 2.05]), seen, 10) == pytest.approx(1 / 4)  # each in one pair only
    assert shared(np.zeros(0), np.zeros(0), 10) is None


def test_pairs_are_made_once():
    a, b = np.array([1.0, 1.1, 2.0]), np.array([1.05, 2.3])
    assert matched(a, b, 0.06) == 1 and matched(a, b, 0.3) == 2 == matched(b, a, 0.3)
    assert f_measure(a, b, 0.06) == pytest.approx(0.4) and f_measure(a, a, 0.01) == 1
    assert f_measure(np.zeros(0), np.zeros(0), 1) is None


def test_sound_in_time_scores_more_than_sound_out_of_time():
    """A square that jumps at three times, with clicks then and half way between."""
    frames = np.zeros((48, 64, 64, 3), np.uint8)
    frames[:] = np.random.default_rng(0).integers(0, 60, (64, 64, 1), dtype=np.uint8)
    x = np.concatenate([np.full(12, 4), np.full(12, 9), np.full(12, 4), np.full(12, 9)])
    for t, left in enumerate(x):
        frames[t, 20:40, left : left + 20] = np.random.default_rng(1).integers(120, 256, (20, 20, 1), dtype=np.uint8)
    jumps = (0.75, 1.5, 2.25)
    sound = {"in": clicks(*jumps), "out": clicks(*(j + 0.35 for j in jumps))}
    score = {key: av_align(Viewing(frames, 16.0, sound=wave, sample_rate=RATE)) for key, wave in sound.items()}
    assert score["in"] == 1 and score["out"] == 0


def test_sound_of_another_shape_is_refused():
    with pytest.raises(KinemaError, match="shape"):
        mono(np.zeros((2, 3, 4)))
    stereo = np.stack([clicks(1.0)] * 2, 1)
    np.testing.assert_array_equal(onset_times(mono(stereo), RATE), onset_times(clicks(1.0), RATE))

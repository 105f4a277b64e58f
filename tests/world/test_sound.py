"""The sound track: each contact is heard when it happens, and sounds like what it is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kinema.world.motion import Contact, simulate
from kinema.world.sample import sample_spec
from kinema.world.sound import SAMPLE_RATE, impact, impacts, sound_track

HIT = Contact(time=0.5, position=(0.0, 0.0, 0.0), speed=3.0, materials=("matte", "stone"), subject=0, size=0.5)


def test_each_contact_is_heard_within_one_sample():
    for seed in range(60):
        spec = sample_spec(seed, "full")
        _, (contacts,) = simulate([spec])
        for contact in contacts:
            track = impacts([contact], 3 * SAMPLE_RATE + 2000)
            first = int(np.flatnonzero(track)[0])
            assert abs(first / SAMPLE_RATE - contact.time) <= 1 / SAMPLE_RATE
            assert np.abs(track[first : first + 80]).max() == np.abs(track).max()  # loudest at its start


def test_loudness_follows_speed_and_pitch_follows_size():
    quiet, loud = impact(replace(HIT, speed=1.0)), impact(HIT)
    np.testing.assert_allclose(loud, 3 * quiet, rtol=1e-5)

    def pitch(wave):
        spectrum = np.abs(np.fft.rfft(wave, 4 * SAMPLE_RATE))
        return spectrum.argmax() / 4

    for material in ("matte", "shiny", "striped", "checked"):
        hit = replace(HIT, materials=(material, "snow"))
        assert pitch(impact(replace(hit, size=0.25))) == pytest.approx(2 * pitch(impact(hit)), rel=0.03)
    assert len(impact(replace(HIT, materials=("shiny", "stone")))) > 2 * len(impact(HIT))  # metal rings


def test_soft_ground_damps():
    def brightness(ground):
        spectrum = np.abs(np.fft.rfft(impact(replace(HIT, materials=("shiny", ground))), SAMPLE_RATE)) ** 2
        return (spectrum * np.arange(len(spectrum))).sum() / spectrum.sum()

    assert brightness("snow") < brightness("wood") < brightness("stone")


def test_a_track_fits_its_clip():
    spec = sample_spec(1, "first")
    state, (contacts,) = simulate([spec])
    centre = state.centre[0].numpy()
    track = sound_track(spec, contacts, centre)
    assert track.dtype == np.float32 and track.shape == (round(25 / 8 * SAMPLE_RATE),)
    assert np.abs(track).max() <= 1 and np.isfinite(track).all()
    np.testing.assert_array_equal(track, sound_track(spec, contacts, centre))


def test_nothing_moves_nothing_sounds():
    spec = replace(sample_spec(1, "first"), events=())
    state, (contacts,) = simulate([spec])
    assert not sound_track(spec, contacts, state.centre[0].numpy()).any()

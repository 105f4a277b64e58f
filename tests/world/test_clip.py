"""Clips as a whole: truth that fits together, files that can be read, the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from kinema.video import Video
from kinema.world.clip import render_clips
from kinema.world.curricula import CURRICULA
from kinema.world.sample import sample_spec
from kinema.world.spec import SceneSpec

TINY = {"num_frames": 3, "fps": 1.0, "height": 32, "width": 48}


@pytest.fixture(scope="module")
def clips():
    specs = [sample_spec(seed, replace(CURRICULA["full"], **TINY)) for seed in range(3)]
    return render_clips(specs, batch=2)


def test_truth_has_its_shapes(clips):
    for clip in clips:
        n, q = len(clip.spec.objects), len(clip.tracks_object)
        assert clip.frames.shape == (3, 32, 48, 3) and clip.frames.dtype == torch.uint8
        assert clip.depth.shape == clip.mask.shape == (3, 32, 48)
        assert clip.flow.shape == (2, 32, 48, 2) and clip.visible.shape == (2, 32, 48)
        assert clip.tracks_world.shape == (q, 3, 3) and clip.tracks_pixel.shape == (q, 3, 2)
        assert clip.boxes_3d.shape == (3, n, 8, 3) and clip.boxes_2d.shape == (3, n, 4)
        assert clip.tracks_object[:n].tolist() == list(range(n)) and clip.mask.max() <= n
        assert clip.sound.shape == (3 * 16000,)


def test_tracks_project_where_they_say(clips):
    for clip in clips:
        world = torch.cat([clip.tracks_world, torch.ones_like(clip.tracks_world[..., :1])], -1)  # (Q, T, 4)
        camera = (clip.world_to_camera @ world[..., None])[..., :3, 0]
        pixel = (clip.intrinsics @ camera[..., None])[..., 0]
        shown = clip.tracks_visible
        torch.testing.assert_close(
            (pixel[..., :2] / pixel[..., 2:])[shown], clip.tracks_pixel[shown], atol=0.02, rtol=1e-4
        )


def test_a_clip_of_a_batch_is_the_clip_alone(clips):
    alone = render_clips([clips[1].spec], truth=False)[0]
    torch.testing.assert_close(alone.frames, clips[1].frames, atol=1, rtol=0)
    assert alone.caption == clips[1].caption and alone.depth is None
    np.testing.assert_array_equal(alone.sound, clips[1].sound)


def test_saved_and_read(clips, tmp_path):
    clip = clips[0]
    clip.save(tmp_path / "a")
    clip.save(tmp_path / "a")  # again: replaced
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    card = json.loads((tmp_path / "a" / "clip.json").read_text())
    assert SceneSpec.from_dict(card["spec"]) == clip.spec and card["caption"] == clip.caption
    assert [(e["start"], e["end"]) for e in card["timeline"]] == [(e.start, e.end) for e in clip.spec.events]
    for name, tensor in load_file(tmp_path / "a" / "truth.safetensors").items():
        torch.testing.assert_close(tensor, clip.tensors()[name], equal_nan=True, rtol=0, atol=0)
    video = Video.load(tmp_path / "a" / "clip.mp4")
    assert video.frames.shape == (3, 32, 48, 3) and video.sound is not None


def test_command_line(tmp_path):
    from kinema.cli.world import app

    size = ["--height", "32", "--width", "32", "--num-frames", "3"]
    done = CliRunner().invoke(app, ["sample", "--count", "2", "--out", str(tmp_path / "w"), *size])
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "w").iterdir()) == ["000000", "000001", "clips.json", "sheet.png"]
    assert len(json.loads((tmp_path / "w" / "clips.json").read_text())) == 2
    bad = CliRunner().invoke(app, ["sample", "--count", "0", "--out", str(tmp_path / "v")])
    assert "use 1 to 100000" in str(bad.exception) and not (tmp_path / "v").exists()

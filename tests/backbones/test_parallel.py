"""Context parallel: two processes make the same video as one, and what they cannot share is refused."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from backbones.families import cases
from kinema.backbones.load import load
from kinema.core.errors import KinemaError
from kinema.core.loop import sample
from kinema.request import Placement, Request
from kinema.video import Video

TOLERANCE = 1e-5  # largest absolute difference of latents (unit variance)
# With a picture both give every token a time of its own. Of 32x32 pixels they have three tokens.
SAMPLED = {
    "wan 2.2 ti2v": dict(height=32, width=64, num_frames=9),
    "ltx 0.9.0 i2v": dict(height=64, width=96, num_frames=17),
}
NEAR = {
    "wan 2.2 ti2v": "num_frames 5 or 13, height 64, or width 64",
    "ltx 0.9.0 i2v": "num_frames 9 or 25, height 64, or width 64",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which two processes have made everything, and what they printed."""
    folder = tmp_path_factory.mktemp("parallel")
    picture = folder / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)).save(picture)
    jobs = {}
    for name, size in SAMPLED.items():
        request = dict(prompt="a red ball", seed=3, num_inference_steps=2, image=str(picture), **size)
        jobs[name] = dict(model=str(cases()[name].build(folder / name)), request=request)
    words = "generate ball --seed 5 --num-inference-steps 2 --height 32 --width 64 --num-frames 9 --device cpu"
    command = [*words.split(), "--model", jobs["wan 2.2 ti2v"]["model"]]
    together = [*command, "--context-parallel", "ulysses", "--out", str(folder / "two"), "--json"]
    others = str(cases()["skyreels v2"].build(folder / "skyreels"))
    (folder / "jobs.json").write_text(json.dumps(dict(sampled=jobs, command=together, others=others)))
    script = Path(__file__).parent / "two_processes.py"
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script, folder]
    alike = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(start, capture_output=True, text=True, timeout=300, env=alike)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, jobs, command, done.stdout


@pytest.mark.parametrize("name", SAMPLED)
def test_two_processes_make_what_one_makes(name, made):
    folder, jobs, *_ = made
    backbone, latents = load(jobs[name]["model"], device="cpu"), []
    sample(backbone, Request(**jobs[name]["request"]), on_step=lambda step, x: latents.append(x))
    for rank in range(2):
        off = np.abs(np.load(folder / f"{name}.{rank}.npy") - latents[-1].numpy()).max()
        print(f"{name}, process {rank}: {off:.1e}")
        assert off <= TOLERANCE


def test_the_command_writes_and_tells_once(made, tmp_path):
    folder, _, command, printed = made
    answer = json.loads(printed)  # one object, of the first process
    recipe = Video.load(folder / "two").metadata["kinema"]
    assert answer["path"] == str(folder / "two") and answer["seed"] == 5
    assert recipe["machine"].startswith("2 x ") and recipe["request"]["context_parallel"] is None
    from kinema.cli import run

    assert run([*command, "--out", str(tmp_path / "one")]) == 0
    one, two = (Video.load(path).frames.astype(int) for path in (tmp_path / "one", folder / "two"))
    assert np.abs(one - two).max() <= 1  # a value that rounds to the other side


def test_what_cannot_be_shared_is_refused(made):
    folder, *_ = made
    for rank in range(2):
        answers = json.loads((folder / f"said.{rank}.json").read_text())
        assert "makes its video on one device only" in answers.pop("others")
        for name, said in answers.items():
            assert "were given different requests" in said["other requests"]
            assert "seed is None, and every process would draw its own" in said["no seed"]
            odd = f"2 processes cannot share the 3 tokens of this video evenly; use {NEAR[name]}"
            assert said["odd size"] == odd
            assert "looks needs the hook 'attend'" in said["looks"] and "on several devices" in said["looks"]
            assert "makes one video at a time" in said["second run"]


def test_one_process_and_what_does_not_go_together_are_refused(tiny_wan, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(KinemaError, match="this is the only one; start them with torchrun"):
        load(tiny_wan, device="cpu", context_parallel="ulysses")
    with pytest.raises(KinemaError, match="context_parallel and offload do not work together yet"):
        Placement(context_parallel="ulysses", offload="group")
    with pytest.raises(KinemaError, match="context_parallel is 'ring'; use 'ulysses'"):
        Placement(context_parallel="ring")


def test_of_several_processes_the_first_tells_what_is_wrong(monkeypatch, capsys):
    from kinema import cli

    waited = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert cli.run(["generate", "a ball"]) == 2
    sentence = "2 processes were started to make one video; add --context-parallel ulysses"
    assert capsys.readouterr().err.splitlines() == [f"kinema: {sentence}", f"kinema: process 1: {sentence}"]
    assert len(waited) == 1  # the first does not wait; the second was not ended meanwhile, as torchrun does

    def ended(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.time, "sleep", ended)
    assert cli.run(["generate", "a ball"]) == 2
    assert capsys.readouterr().err == ""

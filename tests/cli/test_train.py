"""`kinema train`: what it refuses, which stages it runs with which budget, and how it stops."""

import pytest

from kinema.cli import run
from kinema.cli.train import Job
from kinema.training.trainer import Report

RECIPE = """
stage1: {trainer: {seconds: 10}}
stage2: {trainer: {seconds: 10}}
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(RECIPE, encoding="utf-8")
    (tmp_path / "run" / "stage2").mkdir(parents=True)
    return "own.yaml"


@pytest.fixture
def stages(monkeypatch):
    """The stages that were run and the budget they got, without training."""
    found = []

    def record(job, name):
        trainer = job.settings(name).trainer
        found.append((name, trainer.seconds, trainer.steps))
        return Report(step=1, clips=1, seconds=1.0, loss=1.0, interrupted=False)

    monkeypatch.setattr(Job, "run", record)
    return found


@pytest.mark.parametrize(
    "words, says",
    [
        (["nothing"], "no recipe 'nothing'"),
        (["own.yaml", "--stage", "judge"], "has no stage 'judge'; it has stage1, stage2"),
        (["own.yaml", "--steps", "0"], "--steps is 0; use more than 0"),
        (["own.yaml", "--seconds", "nan"], "--seconds is nan; use more than 0"),
        (["own.yaml", "--steps", "5", "--seconds", "5"], "give one of them"),
        (["own.yaml", "--device", "abacus"], "'abacus' is not on this machine"),
        (["own.yaml", "--stage", "stage1", "--autoencoder", "elsewhere"], "--autoencoder is for training a"),
        (["own.yaml", "--out", "own.yaml"], "cannot write own.yaml: it is a file"),
        (
            ["own.yaml", "stage2.cache.curriculum=hard"],
            "curriculum is 'hard'; use one of first, pairs, cameras, events, timed, paces, full",
        ),
        (["own.yaml", "stage2.colour=red"], "has no setting 'colour'"),
        (["own.yaml", "--stage", "stage2"], "no autoencoder"),
        (["own.yaml", "--export", "model"], "no checkpoint"),
        (["judge", "--export", "model"], "--export is for sections that train a video model"),
        (["own.yaml", "data=nowhere"], "nowhere"),
        (["mini-unet", "--stage", "temporal"], "goes on from 'pictures', which has left no model in"),
        (
            ["lora", "data=run", "lora.clips.buckets={num_frames: 9, lengths: [17]}"],
            "lengths go to 17, num_frames is 9",
        ),
        (["own.yaml", "data="], "data=FOLDER names the folder of clips"),
        (["judge", "data=."], "for sections that train a video model"),
        (["own.yaml", "data=run/stage2", "--out", "run", "--restart"], "among what the training writes"),
        (["own.yaml", "data=run", "--out", "run"], "among what the training writes"),
        (["finetune"], "name their folder with data=FOLDER"),
        (["lora", "--out", "new"], "name their folder with data=FOLDER"),
        (["own.yaml", "stage1.trainer.ema=1"], "ema and betas must be 0 up to below 1"),
        (["own.yaml", "stage1.trainer.seed=-1"], "seed is -1; use 0 to"),
        (["own.yaml", "--stage", "stage2", "--model", "nothing"], "there is no model 'nothing'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(recipe, words, says, capsys):
    assert run(["train", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_stages_run_in_order_with_the_given_budget(recipe, stages):
    assert run(["train", recipe]) == 0
    assert run(["train", recipe, "--steps", "7"]) == 0
    assert run(["train", recipe, "--stage", "stage2", "--seconds", "3"]) == 0
    assert run(["train", recipe, "stage2.trainer.seconds=4", "--autoencoder", "elsewhere"]) == 0
    assert stages == [
        ("stage1", 10, None),
        ("stage2", 10, None),
        ("stage1", None, 7),
        ("stage2", None, 7),
        ("stage2", 3, None),
        ("stage2", 4, None),
    ]


def test_restart_deletes_what_the_stage_made_and_nothing_else(recipe, stages, tmp_path):
    for part in ("autoencoder", "vae", "latents", "stage2", "model"):
        (tmp_path / "run" / part).mkdir(parents=True, exist_ok=True)
    assert run(["train", recipe, "--out", "run", "--stage", "stage2", "--restart"]) == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"autoencoder", "vae", "latents", "model"}
    assert run(["train", recipe, "--out", "run", "--stage", "stage1", "--restart"]) == 0
    assert {p.name for p in (tmp_path / "run").iterdir()} == {"model"}


def test_an_interrupted_training_exits_130(recipe, monkeypatch, capsys):
    stopped = Report(step=12, clips=1, seconds=1.0, loss=1.0, interrupted=True)
    monkeypatch.setattr(Job, "run", lambda job, name: stopped)
    assert run(["train", recipe]) == 130
    assert "stopped at step 12 of stage1" in capsys.readouterr().err


def test_restart_deletes_no_folder_that_no_training_made(recipe, stages, tmp_path):
    (tmp_path / "run" / "stage2").mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / "stage2" / "thesis.txt").write_text("mine")
    assert run(["train", recipe, "--out", "run", "--stage", "stage2", "--restart"]) == 2
    assert (tmp_path / "run" / "stage2" / "thesis.txt").is_file()

"""`kinema score`: a table or JSON of what was asked and read; one sentence for bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import run
from kinema.metrics.judge import Judge, JudgeNet
from kinema.training.judge import NetSettings, words_of
from kinema.video import Video
from kinema.world.curricula import get_curriculum

PROMPT = "a red ball bounces on the grass, then rolls to the left"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("judge")
    net = JudgeNet(words_of(get_curriculum("first"), NetSettings(frames=5, size=32, channels=(8, 8, 8), width=16)))
    Judge(net).save(folder)
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("clip") / "frames"
    Video(np.zeros((5, 32, 32, 3), dtype=np.uint8)).save(path)
    return str(path)


def test_json_counts_what_the_prompt_asks(judge: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", clip, "--prompt", PROMPT, "--judge", str(judge), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["attribute"]: row for row in result["rows"]}
    assert result["asked"] == 4 and rows["events"]["asked"] == "bounce, then move left"
    assert rows["sky"]["right"] is None and rows["camera"]["right"] is None
    assert result["right"] == sum(bool(row["right"]) for row in rows.values())
    assert result["all_right"] == (result["right"] == 4)


def test_table(judge: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["score", clip, "--prompt", PROMPT, "--judge", str(judge)]) == 0
    out = capsys.readouterr().out
    assert "bounce, then move left" in out and "of 4 right" in out


@pytest.mark.parametrize(
    "extra, says",
    [
        ([], "say what was asked for with --prompt"),
        (["--prompt", "a letter waves"], "the judge cannot tell"),
        (["--prompt", PROMPT, "--judge", "nowhere"], "has no config.json"),
    ],
)
def test_refusals(judge: Path, clip: str, extra: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["score", clip, *([] if "--judge" in extra else ["--judge", str(judge)]), *extra]
    assert run(words) == 2
    assert says in capsys.readouterr().err

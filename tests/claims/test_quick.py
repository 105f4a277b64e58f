"""`kinema claims --quick` of three methods on `mini` itself: eight prompts each, measured as a user does it."""

import json

import pytest

from kinema.claims.bench.claim import find
from kinema.cli import run


@pytest.mark.parametrize("name", ["seine", "diffusion_classifier", "linear_leap"])
def test_a_quick_claim_is_measured_with_the_shipped_model(name, tmp_path, capsys):
    assert run(["claims", name, "--quick", "--out", str(tmp_path), "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["claims"]
    assert told["method"] == name and told["prompts"] == 8 and told["main"]["interval"] is not None
    kept = json.loads((tmp_path / f"{name}-mini-quick.json").read_text())
    assert {arm.name for arm in find(name).arms} == set(kept["rows"][0]["arms"]) and len(kept["rows"]) == 8
    if name == "linear_leap":  # how many fewer steps are as fast is timed, so that no verdict is asked for
        assert 1 <= kept["steps_for_equal_time"]["fewer steps"] <= kept["setting"]["steps"]
    else:
        assert told["verdict"] == "holds", told

"""One description of a job: what it takes, and the one sentence it refuses with."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinema.core.errors import KinemaError
from kinema.request import MAX_SEED, Request, request_schema


@pytest.mark.parametrize(
    "values, says",
    [
        (dict(prompt=" "), "prompt is empty; say what the video shows"),
        (dict(prompt=3), "prompt is 3; use a text"),
        (dict(prompt="0-2s: a | b"), "column 11: expected a range as in '0-3s: text', '[0:24] text'"),
        (dict(prompt="a", num_frames=0), "num_frames is 0; use 1 to 100000"),
        (dict(prompt="a", num_frames="x"), "num_frames is 'x'; use a whole number"),
        (dict(prompt="a", num_frames=1.5), "num_frames is 1.5; use a whole number"),
        (dict(prompt="a", height=9000), "height is 9000; use 8 to 8192"),
        (dict(prompt="a", fps=0), "fps is 0; use 0.001 to 240"),
        (dict(prompt="a", guidance_scale=-1), "guidance_scale is -1; use 0 to 100"),
        (dict(prompt="a", guidance_scale=float("nan")), "guidance_scale is nan; use a finite number"),
        (dict(prompt="a", seed=True), "True is not a number; use a whole number"),
        (dict(prompt="a", model=""), "model is empty; give it or leave it out"),
        (dict(prompt="a", dtype="int8"), "dtype is 'int8'; use float32, bfloat16 or float16"),
        (dict(prompt="a", numframes=3), "there is no field 'numframes' in a request; did you mean 'num_frames'?"),
        (dict(prompt="a", techniques="cfg"), "techniques is 'cfg'; use a list"),
        (dict(prompt="a", last_image="b.png", num_frames=1), "last_image needs a video of at least 2 frames"),
    ],
)
def test_refuses_in_one_sentence(values, says):
    with pytest.raises(KinemaError) as error:
        Request(**values)
    assert says in str(error.value) and "\n" not in str(error.value)


@given(
    st.dictionaries(
        st.sampled_from(sorted(Request.model_fields)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers())),
    )
)
def test_whatever_is_given_the_answer_is_a_request_or_one_sentence(values):
    try:
        Request(**values)
    except KinemaError as error:
        assert str(error).strip() and "\n" not in str(error)


def test_comes_back_from_json(tmp_path):
    request = Request(
        prompt="a", image=tmp_path / "a.png", seed=7, techniques=["x", {"name": "y", "options": {"k": 1}}]
    )
    assert Request(**json.loads(request.model_dump_json())) == request
    assert request.image == str(tmp_path / "a.png") and request.techniques[0].name == "x"


def test_cannot_be_changed_in_place_but_copied():
    request = Request(prompt="a")
    with pytest.raises(ValueError, match="frozen"):
        request.seed = 1
    assert request.changed(seed=1).seed == 1 and request.seed is None
    with pytest.raises(KinemaError, match="seed is -1"):
        request.changed(seed=-1)


def test_a_seed_is_drawn_once_and_fits_in_json():
    seeds = {Request(prompt="a").seeded().seed for _ in range(8)}
    assert len(seeds) > 1 and all(0 <= seed <= MAX_SEED for seed in seeds)
    assert Request(prompt="a", seed=5).seeded().seed == 5


def test_schema_describes_every_field():
    fields = request_schema()["properties"]
    assert list(fields) == list(Request.model_fields)
    assert all(field["description"] for field in fields.values())

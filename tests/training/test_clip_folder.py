"""Folders of captioned clips: what is taken, and every refusal."""

import json

import pytest

from kinema.core.errors import KinemaError
from kinema.training.clip_folder import CAPTIONS, FILES, find_captioned


def fill(folder, files):
    """Files by name with their text; a clip is any bytes, as nothing is decoded."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def line(**row):
    return json.dumps(row) + "\n"


def test_captions_beside_and_in_lines(tmp_path):
    rows = line(file_name="b/c.webm", text="two") + line(video="frames", caption=" three\nlines ")
    files = {"a.mp4": "", "a.txt": "\ufeffone\n", "b/c.webm": "", "frames/0.png": "", "frames/1.png": ""}
    found = find_captioned(fill(tmp_path, {**files, "still.jpg": "", "still.txt": "four", "all.jsonl": rows}))
    assert [(clip.name, clip.caption) for clip in found] == [
        ("a.mp4", "one"),
        ("b/c.webm", "two"),
        ("frames", "three lines"),
        ("still.jpg", "four"),
    ]
    assert all(clip.path == tmp_path / clip.name for clip in found)


@pytest.mark.parametrize("place", FILES)
@pytest.mark.parametrize("caption", CAPTIONS)
def test_names_of_other_trainers(place, caption, tmp_path):
    fill(tmp_path, {"a.mp4": "", "metadata.jsonl": line(**{place: "./a.mp4", caption: "one"})})
    assert [clip.caption for clip in find_captioned(tmp_path)] == ["one"]


@pytest.mark.parametrize(
    "files, says",
    [
        ({}, "holds no clip; it takes .mp4"),
        ({"a.mp4": ""}, "a.mp4 has no caption; write a.txt beside it"),
        ({"a/1.png": "", "a/2.png": "", "b.gif": "", "b.txt": "x"}, r"a/1.png has no caption \(nor have 1 others\)"),
        ({"a.mp4": "", "a.txt": "x", "b.txt": "y"}, "b.txt is a caption without a clip"),
        ({"a.mp4": "", "a.png": "", "a.txt": "x"}, "a.txt could be the caption of a.mp4 and a.png"),
        ({"a.mp4": "", "a.txt": " \n"}, "a.txt is empty; write what the clip shows"),
        ({"a.mp4": "", "a.txt": "x", "m.jsonl": line(video="a.mp4", text="y")}, "a.mp4 has a caption in a.txt and one"),
        ({"a.mp4": "", "m.jsonl": line(video="b.mp4", text="y")}, "line 1 of m.jsonl names 'b.mp4', and there is no"),
        ({"a.mp4": "", "m.jsonl": line(video="../a.mp4", text="y")}, "names '../a.mp4', which is outside the folder"),
        ({"a.mp4": "", "m.jsonl": line(video="/etc/a.mp4", text="y")}, "which is outside the folder"),
        ({"a.mp4": "", "m.jsonl": 2 * line(video="a.mp4", text="y")}, "line 2 of m.jsonl names .* a line before"),
        ({"a.mp4": "", "m.jsonl": line(video="a.mp4")}, r"line 1 of m.jsonl is no JSON object with a caption \(text, "),
        ({"a.mp4": "", "m.jsonl": "[1]"}, r"entry 1 of m.jsonl is no JSON object with a clip \(file_name, "),
        ({"a.mp4": "", "m.jsonl": "{"}, "line 1 of m.jsonl is no JSON object"),
        ({"a.mp4": "", "m.jsonl": "", "n.jsonl": ""}, "holds m.jsonl and n.jsonl; leave one"),
    ],
)
def test_refusals_are_one_sentence(files, says, tmp_path):
    with pytest.raises(KinemaError, match=says) as error:
        find_captioned(fill(tmp_path, files))
    assert "\n" not in str(error.value)


def test_places_that_are_no_folder(tmp_path):
    with pytest.raises(KinemaError, match="there is no folder"):
        find_captioned(tmp_path / "none")
    (tmp_path / "a.mp4").write_text("")
    with pytest.raises(KinemaError, match="is a file; name the folder it is in"):
        find_captioned(tmp_path / "a.mp4")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(KinemaError, match="is not UTF-8 text"):
        find_captioned(tmp_path)

"""The command line: quick to start, exit codes, one sentence for bad input, nothing half-written, and replay."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kinema
from kinema.cli import run
from kinema.guidance.cfg import CFG
from kinema.video import Video

SMALL = ["--num-frames", "5", "--height", "64", "--width", "64", "--num-inference-steps", "2"]
COMMANDS = (
    "generate",
    "plan",
    "show",
    "score",
    "classify",
    "eval",
    "compare",
    "claims",
    "train",
    "world",
    "techniques",
    "models",
    "schema",
    "doctor",
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def code_of(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_help_is_quick_and_imports_nothing_heavy():
    heavy = "{'torch', 'diffusers', 'transformers', 'av', 'PIL', 'numpy'}"
    code_of(
        "import sys; from kinema.cli import run\n"
        f"assert run(['--help']) == 0 and not {heavy} & set(sys.modules)\n"
        f"assert run(['generate', '--help']) == 0 and not {heavy} & set(sys.modules)\n"
        f"assert run(['schema']) == 0 and not {heavy} & set(sys.modules)\n"
        f"assert run(['--version']) == 0 and not {heavy} & set(sys.modules)"
    )


def test_public_names_are_few_and_all_there():
    assert len(kinema.__all__) <= 30
    assert all(getattr(kinema, name) is not None for name in kinema.__all__)
    code_of("import kinema.pipeline, kinema; assert callable(kinema.generate) and callable(kinema.replay)")
    with pytest.raises(AttributeError, match="nothing"):
        kinema.nothing  # noqa: B018


def test_help_names_every_command(capsys):
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in COMMANDS)


@pytest.mark.parametrize("words", ([], ["world"]))
def test_no_command_is_answered_with_help_alone(words, capsys):
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert "Commands" in out + err and "kinema: " not in err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    assert run([name, "--help"]) == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, says",
    [
        ([""], "prompt is empty"),
        ([], "the prompt is missing"),
        (["a", "--negative-prompt", "b", "--guidance-scale", "1"], "without guidance nothing reads it"),
        (["a", "--num-frames", "0"], "num_frames is 0; use 1 to 100000"),
        (["a", "--num-frames", "6"], "use 5 or 9"),
        (["a", "--height", "50"], "use 32 or 64"),
        (["a", "--seed", "x"], "Invalid value for '--seed'"),
        (["a", "--image", "none.png"], "cannot read image none.png"),
        (["a", "--image", "broken.png"], "broken.png"),
        (["a", "--video", "none.mp4"], "cannot read video none.mp4"),
        (["a", "--keep", "-4:"], "keep says which frames of video stay, and there is no video"),
        (["a", "--technique", "cgf"], "no technique 'cgf'; did you mean 'cfg'"),
        (["a", "--technique", "cfg:scale"], "'scale' in technique 'cfg:scale' is no field=value"),
        (["a", "--technique", "cfg:scale=high"], "scale of cfg is 'high'; use a number"),
        (["a", "--technique", ":scale=1"], "has no name"),
        (["a", "--technique", "cfg:"], "is no field=value"),
        (["a", "--technique", "cfg:scale=1,scale=2"], "scale is given twice"),
        (["a", "--technique", "cfg:scale=NaN"], "use finite numbers"),
        (["a", "--technique", "cfg:noise_range=[1.0]"], "use a list of 2 numbers in brackets"),
        (["a", "--technique", "apg:scale=1e300"], "grew beyond what their type holds"),
        (["a", "--scheduler", "heun"], "it knows euler, unipc, dpm++"),
        (["a", "--flow-shift", "0"], "use a number above 0, at most 100, or 'auto'"),
        (["a", "--model", "mimi"], "there is no model 'mimi'"),
        (["a", "--model", "folder"], "has no model_index.json"),
        (["a", "--device", "quantum"], "device 'quantum' is not on this machine"),
        (["a", "--dtype", "int8"], "dtype is 'int8'"),
        (["a", "--device", "meta"], "device 'meta' is not on this machine"),
        (["a", "--image", ""], "--image is empty; give it a value, or leave it out"),
        (["a", "--out="], "--out is empty; give it a value, or leave it out"),
        (["a", "--out", ".mp4"], "give the file a name before its extension"),
        (["a", "--out", "a" * 300 + ".mp4"], "the name is too long"),
        (["a", "--out", os.devnull], "it is a file; name a folder"),
        (["a", "--fps", "0.0001"], "fps is 0.0001; use 0.001 to 240"),
        (["a", "--out", "none/a.mp4"], "the folder none does not exist"),
        (["a", "--out", "a.avi"], "use .mp4, .webm or .gif"),
        (["a", "--out", "folder"], "holds other things"),
        (["a", "--out", "notes.mp4"], "notes.json is there and is not a recipe"),
        (["--from", "none.mp4"], "there is no file"),
        (["--from", "broken.mp4"], "broken.mp4 is not a video"),
        (["--from", "plain.mp4"], "plain.mp4 holds no recipe"),
        (["--from", "notes.json"], "notes.json holds no recipe"),
        (["--from", "bad.json"], "bad.json is not JSON"),
        (["--from", "odd.json"], "odd.json is damaged"),
        (["--from", "newer.json"], "has format 2; this version reads 1"),
        (["0-1s: a | 2-1s: b"], "column 11"),
        (["0-1s: a | 1-2s: b"], "no technique of this request follows them"),
        (["a", "--nonsense"], "No such option"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(here, tiny_wan, capsys, words, says):
    (here / "broken.png").write_bytes(b"no picture")
    (here / "broken.mp4").write_bytes(b"no video")
    (here / "notes.json").write_text('{"mine": 1}')
    (here / "bad.json").write_text("{")
    (here / "odd.json").write_text('{"kinema": {"format": 1, "request": {}, "versions": []}}')
    (here / "newer.json").write_text('{"kinema": {"format": 2, "request": {}}}')
    (here / "folder").mkdir()
    (here / "folder" / "mine.txt").write_text("x")
    Video(np.zeros((1, 16, 16, 3), np.uint8)).save(here / "plain.mp4")
    before = sorted(os.listdir(here))
    model = [] if "--model" in words or "--from" in words else ["--model", str(tiny_wan), *SMALL]
    assert run(["generate", *model, *words]) == 2
    out, err = capsys.readouterr()
    assert says in err and len(err.strip().splitlines()) == 1 and not out
    assert sorted(os.listdir(here)) == before


def test_no_words_and_no_image_need_no_model(here, capsys, monkeypatch):
    monkeypatch.setattr("kinema.backbones.load.load", lambda *args: pytest.fail("the model was loaded"))
    assert run(["generate", ""]) == 2
    assert capsys.readouterr().err == "kinema: prompt is empty, and there is no image; say what the video shows\n"


def test_unknown_commands_get_a_hint(capsys):
    assert run(["genrate", "a"]) == 2
    assert "generate" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif", "a"])
def test_a_video_remakes_itself_bit_for_bit(here, tiny_wan, capsys, name):
    assert run(["generate", "a red ball rolls", "--model", str(tiny_wan), *SMALL, "--out", name, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    recipe = Video.load(name).metadata["kinema"]
    assert recipe["request"]["seed"] == first["seed"] and recipe["request"]["fps"] == first["fps"]
    assert any(file.endswith(".safetensors") for file in recipe["weights"])
    assert run(["generate", "--from", name, "--out", f"again{name[1:]}", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["same_frames"] is True and again["differences"] == [] == again["changed"]
    for path in sorted(here.glob("a/*") if name == "a" else [here / name, here / "a.json"]):
        twin = here / ("again/" + path.name if name == "a" else "again" + path.suffix)
        assert twin.read_bytes() == path.read_bytes(), path.name


def test_the_sidecar_alone_is_enough_and_options_override_it(here, tiny_wan, capsys):
    assert run(["generate", "a red ball", "--model", str(tiny_wan), *SMALL, "--seed", "1", "--out", "a.mp4"]) == 0
    (here / "a.mp4").rename(here / "kept.mp4")
    assert run(["generate", "--from", "a.json", "--out", "b.mp4"]) == 0
    assert "bit for bit" in capsys.readouterr().out
    assert (here / "b.mp4").read_bytes() == (here / "kept.mp4").read_bytes()
    assert run(["generate", "--from", "a.json", "--seed", "2", "--out", "c.mp4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["changed"] == ["seed"] and answer["same_frames"] is None and answer["seed"] == 2


def test_techniques_and_solvers_by_name(here, tiny_wan, capsys):
    common = ["generate", "a red ball", "--model", str(tiny_wan), *SMALL, "--seed", "1", "--json"]
    choices = ["--technique", "cfg:scale=3,noise_range=[1, 1e-3]", "--scheduler", "dpm++", "--flow-shift", "5"]
    assert run([*common, *choices, "--out", "a.mp4"]) == 0
    made = Video.load("a.mp4").metadata["kinema"]["request"]
    assert made["techniques"] == [{"name": "cfg", "options": {"scale": 3, "noise_range": [1, 1e-3]}}]
    assert (made["scheduler"], made["flow_shift"]) == ("dpm++", 5)
    same = dict(num_frames=5, height=64, width=64, num_inference_steps=2, seed=1, scheduler="dpm++", flow_shift=5.0)
    video = kinema.generate("a red ball", model=tiny_wan, techniques=["cfg:scale=3"], **same)
    assert video.metadata["kinema"]["frames"] == Video.load("a.mp4").metadata["kinema"]["frames"]
    capsys.readouterr()
    assert run(["generate", "--from", "a.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same_frames"] is True


def test_what_differs_is_said(here, tiny_wan, capsys):
    assert run(["generate", "a red ball", "--model", str(tiny_wan), *SMALL, "--seed", "1", "--out", "a.mp4"]) == 0
    old = json.loads((here / "a.json").read_text())
    old["kinema"]["versions"]["torch"] = "1.0"
    old["kinema"]["weights"]["vae/config.json"] = "0" * 64
    old["kinema"]["frames"] = "0" * 64
    (here / "old.json").write_text(json.dumps(old))
    capsys.readouterr()
    assert run(["generate", "--from", "old.json", "--out", "b.mp4"]) == 0
    said = capsys.readouterr().out
    assert "not the same frames" in said and "torch was 1.0 and is" in said and "vae/config.json has changed" in said


def test_pictures_count_too(here, tiny_wan, capsys):
    from PIL import Image

    Image.new("RGB", (64, 64), (200, 30, 30)).save("first.png")
    args = ["--model", str(tiny_wan), *SMALL, "--seed", "1", "--out", "a.mp4", "--image", "first.png"]
    assert run(["generate", "a red ball", *args]) == 0
    Image.new("RGB", (64, 64), (30, 30, 200)).save("first.png")
    assert run(["generate", "--from", "a.mp4", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert answer["path"] == "a-again.mp4" and answer["same_frames"] is False
    assert answer["differences"] == ["what is given as image has changed"]
    os.remove("first.png")
    assert run(["generate", "--from", "a.mp4"]) == 2


def test_python_takes_pictures_in_memory_and_replays_them(here, tiny_wan):
    picture = np.full((64, 64, 3), (200, 30, 30), np.uint8)
    sizes = dict(num_frames=5, height=64, width=64, num_inference_steps=2)
    phases = []
    video = kinema.generate(
        "a red ball", image=picture, model=tiny_wan, seed=3, progress=lambda *told: phases.append(told), **sizes
    )
    assert phases == [
        ("load", 0, 1),
        ("load", 1, 1),
        ("sample", 1, 2),
        ("sample", 2, 2),
        ("decode", 0, 5),
        ("decode", 1, 5),
        ("decode", 5, 5),
    ]
    video.save("a.mp4")
    again, differing = kinema.replay("a.mp4")
    assert np.array_equal(again.frames, video.frames) and differing == []


def test_a_loaded_model_is_taken_as_it_is(here, tiny_wan):
    backbone = kinema.load(tiny_wan)
    sizes = dict(num_frames=5, height=64, width=64, num_inference_steps=2, seed=3)
    one = kinema.generate("a red ball", model=backbone, **sizes)
    two = kinema.generate("a red ball", model=tiny_wan, **sizes)
    assert np.array_equal(one.frames, two.frames)
    with pytest.raises(kinema.KinemaError, match="no technique 'cfgg'; did you mean 'cfg'"):
        kinema.generate("a red ball", model=backbone, techniques=["cfgg"])
    for given, says in [
        ("cfgg", "there is no technique 'cfgg'; did you mean 'cfg'"),
        ({"name": "cfg", "options": {"weight": 1}}, "the technique 'cfg' has no field 'weight'"),
        (5, "5 is no technique; give a name"),
        ([("cfg", {"scale": 3.0})], "is no technique; give a name, {"),
    ]:
        with pytest.raises(kinema.KinemaError, match=says):
            kinema.generate("a red ball", model=backbone, techniques=given)
    alone, listed = (
        kinema.generate("a red ball", model=backbone, techniques=given, **sizes)
        for given in ("cfg:scale=3", [CFG(scale=3.0)])
    )
    assert np.array_equal(alone.frames, listed.frames) and not np.array_equal(alone.frames, one.frames)
    with pytest.raises(kinema.KinemaError, match="has no field 'weight'"):
        kinema.generate("a red ball", model=backbone, techniques=[{"name": "cfg", "options": {"weight": 1}}])
    for field, value, says in (
        ("scale", "5", "scale of cfg is '5'; use a number"),
        ("zero_steps", 1.5, "zero_steps of cfg_zero_star is 1.5; use a whole number"),
        ("noise_range", [1.0], r"noise_range of cfg is \(1.0,\); use a list of 2 numbers in brackets"),
    ):
        name = "cfg_zero_star" if field == "zero_steps" else "cfg"
        with pytest.raises(kinema.KinemaError, match=says):
            kinema.generate("a red ball", model=backbone, techniques=[{"name": name, "options": {field: value}}])
    part = {"name": "cfg", "options": {"scale": 5, "noise_range": [1, 0], "low_noise_scale": None}}
    assert kinema.generate("a red ball", model=backbone, techniques=[part], **sizes).frames.shape == one.frames.shape


def test_no_space_leaves_nothing(here, tiny_wan, capsys, monkeypatch):
    import errno

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("kinema.recipe.write", full)
    assert run(["generate", "a", "--model", str(tiny_wan), *SMALL]) == 2
    assert "there is no space left on the disk" in capsys.readouterr().err
    assert os.listdir(here) == []


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_ctrl_c_exits_130_and_leaves_nothing(here, tiny_wan, capsys, monkeypatch, name):
    def pressed(phase, done, count):
        if (phase, done) == ("sample", 1):
            os.kill(os.getpid(), getattr(signal, name))

    monkeypatch.setattr("kinema.cli.generate.Stopwatch.__call__", lambda self, *told: pressed(*told))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs beside others has another
    try:
        assert run(["generate", "a", "--model", str(tiny_wan), *SMALL]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "") and os.listdir(here) == []


def test_main_exits_with_the_code():
    program = "import kinema.cli as c; c.run = lambda words, debug: 130; c.main(['x'])"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 130


def test_a_picture_is_not_replaced_by_its_sheet(here, capsys):
    Image.new("RGB", (32, 32)).save("a.png")
    before = (here / "a.png").read_bytes()
    assert run(["show", "a.png"]) == 2 and (here / "a.png").read_bytes() == before
    assert "cannot write a.png: a.png is read for it; choose another name" in capsys.readouterr().err


def test_other_failures_exit_1_with_one_sentence(here, capsys, monkeypatch):
    def broken(path):
        raise RuntimeError("something odd\nwith details")

    monkeypatch.setattr(Video, "load", broken)
    assert run(["show", "a.mp4"]) == 1
    assert capsys.readouterr().err == "kinema: RuntimeError: something odd (--debug shows where)\n"
    assert run(["show", "a.mp4"], debug=True) == 1
    assert "Traceback" in capsys.readouterr().err


def test_show_writes_a_picture(here, capsys):
    Video(np.zeros((4, 16, 16, 3), np.uint8)).save("a.mp4")
    assert run(["show", "a.mp4"]) == 0 and (here / "a.png").stat().st_size > 0
    assert capsys.readouterr().out.startswith("a.png\n4 frames of 16x16")
    assert run(["show", "a.mp4", "--out", "a.txt"]) == 2 and run(["show", "none.mp4"]) == 2


def test_models_and_doctor_answer_in_json(capsys):
    assert run(["models", "--json"]) == 0
    assert {"embedded", "checkpoints"} <= json.loads(capsys.readouterr().out).keys()
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["devices"] and found["libraries"]["torch"] and found["advice"]
    assert run(["models"]) == 0 and run(["doctor"]) == 0


def test_frames_are_encoded_while_they_are_decoded(here, tiny_wan, monkeypatch):
    """The same bytes as a video in memory, and no piece is decoded before the one in front of it is encoded."""
    from kinema.backbones.base import DiffusersBackbone
    from kinema.formats import ContainerWriter

    told = []
    pieces, add = DiffusersBackbone.decode_pieces, ContainerWriter.add

    def decoded(self, x, conditions=None):
        for piece in pieces(self, x, conditions):
            told.append("decoded")
            yield piece

    monkeypatch.setattr(DiffusersBackbone, "decode_pieces", decoded)
    monkeypatch.setattr(ContainerWriter, "add", lambda self, frames: (told.append("encoded"), add(self, frames)))
    assert run(["generate", "a red ball", "--model", str(tiny_wan), *SMALL, "--seed", "1", "--out", "a.mp4"]) == 0
    assert told == ["decoded", "encoded"] * 2
    sizes = dict(num_frames=5, height=64, width=64, num_inference_steps=2, seed=1)
    kinema.generate("a red ball", model=tiny_wan, **sizes).save("b.mp4")
    assert (here / "a.mp4").read_bytes() == (here / "b.mp4").read_bytes()


def test_a_rank_without_a_world_is_none(monkeypatch):
    from kinema.cli import process

    for rank, count, expected in (("1", None, (0, 1)), ("x", "2", (0, 1)), ("1", "2", (1, 2)), (None, None, (0, 1))):
        for name, value in (("RANK", rank), ("WORLD_SIZE", count)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert process() == expected

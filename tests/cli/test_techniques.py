"""`kinema techniques`: the list, and the page of one."""

import json

from kinema.cli import run


def test_techniques_are_listed_and_explained(capsys):
    from kinema.core.registry import techniques

    assert run(["techniques"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and entry.paper in shown for name, entry in techniques().items())
    assert "boxes" not in shown and "Words of the prompt drawn to the places where they are to be seen." in shown
    (freelong,) = [line for line in shown.splitlines() if line.startswith("freelong ")]  # measured on two models
    assert "holds, mini-unet" in freelong and "/" not in freelong
    for name, entry in techniques().items():
        assert run(["techniques", name, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["fields"].keys() >= {"noise_range", "block_range"}
        assert run(["techniques", name]) == 0
        told = capsys.readouterr().out
        assert entry.paper in told and "Model families that refuse it" in told
    assert run(["techniques", "freenoise"]) == 0
    told = capsys.readouterr().out
    assert "holds" in told and "cogvideox" in told and "prompts" in told
    assert "Measured on mini-unet, " in told and "Measured on mini, " in told
    assert run(["techniques", "paint_with_words"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-1].endswith("@ 1.5-3s'") and max(map(len, told[:-1])) <= 100
    assert run(["techniques", "apgg"]) == 2
    assert "did you mean 'apg'" in capsys.readouterr().err


def test_the_list_of_techniques_fits_the_terminal(monkeypatch, capsys):
    from kinema.cli import tables

    titles = ("name", "topic", "paper", "what it does")
    columns = [(title, "left") for title in titles]
    row = ("name" * 5, "topic" * 3, "arXiv:0000.00000", "some words " * 20)
    tables.show(columns, [row], ("paper", "topic"), cut=True)
    assert row[-1].strip() in capsys.readouterr().out  # no terminal: whole lines
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    for room, there in ((80, {"name"}), (94, {"name", "topic"}), (200, {*titles[:3]})):
        monkeypatch.setenv("COLUMNS", str(room))
        tables.show(columns, [row], ("paper", "topic"), cut=True)
        lines = capsys.readouterr().out.splitlines()
        (head,) = [line for line in lines if "what it does" in line]
        (cut,) = [line.rstrip() for line in lines if "some words" in line]
        assert {title for title in titles[:3] if title in head} == there, room
        assert len(cut) <= room and cut.endswith("...")


def test_paragraphs_are_joined():
    from kinema.cli.techniques import joined

    assert joined(["a", "b.", "", "Paper: c", "d", "    e", "f"]) == ["a b.", "", "Paper: c d", "    e", "f"]

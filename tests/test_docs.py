"""What the pages say is true: commands parse, the quick ones run, Python runs, links lead somewhere."""

import contextlib
import functools
import importlib
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer

from kinema.cli import run
from kinema.cli.commands import COMMANDS, command
from kinema.core import registry

ROOT = Path(__file__).parent.parent
PAGES = {
    page.relative_to(ROOT).as_posix(): page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
QUICK = ("kinema models", "kinema schema", "kinema doctor", "kinema --version")


@functools.cache
def blocks(page: str, language: str) -> list[str]:
    """The fenced code of one language on a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", PAGES[page].read_text(encoding="utf-8"), re.M | re.S)


def commands(page: str) -> list[str]:
    """Command lines in shell blocks and in inline code; what has words in capitals is a pattern, not a command."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", PAGES[page].read_text(encoding="utf-8"), flags=re.M | re.S)
    lines += [code for code in re.findall(r"`([^`\n]+)`", prose) if not re.search(r"\b[A-Z]{3,}\b|\.\.\.", code)]
    words = [shlex.split(line, comments=True) for line in lines]
    return [shlex.join(w) for w in words if len(w) > 1 and w[0] in ("kinema", "python", "make", "pip")]


ALL = sorted({(page, line) for page in PAGES for line in commands(page)})


def parse(words: list[str]) -> None:
    """Parse a command line with the real commands, without calling any. Raises what bad usage raises."""
    context = command().make_context("kinema", list(words))
    while hasattr(context.command, "resolve_command"):
        name, found, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        context = found.make_context(name, rest, parent=context)


def options_of(module: str) -> set[str]:
    """The long options that a measurement takes."""
    app = typer.Typer()
    app.command()(importlib.import_module(module).main)
    return {name for option in typer.main.get_command(app).params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("page, line", ALL)
def test_every_command_is_understood(page, line):
    first, *words = shlex.split(line)
    if first == "kinema":
        named = {*words} <= {*COMMANDS, "sample"}  # a command is mentioned, not used
        with contextlib.suppress(typer.Exit):  # --help and --version end where they are read
            parse([*words, "--help"] if named else words)
        if words[0] == "train":
            check_training(words)
        if "--metrics" in words:
            check_metrics(words[words.index("--metrics") + 1])
    elif first == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
    elif first == "python" and words[0] == "-m":
        asked = {word for word in words[2:] if word.startswith("--")}
        assert asked <= options_of(words[1])
    elif first == "python":
        source = (ROOT / words[0]).read_text()
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def check_metrics(names: str) -> None:
    """The metrics, presets and extractors that a command names are there."""
    from kinema.evaluation.measures import presets
    from kinema.metrics.extractors.extractor import find_extractor
    from kinema.metrics.metric import find

    for name in set(names.split(",")) - set(presets()):
        metric, _, extractor = name.partition(":")
        find(metric)
        if extractor:
            find_extractor(extractor)


def check_training(words: list[str]) -> None:
    """The recipe and the settings that a command names are there."""
    from kinema.training.recipe import read_recipe

    if len(words) > 1 and words[1] in ("mini", "judge", "sight", "depth", "event_times", "camera_reader"):
        overrides = [word for word in words if re.match(r"\w+\.[\w.]+=", word)]
        sections = read_recipe(words[1], overrides)
        if "stage2" in sections:
            from kinema.training.recipe import load_section
            from kinema.training.video_settings import VideoSettings

            load_section(words[1], "stage2", VideoSettings, overrides)


@pytest.mark.parametrize("name", (*COMMANDS, "world sample"))
def test_the_example_in_every_help_is_understood(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert run([*name.split(), "--help"]) == 0
    examples = re.findall(r"(?:Example|Begin with): (kinema .*?)\s*$", capsys.readouterr().out, re.M)
    assert examples or name in ("world", "models", "schema", "doctor")
    for example in examples:
        parse(shlex.split(example)[1:])


@pytest.mark.parametrize("line", sorted({line for _, line in ALL if line.startswith(QUICK)}))
def test_quick_commands_run(line, capsys):
    assert run(shlex.split(line)[1:]) == 0
    assert capsys.readouterr().out.strip()


def test_world_sample_runs_at_a_tiny_size(tmp_path, capsys):
    line = next(line for _, line in ALL if line.startswith("kinema world sample --count 16"))
    size = ["--count", "1", "--height", "24", "--width", "32", "--num-frames", "2", "--out", str(tmp_path / "clips")]
    assert run([*shlex.split(line)[1:], *size]) == 0
    folder = tmp_path / "clips" / "000000"
    assert {p.name for p in folder.iterdir()} == {"clip.mp4", "clip.json", "truth.safetensors"}


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python") and page != "docs/architecture.md"])
def test_python_on_the_page_runs(page, tmp_path, monkeypatch):
    program = "\n".join(blocks(page, "python"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_ENTRIES", registry.techniques())  # a page may register an example
    exec(compile(program, page, "exec"), {"__name__": "page"})
    saved = re.findall(r'\.save\("([^"]+)"\)', program)
    assert saved and all((tmp_path / name).exists() for name in saved)


def anchors(page: Path) -> set[str]:
    """Names of the headings, as a reader of Markdown makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[page].read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (PAGES[page].parent / path).resolve() if path else PAGES[page]
        assert there.exists(), f"{page} links to {target}, which is not there"
        assert not anchor or anchor in anchors(there), f"{page} links to {target}: no such heading"


def test_readme_links_every_page():
    linked = set(re.findall(r"\]\(([^)\s#]+)", PAGES["README.md"].read_text(encoding="utf-8")))
    assert {page for page in PAGES if page.startswith("docs/")} <= linked


def test_pages_name_files_that_are_there():
    for page, path in PAGES.items():
        for name in re.findall(r"`((?:src|tests|docs|benchmarks)/[\w./-]+)`", path.read_text(encoding="utf-8")):
            assert "TOPIC" in name or (ROOT / name).exists(), f"{page} names {name}, which is not there"


def test_the_judge_reaches_what_the_page_says():
    page = PAGES["docs/models.md"].read_text(encoding="utf-8")
    card = json.loads((ROOT / "src/kinema/weights/judge/card.json").read_text(encoding="utf-8"))
    for name, found in card["accuracy"].items():
        value = re.search(rf"^\| {name}s? \| ([\d.]+)%", page[page.index("## The judge") :], re.M)
        assert value and float(value[1]) == pytest.approx(100 * found["value"], abs=0.06)


def test_the_results_in_the_package_are_those_of_the_pages():
    tool = runpy.run_path(str(ROOT / "tools" / "embed_results.py"))
    assert json.loads(tool["RESULTS"].read_text()) == json.loads(json.dumps(tool["results"]())), (
        "python tools/embed_results.py"
    )


def test_the_catalogue_is_up_to_date():
    tool = runpy.run_path(str(ROOT / "tools" / "embed_results.py"))
    page = tool["CATALOGUE"].read_text(encoding="utf-8")
    assert page == tool["catalogue"](), "python tools/embed_results.py"
    for name, entry in (registry.techniques() | registry.readers()).items():
        assert re.search(rf"^\| `{name}` \|.*abs/{entry.paper.removeprefix('arXiv:')}\)", page, re.M), name

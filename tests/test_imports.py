"""Arrows point one way, the loop stays readable, and nothing heavy loads before it is needed."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kinema
from kinema.backbones.load import families as families_of_models
from kinema.core.registry import TOPICS, techniques

ROOT = Path(kinema.__path__[0])

# Folder, or file beside them, -> what of kinema it may import at run time (its own folder always). Every one is listed.
FILES = {"files": {"core"}, "pictures": {"core"}, "timeline": {"core", "files", "lettering"}}
FILES |= {"lettering": set()}
FILES |= {"refusal": set(), "request": {"core", "refusal", "timeline"}}
FILES |= {"video": {"core", "files", "lettering", "pictures", "formats"}, "formats": {"core", "video"}}
FILES |= {"recipe": {"core", "files", "request", "video", "__version__"}}
FILES |= {"take": {"files", "formats", "recipe", "request", "video"}, "parts": {"core", "files", "recipe", "request"}}
FILES |= {"timing": {"core", "request", "timeline"}}
FILES |= {"pipeline": {"core", "backbones", "camera", "guidance", "pictures", "recipe", "request", "take", "timeline"}}
FILES["pipeline"] |= {"timing", "video"}
FILES |= {"editing": {"core", "pictures", "pipeline", "request", "video"}}
ALLOWED = {
    "core": set(),
    "layers": {"core", "files", "formats", "pictures", "timeline", "video"},
    **{topic: {"core", "layers"} for topic in TOPICS},
    "events": {"core", "layers", "timeline"},
    "models": {"core", "layers"},
    "backbones": {"core", "files", "layers", "models", "pictures", "request", "video"},
    "world": {"core", "files", "video"},
    "metrics": {"core", "files", "layers", "timeline", "world"},
    "evaluation": {"core", "files", "formats", "metrics", "recipe", "video", "__version__"},
    "understanding": {"core", "backbones", "request", "video"},
    "training": {"core", "backbones", "evaluation", "files", "formats", "guidance", "layers", "lettering", "metrics"}
    | {"models", "request", "timeline", "video", "world", *TOPICS},
    "claims": {"core", "backbones", "files", "guidance", "metrics", "pipeline", "recipe", "request", "speed"}
    | {"layers", "motion", "timeline", "training", "understanding", "video", "world"},
    "cli": {"core", "backbones", "claims", "editing", "evaluation", "files", "layers", "metrics", "parts", "pictures"}
    | {"pipeline", "recipe", "request", "timeline", "timing", "training", "understanding", "video", "world"}
    | {"__version__"},
    **FILES,
    "__main__": {"cli"},
    "__init__": set(),  # names are loaded by text, when they are first used
}


def sources(name: str) -> list[Path]:
    return [ROOT / f"{name}.py"] if (ROOT / f"{name}.py").is_file() else sorted((ROOT / name).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """First-level kinema folders or files that `path` imports at run time."""
    names = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path.name} imports by a relative name; write it out"
            modules = [node.module] if node.module != "kinema" else [f"kinema.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        else:
            continue
        names |= {m.split(".")[1] for m in modules if m.startswith("kinema.")}
    return names


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_arrows_point_one_way(name):
    for path in sources(name):
        beyond = imported(path) - ALLOWED[name] - {name}
        assert not beyond, f"{path.relative_to(ROOT)} imports {sorted(beyond)}"


def test_every_folder_and_file_has_its_arrows():
    there = {p.stem for p in ROOT.glob("*.py")} | {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert there <= set(ALLOWED), f"say in ALLOWED what {sorted(there - set(ALLOWED))} may import"


def test_there_is_one_denoising_loop():
    calls = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if "solver.advance(" in p.read_text()}
    steps = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if "scheduler.step(" in p.read_text()}
    assert (calls, steps) == ({"core/loop.py"}, {"core/schedule.py"})


def test_loop_is_short_and_core_names_no_method_and_no_model():
    tree = ast.parse((ROOT / "core" / "loop.py").read_text())
    (loop,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "loop"]
    assert loop.end_lineno - loop.lineno < 45
    families = {module.__name__.rpartition(".")[2] for module in families_of_models()}
    for path in (ROOT / "core").glob("*.py"):
        named = set(re.findall(r"\w+", path.read_text().lower())) & (set(techniques()) | families)
        assert not named, f"core/{path.name} names {sorted(named)}"


@pytest.mark.parametrize("code", ["import kinema", "from kinema.cli import main", "import kinema.request"])
def test_nothing_heavy_is_imported_early(code):
    heavy = "{'torch', 'diffusers', 'transformers', 'av', 'PIL'}"
    subprocess.run([sys.executable, "-c", f"{code}; import sys; assert not {heavy} & set(sys.modules)"], check=True)

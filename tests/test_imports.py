"""Arrows point one way, the loop stays readable, and nothing heavy loads before it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kinema
from kinema.core.registry import TOPICS, techniques

ROOT = Path(kinema.__path__[0])

# Folder -> folders of kinema it may import from (its own is always allowed).
ALLOWED = {
    "core": set(),
    "layers": {"core"},
    "world": {"core", "video", "files"},
    "models": {"core"},
    "backbones": {"core", "layers", "models", "files"},
    "metrics": {"core", "layers", "models", "world", "video", "files"},
    **{topic: {"core", "layers"} for topic in TOPICS},
}


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
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            modules = [node.module] if node.module != "kinema" else [f"kinema.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            modules = [a.name for a in node.names]
        else:
            continue
        names |= {m.split(".")[1] for m in modules if m.startswith("kinema.")}
    return names


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_arrows_point_one_way(folder):
    for path in (ROOT / folder).glob("*.py"):
        beyond = imported(path) - ALLOWED[folder] - {folder}
        assert not beyond, f"{folder}/{path.name} imports {sorted(beyond)}"


def test_loop_is_short_and_core_names_no_method_and_no_model():
    tree = ast.parse((ROOT / "core" / "loop.py").read_text())
    (loop,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "sample"]
    assert loop.end_lineno - loop.lineno < 45
    families = {p.stem for p in (ROOT / "backbones").glob("*.py")} - {"__init__", "protocol", "load"}
    for path in (ROOT / "core").glob("*.py"):
        words = {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
        words |= {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)}
        assert not words & (set(techniques()) | families), path.name


@pytest.mark.parametrize("code", ["import kinema", "from kinema.cli import main", "import kinema.request"])
def test_nothing_heavy_is_imported_early(code):
    heavy = "{'torch', 'diffusers', 'transformers', 'av', 'PIL'}"
    subprocess.run([sys.executable, "-c", f"{code}; import sys; assert not {heavy} & set(sys.modules)"], check=True)

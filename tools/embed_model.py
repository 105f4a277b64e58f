"""Puts a trained model into the package; parts that another embedded model has already become links to them.

    python tools/embed_model.py runs/mini-mm/model mini-mm

What every video model shares lies in src/kinema/weights/autoencoder, or in the model that was first with it.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import shutil
from pathlib import Path

from kinema.files import replacing

WEIGHTS = Path(__file__).parent.parent / "src" / "kinema" / "weights"


def twin(part: Path, name: str) -> Path | None:
    """A folder of the package, outside model `name`, with the very files of `part`."""
    places = [WEIGHTS / "autoencoder", *sorted(WEIGHTS.glob(f"*/{part.name}"))]
    for place in places:
        files = sorted(file.name for file in part.iterdir())
        if not place.is_dir() or place.is_symlink() or place.parent.name == name:
            continue
        same = files == sorted(file.name for file in place.iterdir())
        if same and not any(filecmp.cmpfiles(part, place, files, shallow=False)[1:]):
            return place
    return None


def embed(model: Path, name: str) -> Path:
    """Copies the folder `model` to the package as `name`; gives the place."""
    out = WEIGHTS / name
    with replacing(out) as temporary:
        temporary.mkdir()
        for entry in sorted(model.iterdir()):
            if entry.is_file():
                shutil.copy(entry, temporary / entry.name)
                continue
            known = twin(entry, name)
            if known is not None:
                (temporary / entry.name).symlink_to(Path("..") / known.relative_to(WEIGHTS))
            else:
                shutil.copytree(entry, temporary / entry.name)
        card = json.loads((temporary / "card.json").read_text(encoding="utf-8"))
        text = json.dumps({**card, "name": name}, indent=2) + "\n"
        (temporary / "card.json").write_text(text, encoding="utf-8")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description="Put a trained model into the package.")
    parser.add_argument("model", type=Path, help="model folder, as a training leaves it")
    parser.add_argument("name", help="name of the embedded model")
    given = parser.parse_args()
    out = embed(given.model, given.name)
    own = sum(file.stat().st_size for file in out.rglob("*") if file.is_file() and not file.is_symlink())
    print(f"{out}: {own / 1e6:.1f} MB of its own")


if __name__ == "__main__":
    main()

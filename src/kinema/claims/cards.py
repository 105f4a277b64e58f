"""What was measured of kinema's own networks, written beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kinema.core.errors import KinemaError
from kinema.files import write_text

WEIGHTS = Path(__file__).parent.parent / "weights"


def write_measured(owner: Any, folder: Path, told: dict[str, Any], key: str = "measured") -> None:
    """Numbers into the card of a network, `owner.card`, which lies in a folder.

    Raises: KinemaError when there is none.
    """
    path = folder / "card.json"
    if not path.is_file():
        raise KinemaError(f"{path} is not there to be written into")
    owner.card[key] = told
    write_text(path, json.dumps(owner.card, indent=2) + "\n")

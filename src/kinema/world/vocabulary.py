"""The words of the world: what can stand in a scene, and what can happen to it.

Every other file of `kinema.world` reads these tables; the order of a table is part of the file format
(class indices of the judge, seeds of the sampler), so new words go to the end.
"""

from __future__ import annotations

# Primitives first; figures, pictures and letters are drawn by the same renderer but need extra data.
KINDS = ("ball", "cube", "cylinder", "cone", "ring", "figure", "picture", "letter")

# sRGB, 0..1, far enough apart to be told apart in shadow and at sunset.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.10, 0.09),
    "orange": (0.98, 0.52, 0.05),
    "yellow": (0.97, 0.88, 0.12),
    "green": (0.07, 0.58, 0.16),
    "blue": (0.10, 0.24, 0.86),
    "purple": (0.47, 0.13, 0.66),
    "pink": (0.98, 0.52, 0.74),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.07),
}

MATERIALS = ("matte", "shiny", "striped", "checked")

# Half extent of an object in metres: radius of a ball, half the edge of a cube, half the height of the others.
SIZES: dict[str, float] = {"small": 0.4, "medium": 0.56, "large": 0.78}

GROUNDS = ("grass", "sand", "snow", "stone", "wood", "water")
SKIES = ("day", "sunset", "night")

# Actions that take a direction are named with it in an event's `label`, for example "roll left".
ACTIONS = (
    "roll",  # left, right, towards, away; things that cannot roll slide
    "slide",  # left, right, towards, away
    "bounce",
    "jump",
    "spin",
    "fall",
    "stop",
    "grow",
    "shrink",
    "change colour",
    "appear",
    "disappear",
    "circle",  # around a target object
    "push",  # runs into a target object and sets it moving
    "walk",  # figures; left, right, towards, away
    "wave",  # figures
)
DIRECTED = ("roll", "slide", "walk")
DIRECTIONS = ("left", "right", "towards", "away")

CAMERAS = (
    "still",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "dolly in",
    "dolly out",
    "orbit left",
    "orbit right",
    "rise",
)

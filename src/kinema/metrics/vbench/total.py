"""VBench's three totals, Quality, Semantic and Total, from the means of its sixteen dimensions.

Constants and weights are those of the leaderboard (Vchitect/VBench, scripts/constant.py). They were made for VBench's
own networks and prompts: totals of other ones are not comparable with the leaderboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BOUNDS: dict[str, tuple[float, float]] = {  # of the scores that were seen, least and greatest
    "vbench_subject_consistency": (0.1462, 1.0),
    "vbench_background_consistency": (0.2615, 1.0),
    "vbench_temporal_flickering": (0.6293, 1.0),
    "vbench_motion_smoothness": (0.706, 0.9975),
    "vbench_dynamic_degree": (0.0, 1.0),
    "vbench_aesthetic_quality": (0.0, 1.0),
    "vbench_imaging_quality": (0.0, 1.0),
    "vbench_object_class": (0.0, 1.0),
    "vbench_multiple_objects": (0.0, 1.0),
    "vbench_human_action": (0.0, 1.0),
    "vbench_color": (0.0, 1.0),
    "vbench_spatial_relationship": (0.0, 1.0),
    "vbench_scene": (0.0, 0.8222),
    "vbench_appearance_style": (0.0009, 0.2855),
    "vbench_temporal_style": (0.0, 0.364),
    "vbench_overall_consistency": (0.0, 0.364),
}
DIMENSIONS = tuple(BOUNDS)
QUALITY, SEMANTIC = DIMENSIONS[:7], DIMENSIONS[7:]
WEIGHTS = dict.fromkeys(DIMENSIONS, 1.0) | {"vbench_dynamic_degree": 0.5}
OFFICIAL = {  # the extractors here that are VBench's own networks; what is not named here has none
    "vbench_subject_consistency": "dino",
    "vbench_background_consistency": "clip",
    "vbench_temporal_flickering": None,
    "vbench_motion_smoothness": "amt",
    "vbench_dynamic_degree": "raft@C_T_V1",  # the weights of RAFT's authors, "things"
    "vbench_aesthetic_quality": "laion",
    "vbench_imaging_quality": "musiq",
    "vbench_appearance_style": "clip",
    "vbench_temporal_style": "viclip",
    "vbench_overall_consistency": "viclip",
}


@dataclass(frozen=True)
class Totals:
    """0..1 each for scores within the bounds; None when a dimension that it needs is missing."""

    quality: float | None
    semantic: float | None
    total: float | None


def normalised(name: str, mean: float) -> float:
    """(mean - least) / (greatest - least) of a dimension; not cut to 0..1, as on the leaderboard."""
    least, greatest = BOUNDS[name]
    return (mean - least) / (greatest - least)


def totals(means: Mapping[str, float | None]) -> Totals:
    """Quality and Semantic are weighted means of normalised dimensions, Total is (4 Quality + Semantic) / 5.

    means: of each metric over all clips, by its name; others than the sixteen are ignored. A dimension that is missing
    or None leaves no total that needs it: the leaderboard's script counts it as 0.
    """

    def mean(names: tuple[str, ...]) -> float | None:
        known = {name: value for name in names if (value := means.get(name)) is not None}
        if len(known) < len(names):
            return None
        weighted = sum(WEIGHTS[name] * normalised(name, value) for name, value in known.items())
        return weighted / sum(WEIGHTS[name] for name in names)

    quality, semantic = mean(QUALITY), mean(SEMANTIC)
    total = None if quality is None or semantic is None else (4 * quality + semantic) / 5
    return Totals(quality, semantic, total)

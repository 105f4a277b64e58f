"""card.json of a trained model: data, training, hardware; scores are added by whoever measures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from kinema.training.clips import WorldClips
from kinema.training.denoising import Denoising
from kinema.training.latents import LatentCache
from kinema.training.video_settings import Place, VideoSettings

WHAT = {
    "WanPipeline": "text to video, from given frames too; the Wan 2.2 TI2V architecture at a small size",
    "CogVideoXPipeline": "text to video; joint attention of text and video, the CogVideoX architecture at a small size",
    "AnimateDiffPipeline": "text to video; a UNet with spatial and temporal attention apart, as AnimateDiff's",
}


def make_card(settings: VideoSettings, place: Place, stage: Denoising, training: dict[str, Any]) -> dict[str, Any]:
    """The card of what a stage has trained. training: steps, clips_seen, seconds and hardware."""
    backbone, before = stage.backbone, stage.backbone.folder.card
    parts = {stage.student.part: stage.student.network, "text_encoder": stage.student.text_encoder, "vae": backbone.vae}
    tokenizer = getattr(backbone, "tokenizer", None) or backbone.pipeline.tokenizer
    taken = {key: before[key] for key in ("defaults", "given", "takes_last_image") if key in before}
    if settings.learning.given_share:
        taken["given"] = asdict(settings.learning.given)
    return {
        "name": place.folder.name,
        "what": WHAT.get(backbone.folder.pipeline, backbone.folder.pipeline),
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "data": _data(settings, place, stage),
        "training": {
            "objective": stage.objective.kind,
            **training,
            "torch": torch.__version__,
            "settings": asdict(settings),
            "parts": _parts(before) if settings.start_from is not None else [],
        },
        **taken,
        "text": {"max_sequence_length": int(tokenizer.model_max_length), "words": len(tokenizer)},
        "scores": {},
    }


def _data(settings: VideoSettings, place: Place, stage: Denoising) -> dict[str, Any]:
    if not isinstance(stage.clips, WorldClips):
        return {"own_clips": str(stage.clips)}
    c, d = settings.cache, stage.backbone.defaults
    cached = LatentCache.count(place.folder / "latents")
    return {
        "world": f"kinema.world, curriculum {c.curriculum!r}, training split",
        **{name: getattr(d, name) for name in ("num_frames", "height", "width", "fps")},
        "seeds": [c.first_seed, c.first_seed + cached],  # of clips that were there to learn from; shards come in order
        "cached_clips": cached,
    }


def _parts(before: Any) -> list[dict[str, Any]]:
    """The trainings that a model has behind it, told by its card, oldest first."""
    training = before.get("training", {})
    told = {key: value for key, value in training.items() if key not in ("parts", "settings")}
    return [*training.get("parts", []), *([told] if told else [])]

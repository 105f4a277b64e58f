"""Clips that the tests of the metrics look at: a few of the world, and pieces of real videos."""

from kinema.claims.clips import real_clips, scenes, world_clips

__all__ = ["real_clips", "scenes", "world_clips"]

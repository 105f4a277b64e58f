"""The shots of a clip: the pieces between hard cuts."""

from __future__ import annotations

import numpy as np

from kinema.metrics.optional import library, opencv
from kinema.metrics.viewing import Viewing

THRESHOLD = 27.0  # mean change of hue, saturation and value that is a cut; PySceneDetect's own default


def shots(clip: Viewing) -> list[tuple[int, int]]:
    """First frame and the one after the last of each shot, in order; at least one shot.

    PySceneDetect's content detector on the frames as they are. A shot may be as short as one frame: a flash is two
    cuts. Fades are not seen.
    """
    return clip.once("shots", lambda: _find(clip))


def _find(clip: Viewing) -> list[tuple[int, int]]:
    opencv()
    scenedetect = library("scenedetect")
    detector = scenedetect.ContentDetector(threshold=THRESHOLD, min_scene_len=0)
    starts = [0]
    for i, frame in enumerate(clip.frames):
        found = detector.process_frame(scenedetect.FrameTimecode(i, clip.fps), np.ascontiguousarray(frame[..., ::-1]))
        starts += [cut.frame_num for cut in found]
    return list(zip(starts, [*starts[1:], len(clip)], strict=True))

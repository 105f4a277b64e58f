"""The shots of a clip: the pieces between hard cuts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from kinema.core.optional import library, opencv

THRESHOLD = 27.0  # mean change of hue, saturation and value that is a cut; PySceneDetect's own default


def shots(frames: Iterable[np.ndarray], fps: float) -> list[tuple[int, int]]:
    """First frame and the one after the last of each shot, in order, of frames (H, W, 3) uint8; at least one shot.

    PySceneDetect's content detector on the frames as they are. A shot may be as short as one frame: a flash is two
    cuts. Fades are not seen. No more than one frame is held. Raises: KinemaError when OpenCV or it is not installed.
    """
    opencv()
    scenedetect = library("scenedetect")
    detector = scenedetect.ContentDetector(threshold=THRESHOLD, min_scene_len=0)
    starts, count = [0], 0
    for frame in frames:
        found = detector.process_frame(scenedetect.FrameTimecode(count, fps), np.ascontiguousarray(frame[..., ::-1]))
        starts += [cut.frame_num for cut in found]
        count += 1
    return list(zip(starts, [*starts[1:], count], strict=True))

"""How well a clip begins with the picture that it was given: PSNR, SSIM and LPIPS of the first frame alone."""

from __future__ import annotations

from kinema.core.errors import KinemaError
from kinema.metrics.control.lpips import lpips
from kinema.metrics.control.psnr import MOST, psnr
from kinema.metrics.control.ssim import ssim
from kinema.metrics.extractors.extractor import Extractor
from kinema.metrics.metric import metric
from kinema.metrics.viewing import Viewing


def _first(clip: Viewing) -> Viewing:
    """The first frames of a clip and of its reference, which may be longer or shorter, or a single picture."""
    reference = clip.reference
    assert reference is not None
    if reference.frames.shape[1:] != clip.frames.shape[1:]:
        raise KinemaError(
            f"the clip is {clip.width}x{clip.height} and its reference {reference.width}x{reference.height}; "
            "use two of one size"
        )
    return clip.but(frames=clip.frames[:1], reference=reference.but(frames=reference.frames[:1]))


@metric(
    "first_frame_psnr",
    unit="dB",
    low=0,
    high=MOST,
    better="higher",
    source="Wang et al., 2004, doi:10.1109/TIP.2003.819861, as the baseline",
    needs=("reference",),
    sees="noise",
    ignores="drift",
)
def first_frame_psnr(clip: Viewing) -> float | None:
    """How close the first frame's pixels are to those of the reference's first frame, as `psnr` computes it."""
    return psnr.function(_first(clip))


@metric(
    "first_frame_ssim",
    unit="similarity",
    low=-1,
    high=1,
    better="higher",
    source='Wang et al., "Image Quality Assessment", 2004, doi:10.1109/TIP.2003.819861',
    needs=("reference",),
    sees="noise",
    ignores="drift",
)
def first_frame_ssim(clip: Viewing) -> float | None:
    """Structural similarity of the first frames of a clip and of its reference, as `ssim` computes it."""
    return ssim.function(_first(clip))


@metric(
    "first_frame_lpips",
    unit="squared distance",
    low=0,
    high=float("inf"),
    better="lower",
    source='"The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018, arXiv:1801.03924',
    needs=("reference",),
    sees="noise",
    ignores="drift",
    extractor="lpips",
)
def first_frame_lpips(clip: Viewing, extractor: Extractor) -> float | None:
    """Perceptual distance of the first frames of a clip and of its reference, as `lpips` computes it."""
    return lpips.function(_first(clip), extractor)

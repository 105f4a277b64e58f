"""Wan 2.1 and 2.2."""

from functools import partial

import tiny
from backbones.families import Case

SIZE = dict(height=32, width=64, num_frames=9, num_inference_steps=3)


def _clean_first_frame(theirs, ours):
    """The TI2V pipeline puts the clean first frame back only after its last step."""
    theirs = theirs.clone()
    theirs[:, :, :1] = ours[:, :, :1]
    return theirs


def _copy_before_stepping(pipeline):
    """The diffusion-forcing pipeline of diffusers 0.42 overwrites, in place, the sample its solvers remember."""
    import diffusers

    class Copying(diffusers.UniPCMultistepScheduler):
        def step(self, model_output, timestep, sample, return_dict=True):
            return super().step(model_output, timestep, sample.clone(), return_dict=return_dict)

    pipeline.scheduler = Copying.from_config(pipeline.scheduler.config)


def _case(build, pipeline="WanPipeline", scale=5.0, low=None, **more):
    guidance = dict(guidance_scale=scale, **({"guidance_scale_2": low} if low else {}))
    return Case(
        build=build, pipeline=pipeline, call=SIZE, request=SIZE, guidance=guidance, scale=scale, low_scale=low, **more
    )


I2V = "WanImageToVideoPipeline"
CASES = {
    "wan 2.1 t2v": _case(tiny.wan21_t2v),
    "wan 2.1 t2v, euler": _case(partial(tiny.wan21_t2v, scheduler="euler")),
    "wan 2.1 i2v": _case(tiny.wan21_i2v, I2V, images=1),
    "wan 2.1 flf2v": _case(partial(tiny.wan21_i2v, last_image=True), I2V, images=2),
    "wan 2.1 vace": _case(tiny.wan21_vace, "WanVACEPipeline"),
    "skyreels v2": _case(partial(tiny.skyreels, forcing=False), "SkyReelsV2Pipeline", scale=6.0),
    "skyreels v2, a time per frame": _case(
        tiny.skyreels, "SkyReelsV2DiffusionForcingPipeline", scale=6.0, mend=_copy_before_stepping
    ),
    "wan 2.2 t2v, two experts": _case(tiny.wan22_t2v, scale=4.0, low=3.0),
    "wan 2.2 i2v, two experts": _case(tiny.wan22_i2v, I2V, scale=3.5, low=2.5, images=1),
    "wan 2.2 i2v, two experts, last image": _case(tiny.wan22_i2v, I2V, scale=3.5, low=2.5, images=2),
    "wan 2.2 ti2v": _case(tiny.wan22_ti2v),
    "wan 2.2 ti2v, image": _case(tiny.wan22_ti2v, I2V, images=1, to_latents=_clean_first_frame),
    "wan 2.2 ti2v, image, euler": _case(
        partial(tiny.wan22_ti2v, scheduler="euler"), I2V, images=1, to_latents=_clean_first_frame
    ),
}

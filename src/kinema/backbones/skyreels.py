"""SkyReels V2: Wan's architecture, trained so that every latent frame may have a noise level of its own.

Chen et al., "SkyReels-V2: Infinite-length Film Generative Model", 2025, arXiv:2504.13074. Diffusion forcing (Chen et
al., 2024, arXiv:2407.01392) gives each latent frame its time; here all frames that are not given share the loop's, as
in the pipeline's synchronous mode (ar_step=0). Staggered levels are what a technique makes of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kinema.backbones import wan
from kinema.backbones.folder import Folder
from kinema.backbones.protocol import Conditions, Defaults

PIPELINES = ("SkyReelsV2Pipeline", "SkyReelsV2DiffusionForcingPipeline")
CHECKPOINTS = (
    "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers",
    "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers",
    "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers",
    "Skywork/SkyReels-V2-DF-14B-540P-Diffusers",
    "Skywork/SkyReels-V2-DF-14B-720P-Diffusers",
)


def open_folder(folder: Folder, device: torch.device, dtype: torch.dtype) -> SkyReelsBackbone:
    """Reads a model folder. Raises: KinemaError when a part is missing, damaged or of an unknown kind."""
    from diffusers import SkyReelsV2Transformer3DModel

    parts = wan.open_parts(folder, device, dtype, SkyReelsV2Transformer3DModel)
    return SkyReelsBackbone(folder=folder, device=device, dtype=dtype, **parts)


class SkyReelsBackbone(wan.WanBackbone):
    """As `WanBackbone`; with diffusion forcing t may be (B, T), and a given first frame is a clean latent frame.

    A model told its frame rate in training hears 16 as one, and everything else as the other, as in diffusers.
    """

    def __init__(self, *, folder: Folder, **parts: Any) -> None:
        self.forcing = folder.pipeline == "SkyReelsV2DiffusionForcingPipeline"
        super().__init__(folder=folder, **parts)

    def recommended(self) -> Defaults:
        """What diffusers' pipelines take, 24 fps as the authors: the length and size of the 540P checkpoints.

        The 720P ones were made for 121 frames of 720x1280, and nothing in their folders tells them apart.
        """
        return Defaults(height=544, width=960, num_frames=97, fps=24, num_inference_steps=50, guidance_scale=6.0)

    def is_time_per_frame(self, folder: Folder) -> bool:
        return self.forcing

    def predict(self, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions) -> Tensor:
        forcing: dict[str, Any] = {"enable_diffusion_forcing": True} if self.forcing else {}
        if self.forcing and self.transformer.config.inject_sample_info:
            if len(x) > 1:  # diffusers 0.42 adds the frame rate rightly to a batch of one only
                return torch.cat([self._alone(i, x, t, inputs, conditions) for i in range(len(x))])
            forcing["fps"] = [int(conditions.fps != 16)]
        return self._call(x, self._timestep(t, x, inputs.get("known_frames")), inputs["text"], **forcing)

    def _alone(
        self, i: int, x: Tensor, t: float | Tensor, inputs: Mapping[str, Tensor], conditions: Conditions
    ) -> Tensor:
        """The velocity of sample i in a call of its own, which a cache keeps apart from those of the others."""
        level = t[i : i + 1] if isinstance(t, Tensor) and t.ndim else t
        return self.predict(x[i : i + 1], level, {name: u[i : i + 1] for name, u in inputs.items()}, conditions)

    def _call(self, x: Tensor, times: Tensor, text: Tensor, **forcing: Any) -> Tensor:
        v: Tensor = self.transformer(
            hidden_states=x.to(self.dtype), timestep=times, encoder_hidden_states=text, return_dict=False, **forcing
        )[0]
        return v

    def _per_token(self, clock: Tensor, rows: int, columns: int) -> Tensor:
        # The pipeline hands its network whole timesteps, one a latent frame.
        return clock.long()

"""SigLIP: pictures and sentences in one space, trained with a sigmoid for each pair."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kinema.metrics.extractors.extractor import extractor
from kinema.metrics.extractors.joint import Joint


@extractor("siglip", gives=("frames", "text"), usual="google/siglip2-base-patch16-224")
class Siglip(Joint):
    """Image and text embeddings of SigLIP (Zhai et al. 2023, arXiv 2303.15343) or SigLIP 2 (2025, arXiv 2502.14786).

    Checkpoints of one resolution (model type "siglip"; SigLIP 2 has them as well). Every frame is prepared as the
    checkpoint says (squeezed to a square). Sentences are lower-cased and filled up to the 64 tokens the encoder was
    trained with; longer ones are cut. Vectors are not unit length: who compares them divides by the length first.
    """

    kind = ("siglip", "SiglipModel")

    def words(self, prompt: str, **options: Any) -> dict[str, Tensor]:
        # Without a mask, as it was trained: the filling is read, too.
        found = self.tokenizer([prompt.lower()], padding="max_length", **options)
        return {"input_ids": found["input_ids"]}

"""Families of video models, one file each, behind one face."""

import logging

# What torchao logs where it is imported stands in no one's way: kernels for other GPUs, and torch's newer names.
for _name in ("torchao", "torch.utils._pytree", "diffusers.quantizers.torchao.torchao_quantizer"):
    logging.getLogger(_name).setLevel(logging.ERROR)

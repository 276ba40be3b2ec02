"""Sampling masks: one family per file, all named in :data:`MASKS`, all drawn by :func:`make_mask`."""

from nnunet_kd.recon.physics.masks.drawing import MASKS, MaskFunction, make_mask, seed_of
from nnunet_kd.recon.physics.masks.settings import SamplingSettings

__all__ = ["MASKS", "MaskFunction", "SamplingSettings", "make_mask", "seed_of"]

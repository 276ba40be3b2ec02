"""The images that a generator made of a batch, and what they are compared with."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.networks.acceleration import log_acceleration
from nnunet_kd.recon.training.supervision import magnitude
from nnunet_kd.recon.training.validation import crop_to


class Generated(NamedTuple):
    """Magnitudes, cropped as the target, on the scale of training.

    Attributes:
        samples: ``(P, B, h, w)``.
        baseline: What the samples add detail to, ``(B, h, w)``.
        target: The truth, ``(B, h, w)``.
        condition: The zero-filled image, ``(B, h, w)``.
        log_acceleration: ``(B,)``.
        parts: Of each sample, see :meth:`nnunet_kd.recon.networks.generative.GenerativeNetwork.parts`.
    """

    samples: Tensor
    baseline: Tensor
    target: Tensor
    condition: Tensor
    log_acceleration: Tensor
    parts: Sequence[dict[str, Tensor]]


def gather_images(sample: Sample, parts: Sequence[dict[str, Tensor]], baseline: Tensor) -> Generated:
    """Crop what a generator said of a batch.

    Args:
        sample: The batch.
        parts: Of each sample of the generator.
        baseline: ``(B, H, W)``, complex or real.

    Raises:
        UsageError: If the batch has no target.
    """
    if sample.target is None:
        raise UsageError("expected fully sampled images to learn from, found none; preprocess the data set again")
    size = sample.target.shape[-2:]
    return Generated(
        samples=torch.stack([crop_to(magnitude(part["image"]), size) for part in parts]),
        baseline=crop_to(magnitude(baseline), size),
        target=sample.target,
        condition=crop_to(magnitude(sample.acquisition.image), size),
        log_acceleration=log_acceleration(sample.acquisition.mask),
        parts=parts,
    )

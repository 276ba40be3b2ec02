"""From a slice's k-space to what networks take: mask, acquisition, neighbours, one scale.

Training, validation and prediction make their samples here, so that none sees data that another does not.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import centre_crop
from nnunet_kd.recon.data.measuring import SampleSettings, SliceData, measure, sample_settings, scale_of, volume_scale
from nnunet_kd.recon.data.preprocessed import PreprocessedCases, neighbour_indices
from nnunet_kd.recon.physics.acquisition import Acquisition

__all__ = [
    "PreprocessedCases",
    "Sample",
    "SampleSettings",
    "SliceData",
    "collate",
    "make_sample",
    "neighbour_indices",
    "same_size_batches",
    "sample_settings",
    "volume_scale",
]


class Sample(NamedTuple):
    """One slice as networks take it.

    Attributes:
        acquisition: On the sample's scale; without batch axis in a single sample.
        target: On the same scale, float32, ``([B,] h, w)``; ``None`` where there is none.
        scale: By what everything was divided; multiply the network's image by it before scoring.
    """

    acquisition: Acquisition
    target: Tensor | None
    scale: float | Tensor


def make_sample(
    data: SliceData, settings: SampleSettings, *, seed: int | None = None, volume_scale: float | None = None
) -> Sample:
    """Sample a slice's k-space, reconstruct it by zero-filling and bring everything to one scale.

    Args:
        data: The slice.
        settings: Of the plans.
        seed: Of this sample's mask; ``None`` takes the volume's own mask, the same for all of its slices and each time.
            Plans with a fixed mask, super-resolution and slices with a mask of their own take no notice.
        volume_scale: The scale where it belongs to the volume, see :func:`volume_scale`.

    Raises:
        UsageError: If the mask does not fit the matrix, or all that was measured is zero.
    """
    acquisition = measure(data, settings, seed=seed)
    scale = volume_scale if settings.normalisation.scope == "volume" else None
    if scale is None:
        scale = scale_of(acquisition, data, settings.normalisation)
    if not scale > 0 or not math.isfinite(scale):
        raise UsageError(
            f"{data.name}, kspace: expected measured data, got a scale of {scale}: k-space or mask are all zero, or NaN"
        )
    target = None if data.target is None else torch.from_numpy(_cropped(data.target, settings.crop) / scale)
    scaled = acquisition._replace(
        kspace=acquisition.kspace / scale, image=acquisition.image / scale, context=acquisition.context / scale
    )
    return Sample(scaled, None if target is None else target.float(), scale)


def _cropped(target: NDArray[np.float32], crop: tuple[int, int] | None) -> NDArray[np.float32]:
    if crop is None:
        return target
    return centre_crop(target, (min(crop[0], target.shape[-2]), min(crop[1], target.shape[-1])))


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack samples of one size into a batch.

    Returns:
        The batch; ``scale`` is a float32 tensor ``(B,)``, the mask has its full size where the samples' masks differ.

    Raises:
        UsageError: If their sizes differ; :func:`same_size_batches` makes batches of one size.
    """
    targets = [sample.target for sample in samples if sample.target is not None]
    _check_sizes(
        [(tuple(s.acquisition.kspace.shape), () if s.target is None else tuple(s.target.shape)) for s in samples]
    )
    shape = np.broadcast_shapes(*(sample.acquisition.mask.shape for sample in samples))
    acquisition = Acquisition(
        kspace=torch.stack([s.acquisition.kspace for s in samples]),
        mask=torch.stack([s.acquisition.mask.expand(shape) for s in samples]),
        sensitivities=torch.stack([s.acquisition.sensitivities for s in samples]),
        image=torch.stack([s.acquisition.image for s in samples]),
        context=torch.stack([s.acquisition.context for s in samples]),
    )
    scales = torch.tensor([float(sample.scale) for sample in samples])
    return Sample(acquisition, torch.stack(targets) if len(targets) == len(samples) else None, scales)


def _check_sizes(sizes: Sequence[tuple[tuple[int, ...], ...]]) -> None:
    if len(set(sizes)) > 1:
        kinds = " and ".join(sorted({f"k-space {k} with target {t}" for k, t in sizes}))
        raise UsageError(f"expected slices of one size in a batch, got {kinds}; type a batch size of 1")


def same_size_batches(sizes: Sequence[object], order: Iterable[int], batch_size: int) -> Iterator[list[int]]:
    """Cut an order of slices into batches of one size each.

    Args:
        sizes: Of every slice; anything that compares.
        order: Indices in the order in which they shall come.
        batch_size: Largest batch, >= 1.

    Yields:
        Indices of one batch. A size's last batch may be smaller and comes at the end.

    Example:
        >>> list(same_size_batches("aabab", range(5), 2))
        [[0, 1], [2, 4], [3]]
    """
    waiting: dict[object, list[int]] = {}
    for index in order:
        batch = waiting.setdefault(sizes[index], [])
        batch.append(index)
        if len(batch) == batch_size:
            yield waiting.pop(sizes[index])
    yield from waiting.values()

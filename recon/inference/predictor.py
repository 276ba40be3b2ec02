"""Volumes from k-space: slice by slice, whatever the matrix, with one volume in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import CaseHeader, Volume, read_header, read_volume
from nnunet_kd.recon.data.preprocessed import neighbour_indices
from nnunet_kd.recon.data.samples import Sample, SliceData, collate, make_sample, volume_scale
from nnunet_kd.recon.evaluation.metrics import centre_crop
from nnunet_kd.recon.networks.generative import MEAN_SAMPLES, GenerativeNetwork
from nnunet_kd.recon.physics.acquisition import Acquisition

if TYPE_CHECKING:
    from torch import nn

    from nnunet_kd.recon.data.measuring import SampleSettings


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Networks of one configuration and how slices are made for them.

    Attributes:
        settings: How a slice is measured and scaled, as in training.
        networks: In evaluation mode on ``device``; their images are averaged. None: the zero-filled image itself.
        coils: Numbers of coils that the networks were planned for; empty: any.
        batch_size: Slices at once.
        device: Where the networks are.
        precision: Of the convolutions: ``float32`` or ``bfloat16``.
        n_samples: Of generative networks, whose mean is the reconstruction.
        seed: Of the first sample; the next ones count on from it.
    """

    settings: "SampleSettings"
    networks: Sequence["nn.Module"] = ()
    coils: tuple[int, ...] = ()
    batch_size: int = 4
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "float32"
    n_samples: int = MEAN_SAMPLES
    seed: int = 0

    @property
    def seeds(self) -> range:
        """The seeds of the samples."""
        return range(self.seed, self.seed + self.n_samples)


def check_case(predictor: Predictor, path: Path) -> CaseHeader:
    """Read what a case is and refuse one that the networks were not planned for.

    Raises:
        UsageError: One line naming file and key, if it cannot be read or has another number of coils.
    """
    header = read_header(path)
    if predictor.coils and header.n_coils not in predictor.coils:
        planned = " or ".join(map(str, predictor.coils))
        raise UsageError(
            f"expected k-space of {planned} coils in key 'kspace' of {path}, got {header.n_coils}; plan for such data"
        )
    return header


def slice_data(volume: Volume, index: int, n_neighbours: int) -> SliceData:
    """Return a slice with its neighbours as samples are made of."""
    header = volume.header
    indices = neighbour_indices(index, len(volume.kspace), n_neighbours)
    kspace = volume.kspace[indices]
    return SliceData(
        kspace=kspace,
        name=header.name,
        sensitivities=None if volume.sensitivities is None else volume.sensitivities[indices],
        mask=volume.mask,
        padding=header.padding,
    )


def reconstruct_batch(predictor: Predictor, acquisition: Acquisition) -> torch.Tensor:
    """Return magnitudes ``(B, H, W)``, float32, on the batch's scale, on the CPU; the mean over networks.

    Of generative networks it is the mean over samples, too.
    """
    if not predictor.networks:
        return acquisition.image.abs()
    images = [image.mean(dim=0) for image in _images(predictor, acquisition)]
    return torch.stack(images).mean(dim=0)


def sample_batch(predictor: Predictor, acquisition: Acquisition) -> torch.Tensor:
    """Return the samples of one generative network, magnitudes ``(P, B, H, W)``, float32, on the CPU."""
    (found,) = _images(predictor, acquisition)
    return found


@torch.inference_mode()
def _images(predictor: Predictor, acquisition: Acquisition) -> list[torch.Tensor]:
    """Return the magnitudes of each network, ``(P, B, H, W)``; P is 1 for those that give one image."""
    moved = Acquisition(*(tensor.to(predictor.device) for tensor in acquisition))
    half = predictor.precision == "bfloat16"
    found = []
    with torch.autocast(predictor.device.type, dtype=torch.bfloat16, enabled=half):
        for network in predictor.networks:
            if isinstance(network, GenerativeNetwork):
                images = network.samples(moved, predictor.seeds)
            else:
                images = network(moved)[None]
            found.append((images.abs() if images.is_complex() else images).float().cpu())
    return found


def _samples(predictor: Predictor, volume: Volume) -> Iterator[Sample]:
    settings = predictor.settings
    count = len(volume.kspace)
    scale = None
    if settings.normalisation.scope == "volume":
        scale = volume_scale((slice_data(volume, index, 0) for index in range(count)), settings)
    for index in range(count):
        data = slice_data(volume, index, settings.n_neighbours)
        yield make_sample(data, settings, volume_scale=scale)


def reconstruct(predictor: Predictor, path: Path, progress: Callable[[int], object] = int) -> NDArray[np.float32]:
    """Reconstruct a case.

    Data that were sampled prospectively are taken as they are; of fully sampled ones, what the plans' mask for this
    volume (or the truncation) leaves.

    Args:
        predictor: What reconstructs.
        path: Case file in fastMRI's layout.
        progress: Called with the number of slices that were finished.

    Returns:
        Magnitudes on the scale of the data, ``(S, h, w)``: the matrix, or the plans' crop of it.

    Raises:
        UsageError: If the file cannot be read or its data do not fit; names file and key.
    """
    return _over_slices(predictor, path, progress, reconstruct_batch)


def reconstruct_samples(
    predictor: Predictor, path: Path, progress: Callable[[int], object] = int
) -> NDArray[np.float32]:
    """Return the samples of a case, ``(P, S, h, w)``, in the order of their seeds; else as :func:`reconstruct`.

    Args:
        predictor: Of one generative network.
        path: Case file in fastMRI's layout.
        progress: Called with the number of slices that were finished.

    Raises:
        UsageError: As :func:`reconstruct`.
    """
    return _over_slices(predictor, path, progress, sample_batch)


def _over_slices(
    predictor: Predictor,
    path: Path,
    progress: Callable[[int], object],
    images_of: Callable[[Predictor, Acquisition], torch.Tensor],
) -> NDArray[np.float32]:
    check_case(predictor, path)
    volume = read_volume(path)
    volume = replace(volume, target=None)
    waiting: list[Sample] = []
    images: list[NDArray[np.float32]] = []

    def flush() -> None:
        if waiting:
            batch = collate(waiting)
            found = images_of(predictor, batch.acquisition) * torch.as_tensor(batch.scale)[:, None, None]
            images.append(found.numpy().astype(np.float32, copy=False))
            progress(len(waiting))
            waiting.clear()

    for sample in _samples(predictor, volume):
        waiting.append(sample)
        if len(waiting) == predictor.batch_size:
            flush()
    flush()
    whole = np.concatenate(images, axis=-3)
    if not np.isfinite(whole).all():
        raise UsageError(
            f"the network made NaN or infinity of {path}; train it again, or name another checkpoint with -chk"
        )
    crop = predictor.settings.crop
    return np.ascontiguousarray(whole if crop is None else centre_crop(whole, crop))


def used_mask(predictor: Predictor, path: Path) -> NDArray[np.float32]:
    """Return the mask under which :func:`reconstruct` sees a case, ``(H or 1, W or 1)``."""
    from nnunet_kd.recon.data.measuring import mask_of

    first = read_volume(path, 0)
    return mask_of(slice_data(first, 0, 0), predictor.settings, None)

"""What counts as measured of a slice: mask, padding, zero-filled images, and the scale they set."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import estimate_sensitivities
from nnunet_kd.recon.physics.operators import acquire
from nnunet_kd.recon.physics.sampling import calibration_size, without_padding
from nnunet_kd.recon.planning.plans import Configuration, Normalisation, ReconPlans
from nnunet_kd.recon.planning.sampling import PlannedSampling, planned_sampling

CALIBRATION = 24  # lines; more add detail of the image, which sensitivities, being smooth, do not have
DRAWS = 16  # of masks, whose accelerations may differ


class SliceData(NamedTuple):
    """A slice as it was stored, with its neighbours.

    Attributes:
        kspace: Complex64, ``(1 + 2 n, C, H, W)``: the slice in the middle, n neighbours on each side.
        name: Of the volume; seeds its mask.
        sensitivities: Of the coils, complex64, as ``kspace``; ``None`` for a single coil, and where they are estimated.
        target: Float32, ``(h, w)``; ``None`` where there is none.
        mask: What was sampled, if not everything was: float32, ``(H or 1, W or 1)``. No other mask is drawn then.
        padding: First acquired column and the one after the last; ``None``: all were acquired.
    """

    kspace: NDArray[np.complex64]
    name: str
    sensitivities: NDArray[np.complex64] | None = None
    target: NDArray[np.float32] | None = None
    mask: NDArray[np.float32] | None = None
    padding: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """What of the plans decides on a sample.

    Attributes:
        normalisation: How the scale is found.
        sampling: Masks to draw; ``None`` for super-resolution.
        factor: By which the resolution along H and W is reduced; ``None`` for reconstruction.
        crop: Of the target's centre, ``(h, w)``; ``None`` leaves it whole.
        n_neighbours: Slices on each side.
    """

    normalisation: Normalisation
    sampling: PlannedSampling | None = None
    factor: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None
    n_neighbours: int = 0


def sample_settings(plans: ReconPlans, configuration: Configuration) -> SampleSettings:
    """Gather a configuration's settings.

    Raises:
        UsageError: If sampling or truncation are not as they should be.
    """
    factor = None if plans.truncation is None else truncation_factor(plans.truncation)
    return SampleSettings(
        normalisation=plans.normalisation,
        sampling=None if plans.sampling is None else planned_sampling(plans.sampling),
        factor=factor,
        crop=configuration.crop,
        n_neighbours=configuration.n_neighbours,
    )


def truncation_factor(block: Mapping[str, Any]) -> tuple[float, float]:
    """Read ``{"factor": [fy, fx]}``.

    Raises:
        UsageError: If it is anything else, or a factor lies below 1.
    """
    factor = block.get("factor")
    numbers = isinstance(factor, list | tuple) and all(isinstance(f, int | float) and f >= 1 for f in factor)
    if not numbers or len(factor) != 2:  # type: ignore[arg-type]  # a list by now
        raise UsageError(f"truncation, factor: expected [fy, fx], numbers >= 1, got {factor!r:.80}; plan again")
    return (factor[0], factor[1])  # type: ignore[index]


def measure(data: SliceData, settings: SampleSettings, *, seed: int | None = None) -> Acquisition:
    """Return what of the slice counts as measured, on its own scale, without batch axis; zero-filled neighbours too.

    Args:
        data: The slice.
        settings: Of the plans.
        seed: As in :func:`make_sample`.
    """
    kspace = torch.from_numpy(np.ascontiguousarray(data.kspace))
    maps = data.sensitivities
    if maps is None and kspace.shape[1] > 1:
        maps = sensitivities_of(data, settings)
    mask = torch.from_numpy(mask_of(data, settings, seed))
    slices = acquire(kspace, mask, None if maps is None else torch.from_numpy(np.array(maps)))
    middle = len(kspace) // 2
    neighbours = [slices.image[index] for index in range(len(kspace)) if index != middle]
    context = torch.stack(neighbours) if neighbours else slices.image[:0]
    return Acquisition(
        kspace=slices.kspace[middle],
        mask=slices.mask[middle],
        sensitivities=slices.sensitivities[middle],
        image=slices.image[middle],
        context=context,
    )


def mask_of(data: SliceData, settings: SampleSettings, seed: int | None) -> NDArray[np.float32]:
    """Return the slice's mask, float32, ``(H or 1, W or 1)``.

    Raises:
        UsageError: If its own mask does not fit the matrix.
    """
    shape = data.kspace.shape[-2:]
    if settings.factor is not None:
        mask = truncation_mask(shape, settings.factor)
    elif data.mask is not None:
        mask = np.atleast_2d(data.mask).astype(np.float32)
        if any(n not in (1, full) for n, full in zip(mask.shape, shape, strict=True)):
            raise UsageError(f"{data.name}, mask: expected it to fit the matrix {shape}, got {mask.shape}")
    elif settings.sampling is not None:
        mask = settings.sampling.draw(shape, data.name, seed)
    else:
        mask = np.ones((1, 1), dtype=np.float32)
    if data.padding is None:
        return mask
    # those columns are zero whatever the patient looks like, so data consistency with them would be wrong
    columns = torch.from_numpy(mask).expand(-1, shape[-1])
    acquired: NDArray[np.float32] = without_padding(columns, data.padding).numpy()
    return acquired


def sensitivities_of(data: SliceData, settings: SampleSettings) -> NDArray[np.complex64]:
    """Estimate the coils' sensitivities from the lines about the centre that every mask of the plans samples.

    Args:
        data: The slice and its neighbours, several coils.
        settings: Of the plans.

    Returns:
        Complex64, as ``data.kspace``.
    """
    n_lines = calibration_lines(data, settings)
    kspace = torch.from_numpy(np.ascontiguousarray(data.kspace))
    found: NDArray[np.complex64] = estimate_sensitivities(kspace, n_calibration=n_lines).numpy()
    return found


def calibration_lines(data: SliceData, settings: SampleSettings) -> int:
    """Return how many lines about the centre can be counted on, at most :data:`CALIBRATION`.

    Raises:
        UsageError: If the centre itself is not sampled.
    """
    if settings.sampling is None or data.mask is not None:
        masks = [mask_of(data, settings, None)]
    else:  # accelerations may differ from draw to draw
        masks = [mask_of(data, settings, seed) for seed in range(DRAWS)]
    n_lines = min([CALIBRATION, *(calibration_size(mask) for mask in masks), *data.kspace.shape[-2:]])
    if n_lines < 1:
        raise UsageError(f"{data.name}: expected masks that sample the centre, to estimate the coils' sensitivities")
    return int(n_lines)


def truncation_mask(shape: tuple[int, ...], factor: tuple[float, float]) -> NDArray[np.float32]:
    """Return the mask of the k-space centre that super-resolution leaves, ``(H, W)``."""
    from nnunet_kd.recon.physics.truncation import truncate_kspace

    _, mask = truncate_kspace(torch.ones(1, 1, *shape, dtype=torch.complex64), factor)
    kept: NDArray[np.float32] = mask.float().reshape(mask.shape[-2:]).numpy()
    return kept


def scale_of(acquisition: Acquisition, data: SliceData, normalisation: Normalisation) -> float:
    """Return the slice's scale; from measured data only, but for the published ``reference_max``."""
    if normalisation.uses_reference and data.mask is None:
        middle = len(data.kspace) // 2
        one = data._replace(
            kspace=data.kspace[middle][None],
            sensitivities=None if data.sensitivities is None else data.sensitivities[middle][None],
        )
        whole = measure(one, SampleSettings(normalisation=normalisation))
        return float(whole.image.abs().max())
    magnitude = acquisition.image.abs()
    if normalisation.scheme == "percentile":
        return float(np.percentile(magnitude.numpy(), normalisation.percentile))
    return float(magnitude.max())


def volume_scale(slices: Iterable[SliceData], settings: SampleSettings) -> float:
    """Return the largest scale of a volume's slices, under the volume's own mask."""
    return max(scale_of(measure(data, settings), data, settings.normalisation) for data in slices)

"""How a slice was measured, for pictures: found again from what was recorded beside its reconstruction."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import root_sum_of_squares, to_images
from nnunet_kd.recon.data.cases import read_header, read_volume
from nnunet_kd.recon.data.measuring import SampleSettings
from nnunet_kd.recon.evaluation.invention.masks import known_sampling, volume_mask
from nnunet_kd.recon.evaluation.pictures import Sampling, plot_case
from nnunet_kd.recon.evaluation.summary import STRUCTURE
from nnunet_kd.recon.physics.sampling import apply_mask, true_acceleration
from nnunet_kd.recon.planning.plan_blocks import Normalisation


def measured_slice(reference: Path, folders: Mapping[str, Path], number: int) -> Sampling | None:
    """Return what the reconstructions of a slice were made from.

    Args:
        reference: Case file with k-space.
        folders: Of reconstructions, by arm; where masks differ, the first arm's are returned under its name.
        number: Of the slice.

    Returns:
        ``None`` if the file has no k-space, or nothing is known about the masks of the first arm.
    """
    found = {arm: _sampling(reference, folder, number) for arm, folder in folders.items()}
    arm, first = next(iter(found.items()))
    if first is None:
        return None
    agree = all(other is not None and np.array_equal(other.mask, first.mask) for other in found.values())
    return first if agree else replace(first, arm=arm)


def draw_middle(summary: Mapping[str, Any], file: Path, *, metric: str, crop: int | None = None) -> None:
    """Draw the middle slice of the case with the median score, so that nobody chose it.

    Args:
        summary: As :func:`nnunet_kd.recon.evaluation.summary.summarise` returns it.
        file: PNG to write.
        metric: Whose median.
        crop: Side of the square that is shown.
    """
    cases = sorted(summary["metric_per_case"], key=lambda case: case["metrics"][STRUCTURE][metric])
    chosen = cases[len(cases) // 2]
    reference, prediction = Path(chosen["reference_file"]), Path(chosen["prediction_file"])
    arm = prediction.parent.name
    sampled = partial(measured_slice, reference, {arm: prediction.parent})
    plot_case(reference, {arm: prediction}, file, crop=crop, sampled=sampled)


def _sampling(reference: Path, folder: Path, number: int) -> Sampling | None:
    try:
        header = read_header(reference)
        settings = known_sampling(folder, reference.parent, asked={}, acceleration=None)
        if settings is None and not header.has_mask:
            return None
        case = read_volume(reference, number)
        mask = volume_mask(case, settings or SampleSettings(normalisation=Normalisation()))
    except UsageError:  # a picture's side column is no reason to stop
        return None
    kspace = apply_mask(torch.from_numpy(case.kspace[0]), torch.from_numpy(mask)).numpy()
    whole = torch.from_numpy(np.ascontiguousarray(np.broadcast_to(mask, header.matrix)))
    return Sampling(
        kspace=np.sqrt((np.abs(kspace) ** 2).sum(axis=0)),
        mask=mask,
        image=_zero_filled(kspace),
        acceleration=float(true_acceleration(whole, padding=header.padding)),
    )


def _zero_filled(kspace: NDArray[np.complex64]) -> NDArray[np.float32]:
    image: NDArray[np.float32] = root_sum_of_squares(to_images(kspace))
    return image

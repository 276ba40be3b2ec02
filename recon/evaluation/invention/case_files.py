"""One case of one arm, from its files to its numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.case_header import KSPACE
from nnunet_kd.recon.data.cases import read_volume
from nnunet_kd.recon.data.hdf5 import opened
from nnunet_kd.recon.data.measuring import SampleSettings
from nnunet_kd.recon.evaluation.invention.detail import sample_mean
from nnunet_kd.recon.evaluation.invention.masks import volume_mask
from nnunet_kd.recon.evaluation.invention.measures import CaseResult, Measured, measure_volume, measured_of
from nnunet_kd.recon.evaluation.invention.scan import ScanSettings, check_size
from nnunet_kd.recon.evaluation.volumes import fitting, read_prediction, read_target, slice_axis

Images = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """How the cases of an arm are read and measured.

    Attributes:
        reference: File of each case.
        samples: For each sample the file of each case.
        base: The same of the baseline; ``None`` where there is none, or the arm is it.
        sampling: What draws the masks; ``None`` if nothing is known.
        metrics: Names of scores.
        crop: Side of the square that is compared.
        scan: Of the local ring correlation.
    """

    reference: Mapping[str, Path]
    samples: Sequence[Mapping[str, Path]]
    base: Sequence[Mapping[str, Path]] | None
    sampling: SampleSettings | None
    metrics: tuple[str, ...]
    crop: int | None
    scan: ScanSettings


class CaseImages(NamedTuple):
    """Volumes on the same pixels, ``(S, H, W)`` each.

    Attributes:
        target: The truth.
        samples: Of the arm.
        base: The mean of the baseline's samples.
    """

    target: Images
    samples: list[Images]
    base: Images | None


def read_images(job: CaseJob, case: str) -> CaseImages:
    """Read target, samples and baseline of a case.

    Raises:
        UsageError: If a file cannot be read or volumes do not fit.
    """
    reference = job.reference[case]
    whole, axis = read_target(reference), slice_axis(reference)

    def read(files: Mapping[str, Path]) -> tuple[Images, Images]:
        return fitting(whole, read_prediction(files[case], axis), job.crop, files[case])

    pairs = [read(files) for files in job.samples]
    base = None if job.base is None else sample_mean([read(files)[1] for files in job.base])
    return CaseImages(target=pairs[0][0], samples=[found for _, found in pairs], base=base)


def check_case(job: CaseJob, case: str) -> None:
    """Read every file of a case once, so that none fails after hours.

    Raises:
        UsageError: One line, as :func:`read_images`, or if slices are smaller than a patch of the scan.
    """
    images = read_images(job, case)
    check_size(images.target.shape, job.scan)
    if float(images.target.max()) <= 0:
        raise UsageError(f"expected a signal in the target of '{job.reference[case]}', all is 0")


def read_measured(job: CaseJob, case: str) -> Measured | None:
    """Return k-space and mask of a case; ``None`` if its file has no full k-space, or the mask is not known.

    Without full k-space the phase is not known that magnitudes need.
    """
    file = job.reference[case]
    if job.sampling is None or file.name.endswith((".nii", ".nii.gz")):
        return None
    with opened(file) as content:
        if KSPACE not in content:
            return None
    volume = read_volume(file)
    return None if volume.header.has_mask else measured_of(volume, volume_mask(volume, job.sampling))


def measure_case(job: CaseJob, case: str) -> CaseResult:
    """Measure one case; see :func:`nnunet_kd.recon.evaluation.invention.measures.measure_volume`."""
    images = read_images(job, case)
    return measure_volume(
        images.target,
        images.samples,
        base=images.base,
        measured=read_measured(job, case),
        metrics=job.metrics,
        settings=job.scan,
    )

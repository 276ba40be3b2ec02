"""Calgary-Campinas multi-channel brain data: hybrid ``(x, ky, kz)`` k-space of 12 or 32 coils.

https://sites.google.com/view/calgary-campinas-dataset: folders ``Train``, ``Val``, ``Test-R=5``, ``Test-R=10``; each
file has ``kspace`` ``(S, ky, kz, 2 C)`` whose last axis alternates real and imaginary parts. The organisers
reconstruct with a plain ``ifft2`` and take the magnitude (https://github.com/rmsouza01/MC-MRI-Rec,
``Modules/zero_filled_rec.py``), which does not tell whether k-space is stored centred: the strongest quarter decides.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.arrays import centre_crop, root_sum_of_squares, to_images
from nnunet_kd.recon.data.cases import ENDING, Volume, make_volume
from nnunet_kd.recon.data.dataset import MEASURED
from nnunet_kd.recon.data.formats.source import (
    TEST,
    TRAIN,
    UNSPLIT,
    VAL,
    ReadOptions,
    SourceCase,
    SourceFormat,
    check_names,
    files_below,
)
from nnunet_kd.recon.data.hdf5 import dataset_of, opened

_LAYOUT = "a folder with Calgary-Campinas' Train, Val, Test-R=5, ... or with .h5 files"
_EXAM = re.compile(r"(e\d+)s\d+_")  # e14089s3_P53248.7: exam, series, raw file


def find(source: Path, options: ReadOptions) -> list[SourceCase]:  # noqa: ARG001  # as all formats have it
    """List the volumes; those of test folders carry the acceleration in their names.

    Raises:
        UsageError: If there are none or one twice.
    """
    return check_names([_case(file) for file in files_below(source, [ENDING])], source, _LAYOUT)


def _case(file: Path) -> SourceCase:
    folder = file.parent.name.lower()
    parts = {"train": TRAIN, "val": VAL, "test": TEST}
    part = next((part for start, part in parts.items() if folder.startswith(start)), UNSPLIT)
    name = file.name.removesuffix(ENDING)
    exam = _EXAM.match(name)
    acceleration = re.search(r"r=(\d+)", folder)
    return SourceCase(
        name=f"{name}_R{acceleration[1]}" if acceleration else name,
        files=(file,),
        part=part,
        patient=exam[1] if exam else name,
    )


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume: centred k-space, and the root sum of squares as target where it is fully sampled.

    Columns at both ends that are zero everywhere (partial Fourier) become the padding.

    Raises:
        UsageError: If the key is missing or wrong; names file and key.
    """
    path = case.files[0]
    with opened(path) as file:
        stored = dataset_of(file, "kspace", n_axes=(4,), kinds="f", path=path)
        if stored.shape[-1] % 2:
            raise UsageError(f"expected real and imaginary parts in key 'kspace' of {path}, got {stored.shape}")
        numbers = np.asarray(stored, np.float32)
    kspace = centred(np.moveaxis(numbers[..., ::2] + 1j * numbers[..., 1::2], -1, 1))
    sampled: NDArray[np.bool_] = np.asarray(kspace.any(axis=(0, 1)))
    padding = _padding(sampled, path)
    if case.part == TEST and not sampled[:, padding[0] : padding[1]].all():
        return make_volume(
            case.name,
            kspace,
            patient=case.patient,
            mask=sampled,
            padding=np.asarray(padding),
            source_format="calgary_campinas",
        )
    target = root_sum_of_squares(to_images(kspace))
    target = target if options.crop is None else centre_crop(target, options.crop)
    return make_volume(
        case.name,
        kspace,
        patient=case.patient,
        target=target,
        padding=np.asarray(padding),
        source_format="calgary_campinas",
    )


def centred(stored: NDArray[Any]) -> NDArray[np.complex64]:
    """Turn k-space for a plain ``ifft2`` into centred k-space; what was zero stays exactly zero.

    Args:
        stored: ``(..., H, W)``, with the zero frequency in a corner or in the centre.

    Returns:
        ``(..., H, W)``: its centred inverse transform has the magnitude of ``ifft2(stored)``, times ``sqrt(H W)``.
    """
    height, width = stored.shape[-2:]
    # slice by slice: a volume fills a gigabyte
    energy: NDArray[Any] = sum((np.abs(one) ** 2).reshape(-1, height, width).sum(axis=0) for one in stored)
    middle = (slice(height // 4, height - height // 4), slice(width // 4, width - width // 4))
    is_centred = energy[middle].sum() > energy.sum() / 2
    kspace = stored if is_centred else np.fft.fftshift(stored, axes=(-2, -1))
    for axis, length in ((-2, height), (-1, width)):
        frequency = np.arange(length) - length // 2
        # the centred transform has the image's origin in the middle, a plain one in the corner
        ramp = np.exp(2j * np.pi * frequency * (length // 2) / length).astype(np.complex64)
        kspace = kspace * (ramp[:, None] if axis == -2 else ramp)
    return kspace


def _padding(sampled: NDArray[np.bool_], path: Path) -> tuple[int, int]:
    columns = np.flatnonzero(sampled.any(axis=0))
    if not len(columns):
        raise UsageError(f"expected a signal in key 'kspace' of {path}, all is 0")
    return int(columns[0]), int(columns[-1]) + 1


FORMAT = SourceFormat(
    name="calgary_campinas",
    summary="Calgary-Campinas' brain HDF5 files, 12 or 32 coils, (x, ky, kz)",
    layout=_LAYOUT,
    kspace=MEASURED,
    find=find,
    read=read,
    options=("crop",),
    reference="https://doi.org/10.3389/fnins.2022.919186",
)

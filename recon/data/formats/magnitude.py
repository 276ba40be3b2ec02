"""Magnitude images, NIfTI or HDF5, turned into retrospective k-space.

The k-space of a magnitude is conjugate-symmetric and free of the scanner's phase and noise (an "inverse crime"):
results on it are labelled so and say little about measured data. With a smooth simulated phase it is not symmetric.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import NIFTI, is_nifti
from nnunet_kd.recon.data.arrays import centre_crop, fit_offset, fitted, to_kspace
from nnunet_kd.recon.data.cases import Volume, make_volume
from nnunet_kd.recon.data.dataset import MAGNITUDE_DERIVED
from nnunet_kd.recon.data.formats.source import (
    ReadOptions,
    SourceCase,
    SourceFormat,
    check_names,
    files_below,
)
from nnunet_kd.recon.data.hdf5 import dataset_of, opened
from nnunet_kd.recon.data.nifti_slices import moved_affine, read_nifti
from nnunet_kd.recon.data.phantoms import smooth_phase

_HDF5 = (".h5", ".hdf5")
_LAYOUT = f"a folder with magnitude images, {', '.join((*NIFTI, *_HDF5))}"
_CHANNEL = re.compile(r"_\d{4}$")  # nnU-Net's


def find(source: Path, options: ReadOptions) -> list[SourceCase]:  # noqa: ARG001  # as all formats have it
    """List the volumes; a name's part before the first ``_`` is the patient.

    Raises:
        UsageError: If there are none or one twice.
    """
    files = files_below(source, (*NIFTI, *_HDF5))
    return check_names([_case(file) for file in files], source, _LAYOUT)


def _case(file: Path) -> SourceCase:
    name = re.sub(r"\.(nii|nii\.gz|h5|hdf5)$", "", file.name, flags=re.IGNORECASE)
    return SourceCase(name=name, files=(file,), patient=_CHANNEL.sub("", name).partition("_")[0])


def read(case: SourceCase, options: ReadOptions) -> Volume:
    """Read a volume and transform it; empty slices at both ends are left out.

    A phase that is asked for is the same in all slices and drawn from the case's name.

    The attributes ``first_slice``, ``source_slices`` and ``source_matrix`` tell what was left out; of NIfTI files
    ``affine`` (16 numbers) is the target's and ``slice_axis`` the axis along which its slices lay.

    Raises:
        UsageError: If the file or key is damaged, missing or no magnitude; names file and key.
    """
    path = case.files[0]
    affine = None
    if is_nifti(path):
        images, affine = read_nifti(path, options.axis)
    else:
        images = _read_hdf5(path, options.key)
    where = str(path) if is_nifti(path) else f"key '{options.key}' of {path}"
    first, last = _signal(images, where)
    whole = images.shape
    matrix = options.matrix or (whole[1], whole[2])
    images = fitted(images[first : last + 1], matrix)
    empty = [first + number for number, one in enumerate(images) if not one.any()]
    if empty:
        raise UsageError(f"expected a signal in every slice of {where}, all is 0 in slice {empty[0]} of {matrix}")
    target = images if options.crop is None else centre_crop(images, options.crop)
    size = (target.shape[1], target.shape[2])
    attributes: dict[str, Any] = {
        "first_slice": first,
        "source_slices": whole[0],
        "source_matrix": np.asarray(whole[1:]),
    }
    if affine is not None:
        starts = [fit_offset(n, m) + (m - t) // 2 for n, m, t in zip(whole[1:], matrix, size, strict=True)]
        moved = moved_affine(affine, (first, starts[0], starts[1]), options.axis)
        attributes |= {"affine": moved.ravel(), "slice_axis": options.axis}
    source = "nifti" if affine is not None else "hdf5"
    kspace = to_kspace(images * _phase_factor(case.name, matrix, options.phase))
    return make_volume(case.name, kspace, patient=case.patient, target=target, source_format=source, **attributes)


def _phase_factor(name: str, matrix: tuple[int, int], largest: float) -> NDArray[np.complex64] | float:
    if not largest:
        return 1.0
    phase = smooth_phase(matrix, largest, np.random.default_rng(zlib.crc32(name.encode())))
    factor: NDArray[np.complex64] = np.exp(1j * phase).astype(np.complex64)
    return factor


def _read_hdf5(path: Path, key: str) -> NDArray[np.float32]:
    with opened(path) as file:
        stored = dataset_of(file, key, n_axes=(2, 3), kinds="fiu", path=path)
        array = np.asarray(stored, np.float32)
    return array[None] if array.ndim == 2 else array


def _signal(images: NDArray[np.float32], where: str) -> tuple[int, int]:
    """Return the first and the last slice with a signal."""
    if not np.isfinite(images).all():
        raise UsageError(f"expected finite numbers in {where}, found NaN or infinity")
    if images.min() < 0:
        raise UsageError(f"expected magnitudes, which are not negative, in {where}, found {images.min():.4g}")
    found = np.flatnonzero(images.any(axis=(1, 2)))
    if not len(found):
        raise UsageError(f"expected a signal in {where}, all is 0")
    return int(found[0]), int(found[-1])


FORMAT = SourceFormat(
    name="magnitude",
    summary="magnitude images, NIfTI or HDF5, turned into retrospective k-space",
    layout=_LAYOUT,
    kspace=MAGNITUDE_DERIVED,
    find=find,
    read=read,
    options=("key", "axis", "matrix", "crop", "phase"),
)

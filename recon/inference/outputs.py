"""Reconstructions as files: fastMRI's HDF5, or NIfTI with the geometry of the images they come from."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.data.cases import CaseHeader
from nnunet_kd.recon.data.hdf5 import written

KEY = "reconstruction"
ENDINGS = {"hdf5": ".h5", "nifti": ".nii.gz"}


def output_format(header: CaseHeader) -> str:
    """Return in which format a case's reconstruction is written: that of what it was converted from."""
    return "nifti" if header.attributes.get("affine") is not None else "hdf5"


def output_file(folder: Path, name: str, kind: str) -> Path:
    """Return the file of a case's reconstruction."""
    return folder / f"{name}{ENDINGS[kind]}"


def write_reconstruction(file: Path, volume: NDArray[np.float32], header: CaseHeader) -> None:
    """Write a volume ``(S, h, w)``; the file gets its name when it is whole.

    HDF5 holds the one data set ``reconstruction``, as fastMRI's submissions do. NIfTI has the axes (x, y, z) of the
    images that the k-space was made of, and their affine, shifted by what was cropped.

    Args:
        file: Ends in ``.h5`` or ``.nii.gz``.
        volume: Magnitudes.
        header: Of the case.
    """
    if file.name.endswith(".h5"):
        with written(file) as content:
            content[KEY] = volume
        return
    _write_nifti(file, volume, header.attributes, header.matrix)


def _write_nifti(
    file: Path, volume: NDArray[np.float32], attributes: Mapping[str, Any], matrix: tuple[int, int]
) -> None:
    import nibabel

    affine = np.asarray(attributes["affine"], dtype=np.float64).reshape(4, 4)
    top, left = ((full - part) // 2 for full, part in zip(matrix, volume.shape[-2:], strict=True))
    moved = affine.copy()
    moved[:3, 3] = affine[:3, :3] @ np.array([left, top, 0.0]) + affine[:3, 3]
    temporary = file.with_name(f".{file.name.removesuffix('.nii.gz')}.{os.getpid()}.nii.gz")
    try:
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(volume.T), moved), temporary)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)

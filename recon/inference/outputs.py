"""Reconstructions as files: fastMRI's HDF5, or NIfTI with the geometry of the images they come from."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.recon.data.cases import CaseHeader
from nnunet_kd.recon.data.hdf5 import written
from nnunet_kd.recon.data.nifti_slices import moved_affine, write_nifti

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
    attributes = header.attributes
    axis = int(attributes.get("slice_axis", 2))
    affine = np.asarray(attributes["affine"], dtype=np.float64).reshape(4, 4)
    target = header.target_shape or header.matrix  # what the affine is of
    top, left = ((full - part) // 2 for full, part in zip(target, volume.shape[-2:], strict=True))
    write_nifti(file, volume, affine=moved_affine(affine, (0, top, left), axis), axis=axis)

"""Volumes to be compared: predictions, and the targets that lie beside k-space."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import some
from nnunet_kd.recon.data.case_header import MULTI_COIL_TARGET, SINGLE_COIL_TARGET
from nnunet_kd.recon.data.hdf5 import dataset_of, opened
from nnunet_kd.recon.data.nifti_slices import read_nifti

PREDICTION = "reconstruction"
TARGETS = (MULTI_COIL_TARGET, SINGLE_COIL_TARGET)
ENDINGS = (".h5", ".hdf5", ".nii.gz", ".nii")


def volume_files(folder: Path) -> dict[str, Path]:
    """Return the file of each case in a folder, by the case's name, in the order of names.

    Raises:
        UsageError: If there is no such folder or no volume in it, or one case has two files.
    """
    if not folder.is_dir():
        raise UsageError(f"expected a folder of volumes ({', '.join(ENDINGS)}), found none at '{folder}'")
    found: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        ending = next((ending for ending in ENDINGS if file.name.endswith(ending)), None)
        if ending is None or file.name.startswith(".") or not file.is_file():
            continue
        case = file.name.removesuffix(ending)
        if case in found:
            raise UsageError(f"expected one file per case in '{folder}', got {found[case].name} and {file.name}")
        found[case] = file
    if not found:
        raise UsageError(f"expected volumes ({', '.join(ENDINGS)}) in '{folder}', found none")
    return found


def read_volume_of(file: Path, keys: Sequence[str], axis: int = 2) -> NDArray[np.float32]:
    """Read a volume of magnitudes, ``(S, H, W)``.

    Args:
        file: HDF5 or NIfTI.
        keys: Names in an HDF5 file; the first that is there counts.
        axis: Of a NIfTI volume, along which its slices lie.

    Raises:
        UsageError: One line, naming file and key, if it cannot be read or is no such volume.
    """
    volume = read_nifti(file, axis)[0] if file.name.endswith((".nii", ".nii.gz")) else _read_hdf5(file, keys)
    if not np.isfinite(volume).all():
        raise UsageError(f"expected finite values in '{file}', found others")
    return volume.astype(np.float32, copy=False)


def _read_hdf5(file: Path, keys: Sequence[str]) -> NDArray[Any]:
    with opened(file) as content:
        key = next((key for key in keys if key in content), None)
        if key is None:
            there = ", ".join(sorted(content)) or "none"
            raise UsageError(f"expected the key {' or '.join(keys)} in '{file}', found {there}")
        return np.asarray(dataset_of(content, key, n_axes=(3,), kinds="fiu", path=file))


def slice_axis(reference: Path) -> int:
    """Return the axis along which slices lie in NIfTI volumes of a case, as its file says; 2 where it says nothing."""
    if reference.name.endswith((".nii", ".nii.gz")):
        return 2
    with opened(reference) as content:
        return int(content.attrs.get("slice_axis", 2))


def read_prediction(file: Path, axis: int = 2) -> NDArray[np.float32]:
    """Read a reconstruction, ``(S, H, W)``; see :func:`read_volume_of`."""
    return read_volume_of(file, (PREDICTION,), axis)


def read_target(file: Path) -> NDArray[np.float32]:
    """Read the truth of a case, ``(S, H, W)``; a file of predictions is a truth, too, where it is given as one."""
    return read_volume_of(file, (*TARGETS, PREDICTION))


def fitting(
    target: NDArray[np.float32], prediction: NDArray[np.float32], crop: int | None, file: Path
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return both volumes on the same pixels: cut to the smaller of both, or to ``crop``, about the centre.

    Args:
        target: ``(S, H, W)``.
        prediction: ``(S, h, w)``.
        crop: Side of a square, ``None`` for the target's own size.
        file: The prediction's, for the message.

    Raises:
        UsageError: If slices differ in number or the prediction is smaller than what is compared.
    """
    from nnunet_kd.recon.evaluation.metrics import centre_crop

    size = target.shape[-2:] if crop is None else (crop, crop)
    true = centre_crop(target, size)
    found = centre_crop(prediction, true.shape[-2:])
    if found.shape != true.shape:
        raise UsageError(f"expected slices, rows, columns {true.shape} in '{file}', got {prediction.shape}")
    return true, found


def check_same_cases(reference: Mapping[str, Path], found: Iterable[str], whose: str) -> None:
    """Refuse predictions that lack a case of the reference.

    Raises:
        UsageError: Names what is missing.
    """
    known = set(found)
    missing = [case for case in reference if case not in known]
    if missing:
        raise UsageError(f"expected a volume of every case of the reference in {whose}, found none of {some(missing)}")

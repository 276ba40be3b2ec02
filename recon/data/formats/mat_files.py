"""MATLAB files of either kind: up to version 7 through SciPy, from 7.3 on they are HDF5."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require
from nnunet_kd.recon.data.hdf5 import opened


def read_mat(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Read arrays from a MATLAB file.

    Args:
        path: The file.
        keys: Names of variables that must be there.
        optional: Names of others that are read where they are there.

    Returns:
        The arrays, with MATLAB's order of axes.

    Raises:
        UsageError: If the file is missing or damaged, or a variable is missing or holds no numbers.
    """
    if not path.is_file():
        raise UsageError(f"expected a MATLAB file at {path}, found none; check the path")
    found = _read_hdf5(path, (*keys, *optional)) if _is_hdf5(path) else _read_older(path, (*keys, *optional))
    for key in keys:
        if key not in found:
            raise UsageError(f"expected the key '{key}' in {path}, found: {', '.join(found) or 'none of ours'}")
    for key, array in found.items():
        if array.dtype.kind not in "cfiu":
            raise UsageError(f"expected numbers in key '{key}' of {path}, got {array.dtype}")
    return found


def _is_hdf5(path: Path) -> bool:
    return bool(require("h5py").is_hdf5(path))


def _read_older(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    from scipy.io import loadmat

    try:
        content = loadmat(path, variable_names=list(keys))
    # a damaged file makes the reader raise whatever its bytes lead to
    except Exception as error:
        raise UsageError(
            f"cannot read {path} as MATLAB file ({' '.join(str(error).split())}); copy it again"
        ) from error
    return {key: np.asarray(content[key]) for key in keys if key in content}


def _read_hdf5(path: Path, keys: Sequence[str]) -> dict[str, NDArray[Any]]:
    with opened(path) as file:
        return {key: _complex(np.asarray(file[key])).T for key in keys if key in file}


def _complex(stored: NDArray[Any]) -> NDArray[Any]:
    """MATLAB stores complex numbers as pairs named real and imag, which h5py leaves as they are."""
    return stored["real"] + 1j * stored["imag"] if stored.dtype.names == ("real", "imag") else stored

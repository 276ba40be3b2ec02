"""HDF5, which fastMRI's files are; the library is an extra."""

from typing import Any

from nnunet_kd.errors import UsageError


def load_h5py() -> Any:  # noqa: ANN401  # a module
    """Return the library that reads HDF5.

    Raises:
        UsageError: If it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            "expected the library h5py for HDF5 files, found none; type: pip install 'nnunet-kd[recon]'"
        ) from error
    return h5py

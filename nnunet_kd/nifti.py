"""NIfTI files that are whole: what nibabel and ITK do not notice by themselves."""

import gzip
from math import prod
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20
NIFTI = (".nii", ".nii.gz")


def is_nifti(file: Path) -> bool:
    """Tell by the name whether a file is NIfTI."""
    return file.name.lower().endswith(NIFTI)


def n_bytes(file: Path) -> int:
    """Return the size of a file, unpacked where it is compressed.

    A compressed file is read to its end, where the checksum is: image readers stop before it.

    Raises:
        OSError, EOFError, zlib.error: If the file is truncated or its checksum is wrong.
    """
    if not file.name.lower().endswith(".gz"):
        return file.stat().st_size
    size = 0
    with gzip.open(file) as stream:
        while block := stream.read(_BLOCK):
            size += len(block)
    return size


def check_whole(file: Path) -> None:
    """Check that a NIfTI file holds all voxels that its header names, and finite ones.

    ITK fills what is missing with noise or zeros, and reads NaN and infinity as 0.

    Raises:
        ValueError: If voxels are missing or not finite.
        Exception: Whatever nibabel and gzip raise for a damaged file.
    """
    import nibabel  # only where files are read, so that --help stays fast
    import numpy as np

    proxy: Any = nibabel.load(file).dataobj  # type: ignore[attr-defined]
    expected = proxy.offset + prod(proxy.shape) * proxy.dtype.itemsize
    found = n_bytes(file)
    if found < expected:
        raise ValueError(f"truncated: expected {expected} bytes, got {found}")
    if proxy.dtype.kind == "f" and not np.isfinite(np.asanyarray(proxy)).all():
        raise ValueError("has values that are not finite")

"""Whether an image file is whole, cheaply: ITK fills what a truncated file lacks, and writes one on a full disk."""

import gzip
import struct
import zlib
from math import inf, prod
from pathlib import Path

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import check_whole, is_nifti

_FLOATING = {16: "<f4", 64: "<f8", 1536: ""}  # NIfTI's codes of types that may hold NaN, and what numpy calls them
_HEADER = 352


def check_file(file: Path) -> None:
    """Check that a file is there and, where it is NIfTI, whole and finite, with spacings above 0.

    Integer NIfTI files are compared by their header with the size that gzip notes at the end, without unpacking them;
    floating ones are read. What does not fit at once is left to :func:`nnunet_kd.nifti.check_whole`, whose library
    takes a while to load.

    Raises:
        UsageError: One line that says what is wrong.
    """
    if not file.is_file():
        raise UsageError(f"expected an image at {file}, found none; check the name and the ending")
    if not is_nifti(file):
        return
    try:
        if not _is_plainly_whole(file):
            check_whole(file)
    except Exception as error:  # whatever nibabel and gzip raise for a damaged file
        text = " ".join(str(error).split())[:160]
        raise UsageError(
            f"cannot read {file}: {text or type(error).__name__}; copy the file again or repair it"
        ) from error


def check_written(file: Path) -> None:
    """Check that what was just written is whole: of NIfTI files, ITK does not report that the disk is full.

    Raises:
        OSError: If it is not.
    """
    try:
        check_file(file)
    except UsageError as error:
        raise OSError(f"only {file.stat().st_size} bytes were taken") from error


def _is_plainly_whole(file: Path) -> bool:
    packed = file.name.lower().endswith(".gz")
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            header = stream.read(_HEADER)
        if len(header) < _HEADER or struct.unpack_from("<i", header)[0] != 348:  # other byte order, or NIfTI-2
            return False
        n_axes, *sizes = struct.unpack_from("<8h", header, 40)
        code, n_bits = struct.unpack_from("<2h", header, 70)
        start = int(struct.unpack_from("<f", header, 108)[0])
        spacing = struct.unpack_from("<3f", header, 80)
        # nibabel and ITK take 1 mm instead; of a single slice it does not matter
        if not all(0 < abs(value) < inf or n == 1 for value, n in zip(spacing, sizes[:n_axes], strict=False)):
            raise ValueError(f"expected spacings above 0 in its header, got {spacing}")
        expected = start + prod(sizes[:n_axes]) * n_bits // 8
        if code in _FLOATING:
            return _is_finite(file, _FLOATING[code], start, expected)
        return bool(_unpacked_size(file, packed=packed) == expected)
    except (OSError, EOFError, zlib.error, struct.error):
        return False


def _is_finite(file: Path, kind: str, start: int, expected: int) -> bool:
    if not kind:
        return False
    with gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb") as stream:
        content = stream.read()
    return len(content) == expected and bool(np.isfinite(np.frombuffer(content, kind, offset=start)).all())


def _unpacked_size(file: Path, *, packed: bool) -> int:
    if not packed:
        return file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(-4, 2)
        return int(struct.unpack("<I", stream.read(4))[0])

"""Reconstructed volumes on their way out: HDF5 files with the one data set that fastMRI's organisers read."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import some
from nnunet_kd.optional import require

KEY = "reconstruction"
ENDING = ".h5"
# k-space lies in these folders of a raw data set, else beside each other as the organisers give it
_FOLDERS = (".", "kspaceTs")
_SIZE = re.compile(rb"<(\w+:)?reconSpace>.*?</(\w+:)?reconSpace>", re.DOTALL)
_AXIS = rb"<(?:\w+:)?matrixSize>.*?<(?:\w+:)?%s>\s*(\d+)\s*<"


def find_test_files(folder: Path) -> dict[str, Path]:
    """Find the test files by name of the case; names keep their ``_v2``.

    Args:
        folder: Of the files, ``multicoil_test`` for example, or the raw data set, with ``kspaceTs`` in it.

    Raises:
        UsageError: If there are none.
    """
    for place in (folder / name for name in _FOLDERS):
        files = sorted(place.glob(f"[!.]*{ENDING}")) if place.is_dir() else []
        if files:
            return {file.name.removesuffix(ENDING): file for file in files}
    raise UsageError(f"expected test files (CASE{ENDING}) in {folder} or its kspaceTs, found none; check --images")


def expected_shape(test_file: Path, size: tuple[int, int]) -> tuple[int, int, int]:
    """Return the slices, rows and columns of a volume's reconstruction.

    The header's reconSpace says the size. As in fastMRI's own zero-filled example, k-space of fewer columns than that
    gives a square of its columns (https://github.com/facebookresearch/fastMRI, ``run_zero_filled.py``).

    Args:
        test_file: Has the key ``kspace``.
        size: Rows and columns, where it has no header.

    Raises:
        UsageError: If it cannot be read or has no k-space.
    """
    with _opened(test_file) as file:
        if "kspace" not in file:
            raise UsageError(f"has a test file without the key 'kspace', {test_file.name}; check --images")
        shape = file["kspace"].shape
        header = file["ismrmrd_header"][()] if "ismrmrd_header" in file else b""
    rows, columns = _recon_size(header) or size
    return (shape[0], rows, columns) if shape[-1] >= columns else (shape[0], shape[-1], shape[-1])


def _recon_size(header: Any) -> tuple[int, int] | None:  # noqa: ANN401  # what HDF5 holds there
    space = _SIZE.search(header) if isinstance(header, bytes) else None
    if space is None:
        return None
    rows, columns = (re.search(_AXIS % axis, space[0], re.DOTALL) for axis in (b"x", b"y"))
    return (int(rows[1]), int(columns[1])) if rows and columns else None


def volume_faults(source: Path | io.BytesIO, test_file: Path | None, size: tuple[int, int]) -> list[str]:
    """List everything that is wrong with a reconstruction.

    Args:
        source: The file, or its content.
        test_file: The k-space that it is of, ``None`` where that was not given.
        size: Rows and columns, unless the test file's header names others.
    """
    try:
        expected = expected_shape(test_file, size) if test_file else None
        with _opened(source) as file:
            faults = _form_faults(file, expected, size)
            return faults or _value_faults(file[KEY])
    except UsageError as error:
        return [" ".join(str(error).split())]


def _form_faults(file: Any, expected: tuple[int, int, int] | None, size: tuple[int, int]) -> list[str]:  # noqa: ANN401
    keys = sorted(file)
    if keys != [KEY] or not hasattr(file[KEY], "shape"):
        return [f"has the keys {some(keys) if keys else 'none'}; expected the one data set '{KEY}'"]
    shape, kind = file[KEY].shape, file[KEY].dtype
    faults = [] if kind == np.float32 else [f"is stored as {kind}, expected float32"]
    if len(shape) != 3 or not shape[0]:
        faults.append(f"has shape {_text(shape)}, expected slices of {_text(size)}")
    elif expected is not None and shape != expected:
        faults.append(f"has shape {_text(shape)}, expected {_text(expected)} like its test file")
    elif expected is None and shape[1:] != size:
        faults.append(f"has slices of {_text(shape[1:])}, expected {_text(size)}; test files of others: give --images")
    return faults


def _value_faults(volume: Any) -> list[str]:  # noqa: ANN401  # h5py's
    slices = [volume[index] for index in range(volume.shape[0])]
    faulty = [str(index) for index, one in enumerate(slices) if not np.isfinite(one).all()]
    if faulty:
        return [f"has NaN or infinity in slice {some(faulty)}"]
    return [] if any(one.any() for one in slices) else ["is 0 everywhere"]


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def encode_volume(prediction: Path) -> bytes:
    """Pack a faultless reconstruction; the same values give the same bytes.

    Args:
        prediction: As :func:`volume_faults` found it faultless.

    Raises:
        UsageError: If it cannot be read.
    """
    with _opened(prediction) as file:
        volume = np.asarray(file[KEY])
    buffer = io.BytesIO()
    with require("h5py").File(buffer, "w") as file:
        file.create_dataset(KEY, data=volume.astype("<f4", copy=False), track_times=False)
    with _opened(buffer) as file:
        if not np.array_equal(np.asarray(file[KEY]), volume):
            raise RuntimeError(f"{prediction.name} reads back otherwise than it was written")
    return buffer.getvalue()


@contextmanager
def _opened(source: Path | io.BytesIO) -> Iterator[Any]:
    name = source.name if isinstance(source, Path) else "it"
    try:
        with require("h5py").File(source, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # RuntimeError: a damaged object inside
        raise UsageError(f"{name} cannot be read as HDF5 ({' '.join(str(error).split())}); copy it again") from error

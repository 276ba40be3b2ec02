"""A mask from a file: NumPy, MATLAB or HDF5, centred or not."""

from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import error as zlib_error

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require
from nnunet_kd.recon.physics.masks.settings import SamplingSettings

Flags = NDArray[np.bool_]


def mask_from_file(settings: SamplingSettings, shape: tuple[int, int]) -> Flags:
    """Return the mask of a file on the centred grid.

    Args:
        settings: ``file``, ``key``, ``centred``; ``axis`` says what a mask of one axis samples.
        shape: Of k-space, ``(H, W)``.

    Returns:
        ``(1, W)`` or ``(H, 1)`` for whole columns or rows, else ``(H, W)``.

    Raises:
        UsageError: If the file is missing, cannot be read, has no such array, holds other values than 0 and 1, does not
            fit the matrix, or does not show whether it is centred.
    """
    path = Path(settings.file or "")
    if not path.is_file():
        raise UsageError(f"sampling, file: expected a mask (.npy, .mat, .h5), found no file {path}")
    stored = _read(path, settings.key, path.stat().st_mtime_ns)
    flags = _reduced(_on_grid(stored, settings, shape, path))
    centred = settings.centred if settings.centred is not None else _looks_centred(flags, path)
    return flags if centred else np.fft.fftshift(flags)


@lru_cache(maxsize=32)
def _read(path: Path, key: str | None, changed: int) -> NDArray[Any]:  # noqa: ARG001  # a changed file is read again
    """Return the array, checked to be of zeros and ones."""
    readers = {".npy": _read_npy, ".mat": _read_mat, ".h5": _read_hdf5, ".hdf5": _read_hdf5}
    if path.suffix not in readers:
        raise UsageError(f"{path}: expected a mask as .npy, .mat or .h5, got '{path.suffix}'")
    try:
        values = np.squeeze(readers[path.suffix](path, key))
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: cannot be read as a mask: {' '.join(str(error).split())}") from error
    if not (values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all()):
        raise UsageError(f"{path}: expected a mask of zeros and ones, got other values or none (type {values.dtype})")
    return values


def _read_npy(path: Path, key: str | None) -> NDArray[Any]:
    if key is not None:
        raise UsageError(f"sampling, key: {path} holds one array without a name, got '{key}'; leave 'key' out")
    values: NDArray[Any] = np.load(path, allow_pickle=False)
    return values


def _read_mat(path: Path, key: str | None) -> NDArray[Any]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        arrays = {name: values for name, values in loadmat(path).items() if not name.startswith("__")}
    except NotImplementedError:  # MATLAB 7.3 writes HDF5, with the axes the other way round
        return _read_hdf5(path, key).T
    except (MatReadError, IndexError, TypeError, zlib_error) as error:  # what a file that was cut off ends in
        raise ValueError(str(error)) from error
    return np.asarray(arrays[_chosen(path, key, arrays)])


def _read_hdf5(path: Path, key: str | None) -> NDArray[Any]:
    h5py = require("h5py")
    with h5py.File(path) as file:
        arrays = {name: values for name, values in file.items() if isinstance(values, h5py.Dataset)}
        return np.asarray(arrays[_chosen(path, key, arrays)][()])


def _chosen(path: Path, key: str | None, arrays: dict[str, Any]) -> str:
    """Return the key of the mask: the one asked for, the only one, or ``mask``."""
    if key is None:
        key = next(iter(arrays)) if len(arrays) == 1 else "mask"
    if key not in arrays:
        raise UsageError(f"{path}: has no array '{key}', only: {', '.join(arrays) or 'none'}; name one by 'key'")
    return key


def _on_grid(stored: NDArray[Any], settings: SamplingSettings, shape: tuple[int, int], path: Path) -> Flags:
    flags = stored.astype(bool)
    if flags.ndim == 1:
        flags = flags[None] if settings.axis == "columns" else flags[:, None]
    if flags.ndim != 2 or any(size not in (1, full) for size, full in zip(flags.shape, shape, strict=True)):
        wanted = f"{shape[0 if settings.axis == 'rows' else 1]} {settings.axis}, or {shape[0]}x{shape[1]}"
        raise UsageError(f"{path}: expected a mask of {wanted}, got shape {stored.shape}")
    return flags


def _reduced(flags: Flags) -> Flags:
    """Return whole columns or rows as such."""
    if (flags == flags[:1]).all():
        return flags[:1]
    return flags[:, :1] if (flags == flags[:, :1]).all() else flags


def _looks_centred(flags: Flags, path: Path) -> bool:
    """Return whether the longer run of samples lies about the middle, not about index 0."""
    inside, outside = _run(flags), _run(np.fft.fftshift(flags))
    if inside == outside and not flags.all():
        raise UsageError(
            f"{path}: cannot tell whether the mask's zero frequency lies in the middle or at index 0; "
            'type "centred": true or false'
        )
    return inside >= outside


def _run(flags: Flags) -> int:
    """Return how many steps from the middle are sampled without a gap, along the axes that vary."""
    height, width = flags.shape
    ends = [_steps(line, n // 2) for line, n in ((flags[height // 2], width), (flags[:, width // 2], height)) if n > 1]
    return min(ends, default=0)


def _steps(line: Flags, middle: int) -> int:
    before, after = line[:middle][::-1], line[middle:]
    return sum(len(part) if part.all() else int(np.argmin(part)) for part in (before, after))

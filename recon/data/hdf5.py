"""HDF5, which fastMRI's files are: opened with errors that name file and key; the library is an extra."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to read.

    Raises:
        UsageError: If it is missing, truncated or no HDF5 file, then or while it is read.
    """
    if not path.is_file():
        raise UsageError(f"expected an HDF5 file at {path}, found none; check the path")
    try:
        with require("h5py").File(path, "r") as file:
            yield file
    except (OSError, RuntimeError) as error:  # RuntimeError: a damaged object inside
        raise UsageError(f"cannot read {path} as HDF5 ({_reason(error)}); copy it again") from error


def _reason(error: Exception) -> str:
    return "truncated" if "truncated file" in str(error) else " ".join(str(error).split())


def dataset_of(file: Any, key: str, *, n_axes: tuple[int, ...], kinds: str, path: Path) -> Any:  # noqa: ANN401  # h5py
    """Return a data set of an open file, unread.

    Args:
        file: The open file.
        key: Name of the data set.
        n_axes: How many axes it may have.
        kinds: NumPy's kinds of numbers it may hold, such as ``"c"`` for complex ones.
        path: Of the file, for messages.

    Raises:
        UsageError: If there is no such key, or it holds something else.
    """
    found = file.get(key)
    if found is None:
        keys = ", ".join(sorted(file)) or "none"
        raise UsageError(f"expected the key '{key}' in {path}, found: {keys}")
    if not hasattr(found, "shape"):
        raise UsageError(f"expected an array in key '{key}' of {path}, found a group")
    if found.ndim not in n_axes or 0 in found.shape:
        expected = " or ".join(map(str, n_axes))
        raise UsageError(f"expected {expected} axes without empty ones in key '{key}' of {path}, got {found.shape}")
    if found.dtype.kind not in kinds:
        names = {"c": "complex", "f": "floating-point", "i": "whole", "u": "whole", "b": "logical"}
        expected = " or ".join(dict.fromkeys(names[kind] for kind in kinds))
        raise UsageError(f"expected {expected} numbers in key '{key}' of {path}, got {found.dtype}")
    return found


@contextmanager
def written(path: Path) -> Iterator[Any]:
    """Open an HDF5 file to write; it gets its name when it is whole.

    Raises:
        OSError: If the place may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # HDF5 ends the whole process, or says nothing, where it closes a file on a full disk: it writes to memory
        memory = BytesIO()
        with require("h5py").File(memory, "w") as file:
            yield file
        temporary.write_bytes(memory.getbuffer())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)
        raise

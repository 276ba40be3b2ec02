"""Checkpoints as data: read without executing anything, written so that none is ever half there."""

import errno
import hashlib
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nnunet_kd.errors import UsageError

TEMPORARY = ".tmp"


class UnsafeCheckpointError(UsageError):
    """A checkpoint that is whole but holds more than data, so that it is neither read nor replaced."""


def _allowed_globals() -> list[Any]:
    """What stock nnU-Net checkpoints hold beside tensors: numpy scalars in the log."""
    scalar = np.float64(0).__reduce__()[0]  # numpy._core.multiarray.scalar, whose path differs between numpy versions
    dtypes = [type(np.dtype(name)) for name in ("float64", "float32", "float16", "int64", "int32", "bool")]
    return [scalar, np.dtype, *dtypes]


def load_checkpoint_safely(path: Path | str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without executing code from it.

    Args:
        path: A file written by ``torch.save``: nnU-Net's, ours or a released one.

    Returns:
        The checkpoint's dictionary.

    Raises:
        UnsafeCheckpointError: If the file holds objects other than tensors, plain values and numpy scalars.
        UsageError: If it is missing, truncated, or no dictionary with ``network_weights``, tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"expected a checkpoint at {path}, found none; train that fold or name another with -chk")
    try:
        with torch.serialization.safe_globals(_allowed_globals()):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged files
        raise _reason(path, error) from error
    if not isinstance(checkpoint, dict) or not _are_weights(checkpoint.get("network_weights")):
        raise UsageError(
            f"expected an nnU-Net checkpoint with 'network_weights', tensors by name, {path} holds none; check the path"
        )
    if not isinstance(checkpoint.get("trainer_name", ""), str):
        raise UsageError(f"expected the name of a trainer in {path}, got {checkpoint['trainer_name']!r:.80}")
    return checkpoint


def _are_weights(value: Any) -> bool:  # noqa: ANN401  # whatever the file holds
    return isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(weight, torch.Tensor) for key, weight in value.items()
    )


def _reason(path: Path, error: Exception) -> UsageError:
    text = " ".join(str(error).split())
    # an object that is not allowed has a name; the unpickler complains of damaged bytes without one
    if re.search(r"GLOBAL \w[\w.]*\.\w", text) or ("Unsupported" in text and zipfile.is_zipfile(path)):
        return UnsafeCheckpointError(
            f"refused {path}: it holds more than tensors and plain values, so that loading it could execute code; "
            "get the checkpoint from whom you trust, or repack it with 'nnunet_kd release'"
        )
    return UsageError(f"cannot read {path}: truncated or no checkpoint ({text[:120]}); train or copy it again")


def save_atomically(checkpoint: Any, path: Path | str) -> None:  # noqa: ANN401  # whatever torch.save takes
    """Write under a temporary name, flush to disk, then rename.

    After a crash at any moment ``path`` is either the old file or the new one. The
    temporary file is removed when writing fails (a full disk).

    Raises:
        OSError: If it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError) and "inline_container" in str(error):  # torch's word for a write that failed
            raise OSError(errno.ENOSPC, "the checkpoint could not be written whole", str(path)) from error
        raise


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def to_plain(value: Any) -> Any:  # noqa: ANN401  # any nesting of plain containers
    """Replace numpy scalars and arrays in nested containers by Python's own values.

    A checkpoint made of these and tensors loads with ``weights_only=True`` and no allow-list.

    Example:
        >>> to_plain({"dice": [np.float64(0.5)]})
        {'dice': [0.5]}
    """
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(to_plain(item) for item in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value

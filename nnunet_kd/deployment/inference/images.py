"""Reading images and writing label maps, each as one of nnU-Net's reader and writer classes does."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference import readers
from nnunet_kd.deployment.inference.file_checks import check_file, check_written
from nnunet_kd.errors import UsageError

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Image:
    """Voxels and where they lie.

    Attributes:
        array: ``(C, x, y, z)`` float32, axes in the reader's order; a 2-D image has ``x = 1``.
        spacing: Millimetres along the three axes.
        geometry: What the writer needs to place a label map exactly where the image was.
        is_planar: Whether the files are 2-D.
    """

    array: NDArray[np.float32]
    spacing: tuple[float, ...]
    geometry: dict[str, Any] = field(default_factory=dict)
    is_planar: bool = False

    def without_voxels(self) -> "Image":
        """Return what a writer needs, so that the voxels can go."""
        return replace(self, array=np.empty((0, 0, 0, 0), dtype=np.float32))


def read_image(files: Sequence[Path], reader: str) -> Image:
    """Read the files of one case.

    Args:
        files: One per channel, or one with all of them.
        reader: nnU-Net's class name.

    Raises:
        UsageError: If a file is missing, truncated, cannot be read or holds values that are complex or not finite, its
            geometry is none, or the files differ in shape or spacing.
    """
    for file in files:
        check_file(file)
    raws = [_attempt(readers.READ[reader], file) for file in files]
    for raw, file in zip(raws, files, strict=True):
        _check_usable(raw, file)
    _check_agreement(raws, files)
    array = np.vstack([raw.array for raw in raws], dtype=np.float32, casting="unsafe")
    if not (np.isfinite(array.min()) and np.isfinite(array.max())):
        raise UsageError(f"{files[0]}: expected finite values, found NaN or infinity; repair or leave out this case")
    return Image(array=array, spacing=raws[0].spacing, geometry=raws[0].geometry, is_planar=raws[0].is_planar)


def write_label_map(labels: NDArray[np.unsignedinteger], file: Path, image: Image, writer: str) -> None:
    """Write a label map under a temporary name in the same folder, then rename it.

    Args:
        labels: ``(x, y, z)``, axes in the reader's order.
        file: To be written, with the ending of the data set.
        image: That was segmented.
        writer: nnU-Net's class name.

    Raises:
        UsageError: If it cannot be written.
    """
    narrow: NDArray[np.generic] = labels.astype(np.uint8 if labels.max(initial=0) < 255 else np.uint16, copy=False)
    temporary = file.with_name(f".{os.getpid()}.tmp.{file.name}")
    # Tiff3DIO keeps the spacing in a second file
    written = [temporary, *([temporary.with_suffix(".json")] if writer == "Tiff3DIO" else [])]
    try:
        readers.WRITE[writer](narrow, temporary, image.geometry | {"spacing": image.spacing})
        check_written(temporary)
        for path in reversed(written):
            path.replace(path.with_name(path.name.removeprefix(f".{os.getpid()}.tmp.")))
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(f"cannot write {file}: {_one_line(error)}; check the folder and the space left") from error
    finally:
        for path in written:
            path.unlink(missing_ok=True)


def _attempt(read: Callable[[Path], readers.Raw], file: Path) -> readers.Raw:
    try:
        return read(file)
    except UsageError:
        raise
    except Exception as error:  # each library raises its own
        raise UsageError(f"cannot read {file}: {_one_line(error)}; copy the file again") from error


def _one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:200]


def _check_usable(raw: readers.Raw, file: Path) -> None:
    if raw.array.dtype.kind not in "biuf":
        raise UsageError(f"{file}: expected real numbers, got {raw.array.dtype}; convert the image")
    geometry = [value for value in raw.geometry.values() if isinstance(value, tuple | np.ndarray)]
    if not (min(raw.spacing) > 0 and all(np.isfinite(value).all() for value in (raw.spacing, *geometry))):
        raise UsageError(
            f"{file}: expected spacings above 0 and a finite position and direction, got the spacing {raw.spacing} and "
            f"{[np.asarray(value).round(3).tolist() for value in geometry]}; correct the header"
        )


def _check_agreement(raws: Sequence[readers.Raw], files: Sequence[Path]) -> None:
    first = raws[0]
    for raw, file in zip(raws[1:], files[1:], strict=True):
        if raw.array.shape != first.array.shape or not np.allclose(raw.spacing, first.spacing):
            raise UsageError(
                f"expected channels of one shape and spacing, got {first.array.shape[1:]} at {first.spacing} in "
                f"{files[0].name} and {raw.array.shape[1:]} at {raw.spacing} in {file.name}; bring them to one grid"
            )
        for key, value in first.geometry.items():
            if isinstance(value, tuple | np.ndarray) and not np.allclose(value, raw.geometry[key]):
                _LOG.warning("%s and %s differ in %s; the label map takes the first's", files[0], file, key)

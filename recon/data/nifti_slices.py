"""NIfTI volumes as stacks of slices, and back with their place in the scanner."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import check_whole


def to_slices(array: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return ``(S, H, W)``: slices along an axis, the other two swapped, so that axis 2 gives the transpose.

    Example:
        >>> to_slices(np.zeros((5, 6, 7)), 2).shape, to_slices(np.zeros((5, 6, 7)), 0).shape
        ((7, 6, 5), (5, 7, 6))
    """
    return np.moveaxis(array, axis, 0).swapaxes(1, 2)


def from_slices(slices: NDArray[Any], axis: int) -> NDArray[Any]:
    """Return the inverse of :func:`to_slices`."""
    return np.moveaxis(slices.swapaxes(1, 2), 0, axis)


def read_nifti(path: Path, axis: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Read a three-dimensional NIfTI volume as slices.

    Args:
        path: The file.
        axis: Along which the slices lie, 0 to 2.

    Returns:
        Slices ``(S, H, W)`` and the file's affine.

    Raises:
        UsageError: If it is damaged, truncated, has values that are not real and finite, or other than three axes.
    """
    import nibabel

    try:
        check_whole(path)
        image: Any = nibabel.load(path)
        stored = image.get_data_dtype()
        if stored.kind not in "iuf":
            raise ValueError(f"expected real numbers, got {stored}")
        array = np.asarray(image.dataobj, dtype=np.float32)
        if not np.isfinite(image.affine).all():
            raise ValueError("its place in space, sform or qform, is not finite")
    # nibabel, gzip and zlib raise whatever a damaged file leads to
    except Exception as error:
        raise UsageError(f"cannot read {path} as NIfTI ({' '.join(str(error).split())}); copy it again") from error
    array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
    if array.ndim != 3 or 0 in array.shape:
        raise UsageError(f"expected three axes in {path}, got {array.shape}; split it into volumes")
    return to_slices(array, axis), np.asarray(image.affine, np.float64)


def moved_affine(affine: NDArray[np.float64], origin: tuple[int, int, int], axis: int) -> NDArray[np.float64]:
    """Return the affine of a part of a volume.

    Args:
        affine: Of the whole volume.
        origin: Slice, row and column of the whole volume where the part begins; negative where it was padded.
        axis: Along which the slices lie.
    """
    others = [number for number in range(3) if number != axis]
    voxel = np.zeros(3)
    voxel[[axis, others[1], others[0]]] = origin  # rows are the later of the other two axes, see to_slices
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ voxel
    return moved


def write_nifti(path: Path, slices: NDArray[Any], *, affine: Any, axis: int) -> None:  # noqa: ANN401  # 16 numbers
    """Write slices as a NIfTI volume with geometry; the file gets its name when it is whole.

    Args:
        path: ``.nii`` or ``.nii.gz``.
        slices: ``(S, H, W)``.
        affine: 4 x 4, or its 16 numbers, as the attribute ``affine`` of a case has them.
        axis: As the attribute ``slice_axis`` of a case has it.
    """
    import nibabel

    image = nibabel.Nifti1Image(  # type: ignore[no-untyped-call]
        np.ascontiguousarray(from_slices(slices, axis), dtype=np.float32), np.asarray(affine, float).reshape(4, 4)
    )
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        nibabel.save(image, temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise

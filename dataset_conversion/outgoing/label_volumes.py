"""Label maps on their way out: read, compared with a grid, brought to other values, packed as NIfTI."""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import read_segmentation, some
from nnunet_kd.nifti import is_nifti
from nnunet_kd.postprocessing.folder import read_label_map, voxel_type

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_LARGEST = 1 << 32  # bytes of an unpacked label map; the largest CT of the challenges has a tenth of that


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where the voxels of a file lie.

    Attributes:
        shape: Voxels per axis of space, as stored.
        affine: From voxels to world, RAS, ``(4, 4)``, in mm.
        template: The NIfTI image that it is from, ``None`` for other formats. Only its header is ever used.

    Raises:
        ValueError: If the affine gives the voxels no size or no place.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    template: Any = None

    def __post_init__(self) -> None:
        if not (np.isfinite(self.affine).all() and np.linalg.det(self.affine[:3, :3])):
            raise ValueError("has a header that gives the voxels no size or no place")

    @property
    def axes(self) -> str:
        """Direction of each axis, ``RAS`` for example."""
        from nibabel.orientations import aff2axcodes

        codes: tuple[str | None, ...] = aff2axcodes(self.affine)  # type: ignore[no-untyped-call]
        return "".join(code or "?" for code in codes)


def read_grid(file: Path) -> Grid:
    """Read the header of an image; of one with four axes the first three.

    Raises:
        UsageError: If it cannot be read.
    """
    import nibabel

    try:
        if is_nifti(file):
            image: Any = nibabel.load(file)
            return Grid(shape=tuple(image.shape[:3]), affine=image.affine, template=image)
        return _itk_grid(file)
    except Exception as error:  # whatever a damaged file makes the readers raise
        raise UsageError(f"{file.name} cannot be read ({' '.join(str(error).split())}); copy it again") from error


def _itk_grid(file: Path) -> Grid:
    import SimpleITK

    reader: Any = SimpleITK.ImageFileReader()  # type: ignore[no-untyped-call]
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(reader.GetDirection(), (3, 3)) * np.asarray(reader.GetSpacing())
    affine[:3, 3] = reader.GetOrigin()
    return Grid(shape=tuple(reader.GetSize()), affine=_LPS_TO_RAS @ affine)


def read_labels(file: Path) -> tuple[NDArray[Any], Grid]:
    """Read a label map of whole numbers, x first as NIfTI stores it, and its grid.

    Raises:
        UsageError: If it cannot be read, is truncated, or holds other numbers.
    """
    if not is_nifti(file):
        labels, _ = read_segmentation(file)
        return np.ascontiguousarray(labels.transpose()), _itk_grid(file)
    labels, image = read_label_map(file)
    return labels, Grid(shape=labels.shape, affine=image.affine, template=image)


def grid_faults(found: Grid, expected: Grid, *, tolerance: float, like: str) -> list[str]:
    """Say what is different between two grids.

    Args:
        found: That of a label map.
        expected: The right one.
        tolerance: Largest difference between entries of the affines [mm].
        like: Whose grid is expected, for messages.

    Example:
        >>> there = Grid(shape=(2, 3, 4), affine=np.eye(4))
        >>> grid_faults(Grid(shape=(4, 3, 2), affine=np.eye(4)), there, tolerance=1e-3, like="its image")
        ['has shape 4x3x2, expected 2x3x4 like its image']
    """
    if found.shape != expected.shape:
        return [f"has shape {_text(found.shape)}, expected {_text(expected.shape)} like {like}"]
    difference = np.abs(found.affine - expected.affine).max()
    if difference <= tolerance:
        return []
    if found.axes != expected.axes:
        return [f"has the axes {found.axes}, expected {expected.axes} like {like}"]
    return [f"has an affine that differs by up to {difference:.3g} mm from that of {like}"]


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def value_faults(labels: NDArray[Any], allowed: Sequence[int]) -> list[str]:
    """Say which values a label map holds beside those allowed."""
    unknown = sorted(set(np.unique(labels).tolist()) - set(allowed))
    if not unknown:
        return []
    return [f"has label values {some([str(value) for value in unknown])}; expected only {sorted(allowed)}"]


def map_values(labels: NDArray[Any], values: Mapping[int, int]) -> NDArray[np.uint8]:
    """Replace every value of a label map.

    Args:
        labels: Whole numbers, all of them keys of ``values``.
        values: From old to new, up to 255.

    Example:
        >>> map_values(np.array([0, 1, 2, 3]), {0: 0, 1: 2, 2: 1, 3: 4}).tolist()
        [0, 2, 1, 4]
    """
    table = np.zeros(max(values) + 1, dtype=np.uint8)
    for old, new in values.items():
        table[old] = new
    mapped: NDArray[np.uint8] = table[labels]
    return mapped


def encode(labels: NDArray[np.uint8], grid: Grid, *, compressed: bool) -> bytes:
    """Pack a label map as a NIfTI file; the same voxels give the same bytes.

    Of the grid's own NIfTI header everything stays, to the last bit, but type, scaling, the range shown and extensions,
    which may hold anything. A grid of another format becomes qform and sform with code 1 (scanner).
    """
    import nibabel

    kind = type(grid.template) if grid.template is not None else nibabel.Nifti1Image
    header = kind.header_class() if grid.template is None else grid.template.header.copy()
    header.extensions.clear()
    header.set_data_offset(0)
    header.set_data_shape(labels.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    if grid.template is None:
        header.set_qform(grid.affine, code=1)
        header.set_sform(grid.affine, code=1)
    content: bytes = kind(labels, grid.affine, header).to_bytes()
    if not compressed:
        return content
    buffer = io.BytesIO()
    # no name and no time in it: gzip.compress writes other bytes from version to version
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=6, mtime=0) as stream:
        stream.write(content)
    return buffer.getvalue()


def decode(content: bytes, name: str) -> tuple[NDArray[Any], Grid, np.dtype[Any]]:
    """Read a NIfTI file from memory.

    Args:
        content: The file.
        name: Its name, which tells whether it is compressed.

    Returns:
        The voxels, their grid, and the type in which they are stored.

    Raises:
        UsageError: If it cannot be read, is truncated, unpacks to more than 4 GiB or holds colours or complex numbers.
    """
    import nibabel

    try:
        unpacked = _unzip(content) if name.lower().endswith(".gz") else content
        large = unpacked[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # the header's size, 540
        image: Any = (nibabel.Nifti2Image if large else nibabel.Nifti1Image).from_bytes(unpacked)
        labels = np.asanyarray(image.dataobj)
    except Exception as error:  # whatever a damaged file makes gzip and nibabel raise
        raise UsageError(f"cannot be read as NIfTI ({' '.join(str(error).split())})") from error
    if labels.dtype.kind not in "iuf":  # colours and complex numbers have no order to be compared by
        raise UsageError(f"is stored as {voxel_type(image)}, expected uint8")
    return labels, Grid(shape=labels.shape, affine=image.affine, template=image), image.get_data_dtype()


def _unzip(content: bytes) -> bytes:
    with gzip.open(io.BytesIO(content)) as stream:
        unpacked = stream.read(_LARGEST + 1)
        if len(unpacked) > _LARGEST:
            raise ValueError("it unpacks to more than 4 GiB")
        return unpacked

"""Segmentations on disk: which cases a folder holds, and whether they lie on the same grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import check_whole, is_nifti

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".tiff", ".tif", ".png", ".bmp")

_LARGEST = 2**31  # beyond it nobody counts labels, and a cast to whole numbers may overflow
_N_NAMED = 12  # names of one kind in a message; the rest is counted


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """The grid of an image, in the order of its file (x first).

    Attributes:
        shape: Voxels per axis.
        spacing: In mm.
        origin: Centre of the first voxel, in mm.
        direction: Row-major matrix of the axes.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def differences(self, other: Geometry) -> list[str]:
        """Say what is different, beyond the rounding of file formats: 1 % of a voxel, 1e-3 in the axes."""
        if self.shape != other.shape:
            return [f"shape {_text(other.shape)} instead of {_text(self.shape)}"]
        voxel = min(self.spacing)
        tolerances = {"spacing": 1e-3 * voxel, "origin": 1e-2 * voxel, "direction": 1e-3}
        return [
            f"{name} {_text(getattr(other, name))} instead of {_text(getattr(self, name))}"
            for name, tolerance in tolerances.items()
            if not np.allclose(getattr(self, name), getattr(other, name), rtol=0, atol=tolerance)
        ]


def _text(numbers: Sequence[float]) -> str:
    return "x".join(f"{number:.6g}" for number in numbers)


def some(names: Sequence[str]) -> str:
    """List names for a message, the first dozen and how many more there are."""
    rest = len(names) - _N_NAMED
    return ", ".join(names[:_N_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def case_name(file: str) -> str:
    """Return a file's name without folder and ending.

    Example:
        >>> case_name("labelsTr/hippocampus_001.nii.gz")
        'hippocampus_001'
    """
    name = Path(file).name
    ending = next((ending for ending in ENDINGS if name.lower().endswith(ending)), "")
    return name[: len(name) - len(ending)]


def find_cases(folder: Path) -> dict[str, Path]:
    """Return the segmentations in a folder by case name, in order; other files are passed over.

    Raises:
        UsageError: If there is no such folder, no segmentation in it, or two of one case.
    """
    if not folder.is_dir():
        raise UsageError(f"expected a folder of segmentations, found none at '{folder}'; check the path")
    files = sorted(
        file for file in folder.iterdir() if file.name.lower().endswith(ENDINGS) and not file.name.startswith(".")
    )
    cases: dict[str, Path] = {}
    for file in files:
        name = case_name(file.name)
        if name in cases:
            raise UsageError(f"'{folder}' holds case '{name}' twice: {cases[name].name} and {file.name}; remove one")
        cases[name] = file
    if not cases:
        raise UsageError(f"expected segmentations ({', '.join(ENDINGS)}) in '{folder}', found none")
    return cases


def _simpleitk() -> Any:  # noqa: ANN401  # claims to be typed and is not
    import SimpleITK

    return SimpleITK


def read_geometry(file: Path) -> Geometry:
    """Read the header alone.

    Raises:
        UsageError: If the file is no image with one value per voxel.
    """
    reader = _simpleitk().ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise _unreadable(file, error) from error
    if reader.GetNumberOfComponents() != 1:
        raise UsageError(f"expected one label per voxel in '{file}', found {reader.GetNumberOfComponents()} channels")
    n_axes = int(reader.GetMetaData("dim[0]")) if reader.HasMetaDataKey("dim[0]") else reader.GetDimension()
    if n_axes not in (2, 3):  # ITK leaves out a fourth axis of one voxel without a word
        raise UsageError(f"expected two or three axes in '{file}', found {n_axes}; write it again without the others")
    return Geometry(
        shape=tuple(reader.GetSize()),
        spacing=tuple(reader.GetSpacing()),
        origin=tuple(reader.GetOrigin()),
        direction=tuple(reader.GetDirection()),
    )


def _unreadable(file: Path, error: Exception) -> UsageError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
    return UsageError(f"cannot read '{file}' as an image: {reason}; write it again")


def read_segmentation(file: Path) -> tuple[NDArray[Any], tuple[float, ...]]:
    """Read labels and spacing, both in array order (z first).

    Raises:
        UsageError: If the file cannot be read, is truncated or holds anything but whole numbers.
    """
    sitk = _simpleitk()
    try:
        image = sitk.ReadImage(str(file))
        if is_nifti(file):
            check_whole(file)
    # whatever a damaged file makes nibabel and gzip raise beside ITK's RuntimeError
    except Exception as error:
        raise _unreadable(file, error) from error
    array = sitk.GetArrayFromImage(image)
    if not np.issubdtype(array.dtype, np.integer):
        labels = np.rint(array)
        if not np.array_equal(labels, array) or (labels.size and np.abs(labels).max() > _LARGEST):
            raise UsageError(f"expected whole numbers (labels) in '{file}', found others; is it an image?")
        array = labels.astype(np.int64)
    return array, tuple(image.GetSpacing())[::-1]


def check_same_cases(expected: Sequence[str], found: Mapping[str, Sequence[str]]) -> list[str]:
    """Say for every source which cases it lacks and which it has beyond the expected ones."""
    faults = []
    for source, cases in found.items():
        missing = [case for case in expected if case not in set(cases)]
        extra = [case for case in cases if case not in set(expected)]
        if missing:
            faults.append(f"{source} lacks {some(missing)}")
        if extra:
            faults.append(f"{source} has, and the reference has not, {some(extra)}")
    return faults


def check_same_grid(reference: Mapping[str, Path], found: Mapping[str, Mapping[str, Path]]) -> list[str]:
    """Say for every source which cases lie on another grid than the reference."""
    expected = {case: read_geometry(file) for case, file in reference.items()}
    faults = []
    for source, files in found.items():
        wrong = []
        for case in (case for case in reference if case in files):
            differences = expected[case].differences(read_geometry(files[case]))
            if differences:
                wrong.append(f"{case} ({', '.join(differences)})")
        if wrong:
            faults.append(f"{source} has another grid in {some(wrong)}")
    return faults

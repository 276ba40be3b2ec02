"""One reading and one writing function per class of nnU-Net, each on one file; libraries load when they are needed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A file as read: ``(C, x, y, z)`` of any type, spacing in the same order, and what the writer needs."""

    array: NDArray[np.generic]
    spacing: tuple[float, ...]
    geometry: dict[str, Any]
    is_planar: bool = False


def read_simple_itk(file: Path, orientation: str | None = None) -> Raw:
    """Read with SimpleITK: axes (z, y, x), a fourth as channels, a 2-D image as one slice."""
    sitk = _untyped("SimpleITK")
    image = sitk.ReadImage(str(file))
    if (n_values := image.GetNumberOfComponentsPerPixel()) != 1:
        raise UsageError(f"{file}: expected one value per voxel, got {n_values}; write one file per channel")
    original = None
    if orientation is not None:
        original = sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(image.GetDirection())
        image = sitk.DICOMOrient(image, orientation)
    array = sitk.GetArrayFromImage(image)
    n_axes = image.GetDimension()
    backwards = [abs(value) for value in image.GetSpacing()[::-1]]
    if array.ndim == 2:
        array, spacing = array[None, None], [max(backwards) * 999, *backwards]
    elif array.ndim == 3:
        array, spacing = array[None], backwards
    elif array.ndim == 4:
        spacing = backwards[1:]
    else:
        raise ValueError(f"expected an image of 2 to 4 axes, got {array.ndim}")
    # of a fourth axis nothing is left in a label map; nnU-Net stops there
    kept = min(n_axes, 3)
    geometry = {
        "itk_spacing": image.GetSpacing()[:kept],
        "itk_origin": image.GetOrigin()[:kept],
        "itk_direction": tuple(np.reshape(image.GetDirection(), (n_axes, n_axes))[:kept, :kept].ravel().tolist()),
        "itk_orientation": original,
    }
    return Raw(array=array, spacing=tuple(spacing), geometry=geometry, is_planar=n_axes == 2)


def read_simple_itk_reoriented(file: Path) -> Raw:
    """Read with SimpleITK, turned to the orientation it calls RAS."""
    return read_simple_itk(file, orientation="RAS")


def write_simple_itk(labels: NDArray[np.generic], file: Path, geometry: dict[str, Any]) -> None:
    """Write with SimpleITK, compressed, in the image's geometry and orientation."""
    sitk = _untyped("SimpleITK")
    image = sitk.GetImageFromArray(labels[0] if len(geometry["itk_spacing"]) == 2 else labels)
    image.SetSpacing(geometry["itk_spacing"])
    image.SetOrigin(geometry["itk_origin"])
    image.SetDirection(geometry["itk_direction"])
    if geometry["itk_orientation"] is not None:
        image = sitk.DICOMOrient(image, geometry["itk_orientation"])
    sitk.WriteImage(image, str(file), useCompression=True)


def read_nibabel(file: Path, *, reorient: bool = False) -> Raw:
    """Read a 3-D NIfTI file with nibabel, axes reversed to SimpleITK's order."""
    nibabel = _untyped("nibabel")
    loaded = nibabel.load(file)
    if loaded.ndim != 3:
        raise ValueError(f"expected an image of 3 axes, got {loaded.ndim}")
    image = loaded.as_reoriented(nibabel.io_orientation(loaded.affine)) if reorient else loaded
    return Raw(
        array=image.get_fdata().transpose((2, 1, 0))[None],
        spacing=tuple(float(value) for value in image.header.get_zooms()[::-1]),
        geometry={"affine": image.affine} | ({"original_affine": loaded.affine} if reorient else {}),
    )


def read_nibabel_reoriented(file: Path) -> Raw:
    """Read with nibabel, turned to RAS."""
    return read_nibabel(file, reorient=True)


def write_nibabel(labels: NDArray[np.generic], file: Path, geometry: dict[str, Any]) -> None:
    """Write with nibabel, turned back to the image's orientation where it was turned."""
    nibabel = _untyped("nibabel")
    image = nibabel.Nifti1Image(labels.transpose((2, 1, 0)), affine=geometry["affine"])
    if "original_affine" in geometry:
        turns = nibabel.orientations
        there = turns.io_orientation(geometry["original_affine"])
        image = image.as_reoriented(turns.ornt_transform(turns.axcodes2ornt("RAS"), there))
    nibabel.save(image, file)


def read_natural_image(file: Path) -> Raw:
    """Read a grey or colour image; its pixels count as 1 mm, and the slices that it lacks as 999 mm."""
    from skimage import io

    array = io.imread(str(file))
    if array.ndim == 2:
        array = array[None, None]
    elif array.ndim == 3 and array.shape[-1] in (3, 4):
        array = array.transpose((2, 0, 1))[:, None]
    else:
        raise ValueError(f"expected a grey, RGB or RGBA image, got the shape {array.shape}")
    return Raw(array=array, spacing=(999, 1, 1), geometry={}, is_planar=True)


def write_natural_image(labels: NDArray[np.generic], file: Path, geometry: dict[str, Any]) -> None:  # noqa: ARG001
    """Write a 2-D label map as an image."""
    from skimage import io

    io.imsave(str(file), labels[0], check_contrast=False)


def read_tiff(file: Path) -> Raw:
    """Read a 3-D TIFF; its spacing lies in a JSON file named as the case, without ``_0000``, else it is 1 mm."""
    import tifffile

    array = tifffile.imread(file)
    if array.ndim != 3:
        raise ValueError(f"expected an image of 3 axes, got {array.ndim}")
    # of an image, then of a label map
    beside = [file.with_name(f"{file.stem[:-5]}.json"), file.with_suffix(".json")]
    described = next((path for path in beside if path.is_file()), None)
    spacing = (1.0, 1.0, 1.0) if described is None else json.loads(described.read_text(encoding="utf-8"))["spacing"]
    if len(spacing) != 3:
        raise ValueError(f"expected three numbers as spacing in {described}, got {spacing}")
    return Raw(array=array[None], spacing=tuple(spacing), geometry={})


def write_tiff(labels: NDArray[np.generic], file: Path, geometry: dict[str, Any]) -> None:
    """Write a compressed 3-D TIFF and its spacing beside it."""
    import tifffile

    tifffile.imwrite(file, data=labels, compression="zlib")
    file.with_suffix(".json").write_text(json.dumps({"spacing": list(geometry["spacing"])}, indent=4), encoding="utf-8")


def _untyped(name: str) -> Any:  # noqa: ANN401  # a module
    # SimpleITK and nibabel have hints for some of their functions only
    return import_module(name)


READ: dict[str, Callable[[Path], Raw]] = {
    "SimpleITKIO": read_simple_itk,
    "SimpleITKIOWithReorient": read_simple_itk_reoriented,
    "NibabelIO": read_nibabel,
    "NibabelIOWithReorient": read_nibabel_reoriented,
    "NaturalImage2DIO": read_natural_image,
    "Tiff3DIO": read_tiff,
}
WRITE: dict[str, Callable[[NDArray[np.generic], Path, dict[str, Any]], None]] = {
    "SimpleITKIO": write_simple_itk,
    "SimpleITKIOWithReorient": write_simple_itk,
    "NibabelIO": write_nibabel,
    "NibabelIOWithReorient": write_nibabel,
    "NaturalImage2DIO": write_natural_image,
    "Tiff3DIO": write_tiff,
}

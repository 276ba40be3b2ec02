"""The two files that ``nnUNetv2_predict --save_probabilities`` leaves beside a label map, written without nnU-Net."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.images import Image
from nnunet_kd.deployment.inference.pipeline import PreparedCase

_SITK = {
    "itk_spacing": "spacing",
    "itk_origin": "origin",
    "itk_direction": "direction",
    "itk_orientation": "original_orientation",
}


def nnunet_properties(image: Image, case: PreparedCase) -> dict[str, Any]:
    """Return what nnU-Net calls the properties of a case: its geometry as the reader class keeps it, and the crop.

    nnU-Net's own dictionary may hold more, e.g. ``shape_after_resampling``; ensembling and post-processing read these.

    Args:
        image: As read; its voxels are not needed.
        case: As prepared; its voxels are not needed.
    """
    properties: dict[str, Any] = {
        "spacing": list(image.spacing),
        "shape_before_cropping": tuple(case.shape_before),
        "bbox_used_for_cropping": [list(side) for side in case.box],
        "shape_after_cropping_and_before_resampling": case.cropped_shape,
    }
    geometry = image.geometry
    if "itk_spacing" in geometry:
        kept = {theirs: geometry[ours] for ours, theirs in _SITK.items() if geometry[ours] is not None}
        return {"sitk_stuff": kept, **properties}
    if "affine" in geometry:
        original = geometry.get("original_affine")
        affines = {"original_affine": geometry["affine"] if original is None else original}
        if original is not None:
            affines["reoriented_affine"] = geometry["affine"]
        return {"nibabel_stuff": affines, **properties}
    return properties


def write_probabilities(
    probabilities: NDArray[np.float32], properties: Mapping[str, Any], stem: Path
) -> tuple[Path, Path]:
    """Write ``.npz``, key ``probabilities``, and ``.pkl``.

    Args:
        probabilities: ``(C, x, y, z)`` in the order of the image's axes.
        properties: As :func:`nnunet_properties` returns.
        stem: Path without ending.

    Returns:
        Both files.
    """
    archive, pickled = stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.pkl")
    with archive.open("wb") as stream:
        np.savez_compressed(stream, probabilities=probabilities)
    with pickled.open("wb") as stream:
        pickle.dump(dict(properties), stream)
    return archive, pickled

"""Images as a teacher's own plans preprocess them, and its logits on the grid of a student's images."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder

CROPPED = "shape_after_cropping_and_before_resampling"


def raw_files(raw: Path) -> dict[str, list[str]]:
    """Return the image files of every training case of a raw data set, one per channel.

    Args:
        raw: ``nnUNet_raw/DATASET``.

    Raises:
        UsageError: If the data set is not there.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    if not (raw / "dataset.json").is_file():
        raise UsageError(
            f"expected the raw data set in {raw}, found none; a teacher of another preprocessing needs the raw images"
        )
    files = get_filenames_of_train_images_and_targets(str(raw))
    return {case: list(entry["images"]) for case, entry in files.items()}


def preprocess_for(teacher: ModelFolder, files: Sequence[str]) -> tuple[Tensor, dict[str, Any]]:
    """Read a raw case and preprocess it as a teacher's plans say.

    Args:
        teacher: Its model folder.
        files: The images, one per channel.

    Returns:
        The image, ``(channels, x, y, z)`` float32, and nnU-Net's properties of it.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(teacher.plans)
    configuration = plans.get_configuration(teacher.configuration)
    preprocessor = configuration.preprocessor_class(verbose=False)
    image, _, properties = preprocessor.run_case(list(files), None, plans, configuration, teacher.dataset_json)
    return torch.from_numpy(np.asarray(image, dtype=np.float32)), properties


def permutation(theirs: Sequence[int], ours: Sequence[int]) -> list[int]:
    """Return which axis of a teacher's image each axis of the student's is.

    Args:
        theirs: The teacher's ``transpose_forward``.
        ours: The student's.

    Example:
        >>> permutation([2, 0, 1], [0, 1, 2])
        [1, 2, 0]
    """
    return [list(theirs).index(axis) for axis in ours]


def onto_grid(logits: Tensor, axes: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Turn a teacher's logits to the student's axes and resample them linearly to its shape.

    Both images show the same part of the patient, so that their shapes alone say how they lie to each other.

    Args:
        logits: ``(C, x, y, z)`` on the teacher's grid.
        axes: What :func:`permutation` returned.
        shape: Of the student's image.
    """
    turned = logits.permute(0, *(axis + 1 for axis in axes))
    if tuple(turned.shape[1:]) == tuple(shape):
        return turned
    return interpolate(turned[None], size=tuple(shape), mode="trilinear", align_corners=False)[0]


def check_crop(case: str, theirs: Mapping[str, Any], ours: Mapping[str, Any], axes: Sequence[int]) -> None:
    """Refuse a case whose raw image is not the one that the student's image was made from.

    Args:
        case: Its name.
        theirs: nnU-Net's properties of the raw image, preprocessed for the teacher.
        ours: Those stored with the student's image.
        axes: What :func:`permutation` returned.

    Raises:
        UsageError: If the regions that nnU-Net cropped them to differ in size.
    """
    cropped, expected = [int(theirs[CROPPED][axis]) for axis in axes], [int(n) for n in ours[CROPPED]]
    if cropped != expected:
        raise UsageError(
            f"{case}: the raw image is {cropped} voxels without its empty border, the preprocessed one was made from "
            f"{expected}; preprocess the data set again"
        )

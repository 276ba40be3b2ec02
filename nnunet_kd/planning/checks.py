"""Whether a teacher can teach a student: same labels, same inputs, a patch both can process."""

import json
from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder


def check_data(teacher: ModelFolder, dataset_json: Mapping[str, Any]) -> None:
    """Refuse a teacher that was trained for other labels, regions or channels.

    Names count as well as values, without their case: 1 and 2 swapped is the classic way to distil nonsense. So does
    the order in which regions stand, because nnU-Net gives each an output channel in that order.

    Raises:
        UsageError: Names the difference.
    """
    for key, what in (("labels", "labels"), ("regions_class_order", "region order"), ("channel_names", "channels")):
        theirs, ours = teacher.dataset_json.get(key), dataset_json.get(key)
        ordered = key == "labels" and bool(dataset_json.get("regions_class_order"))
        if _folded(theirs, ordered=ordered) != _folded(ours, ordered=ordered):
            raise UsageError(
                f"teacher {teacher.path.name} has {what} {json.dumps(theirs)}, the data set has {json.dumps(ours)}; "
                "take a teacher trained on the same labels and channels"
            )


def _folded(value: Any, *, ordered: bool = False) -> str:  # noqa: ANN401  # any JSON value
    lowered = {str(k).casefold(): v for k, v in value.items()} if isinstance(value, Mapping) else value
    return json.dumps(lowered, sort_keys=not ordered).casefold()


def check_preprocessing(teacher: ModelFolder, plans: Mapping[str, Any], configuration: str) -> None:
    """Refuse a teacher whose preprocessing differs from the student's: it would see other images than it learned on.

    Args:
        teacher: The teacher's model folder.
        plans: The student's plans.
        configuration: The student's configuration.

    Raises:
        UsageError: Names the setting, the teacher's value and the student's.
    """
    for what, (theirs, ours) in preprocessing_differences(teacher, plans, configuration).items():
        raise UsageError(
            f"teacher {teacher.path.name}: {what} is {theirs}, the student's is {ours}; "
            "plan the student from this teacher's own plans (give it as the first --teacher) or with "
            "--teacher-outputs cached"
        )


def preprocessing_differences(
    teacher: ModelFolder, plans: Mapping[str, Any], configuration: str
) -> dict[str, tuple[Any, Any]]:
    """Return what differs between the images of a teacher and of a student: setting to both values.

    Args:
        teacher: The teacher's model folder.
        plans: The student's plans.
        configuration: The student's configuration.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    theirs = PlansManager(teacher.plans).get_configuration(teacher.configuration)
    ours = PlansManager(dict(plans)).get_configuration(configuration)
    pairs = {
        "transposition": (teacher.plans["transpose_forward"], plans["transpose_forward"]),
        "number of axes": (len(theirs.patch_size), len(ours.patch_size)),
        "spacing": (np.round(theirs.spacing, 4).tolist(), np.round(ours.spacing, 4).tolist()),
        "normalisation": (theirs.normalization_schemes, ours.normalization_schemes),
        "use of the mask in normalisation": (theirs.use_mask_for_norm, ours.use_mask_for_norm),
        "cascade": (theirs.previous_stage_name is not None, ours.previous_stage_name is not None),
    }
    if "CTNormalization" in ours.normalization_schemes:
        key = "foreground_intensity_properties_per_channel"
        pairs["CT intensity statistics"] = (_rounded(teacher.plans[key]), _rounded(plans[key]))
    return {what: values for what, values in pairs.items() if values[0] != values[1]}


def _rounded(statistics: Mapping[str, Any]) -> dict[str, Any]:
    return {c: {name: round(float(v), 3) for name, v in values.items()} for c, values in statistics.items()}


def total_stride(strides: Sequence[Sequence[int]]) -> list[int]:
    """Multiply the strides of all stages, per axis.

    Example:
        >>> total_stride([[1, 1, 1], [1, 2, 2], [2, 2, 2]])
        [2, 4, 4]
    """
    return [int(product) for product in np.prod(np.atleast_2d(strides), axis=0)]


def common_patch(patch: Sequence[int], strides: Sequence[Sequence[Sequence[int]]]) -> list[int]:
    """Round a patch up to the least common multiple of all networks' total strides, per axis.

    Args:
        patch: Voxels per axis.
        strides: Of each network, per stage and axis.

    Example:
        >>> common_patch([40, 56], [[[1, 1], [2, 2], [2, 2]], [[1, 1], [3, 2]]])
        [48, 56]
    """
    steps = [lcm(*axis) for axis in zip(*(total_stride(s) for s in strides), strict=True)]
    return [-(-size // step) * step for size, step in zip(patch, steps, strict=True)]


def check_patch(teacher: ModelFolder, patch: Sequence[int]) -> None:
    """Refuse a patch that the teacher's strides do not divide.

    Raises:
        UsageError: With both numbers and the command that rounds the patch.
    """
    strides = network_strides(teacher.plans, teacher.configuration)
    if strides is not None and common_patch(patch, [strides]) != list(patch):
        raise UsageError(
            f"patch {list(patch)} is no multiple of teacher {teacher.path.name}'s strides {total_stride(strides)}; "
            "plan again, which rounds it up: nnunet_kd plan ... --overwrite"
        )


def network_strides(plans: Mapping[str, Any], configuration: str) -> list[list[int]] | None:
    """Return the strides per stage and axis of a planned network, ``None`` where its plans carry none."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans)).get_configuration(configuration)
    strides = manager.network_arch_init_kwargs.get("strides")
    if strides is None:
        return None
    n_axes = len(manager.patch_size)
    return [[s] * n_axes if isinstance(s, int) else [int(v) for v in s] for s in strides]


def suits_patch(teacher: ModelFolder, patch: Sequence[int]) -> bool:
    """Return whether a teacher could process a patch: its number of axes, and multiples of its strides."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    own = PlansManager(teacher.plans).get_configuration(teacher.configuration).patch_size
    strides = network_strides(teacher.plans, teacher.configuration)
    return len(own) == len(patch) and (strides is None or common_patch(patch, [strides]) == list(patch))


def check_teacher(
    teacher: ModelFolder,
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    *,
    cached: bool = False,
) -> None:
    """Run every check of a teacher against a planned student.

    Args:
        teacher: The teacher's model folder.
        plans: The student's plans.
        configuration: The student's configuration.
        dataset_json: Of the data set.
        cached: Whether its outputs are cached: then it has its own patch, and images preprocessed its own way.

    Raises:
        UsageError: At the first difference.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    check_data(teacher, dataset_json)
    if teacher.configuration not in teacher.plans.get("configurations", {}):
        raise UsageError(
            f"{teacher.path / 'plans.json'} lacks configuration '{teacher.configuration}'; copy the folder again"
        )
    if cached:
        _check_own_images(teacher, plans, configuration)
        return
    check_preprocessing(teacher, plans, configuration)
    check_patch(teacher, PlansManager(dict(plans)).get_configuration(configuration).patch_size)


def _check_own_images(teacher: ModelFolder, plans: Mapping[str, Any], configuration: str) -> None:
    """Refuse what cannot be brought from a teacher's images to the student's."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    differences = preprocessing_differences(teacher, plans, configuration)
    cascaded = PlansManager(dict(plans)).get_configuration(configuration).previous_stage_name is not None
    if "cascade" in differences or (cascaded and differences):
        raise UsageError(
            f"teacher {teacher.path.name} and student differ in {', '.join(differences)}: teachers of the second stage "
            "of a cascade teach such students only, and with the same preprocessing; give another teacher"
        )
    reader, ours = teacher.plans["image_reader_writer"], plans["image_reader_writer"]
    if differences and reader != ours:
        raise UsageError(
            f"teacher {teacher.path.name} reads images with {reader}, the student with {ours}, which may order axes "
            "differently; give a teacher that was planned with the same reader"
        )

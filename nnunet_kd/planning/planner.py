"""The student's plans: the teacher's own, with a smaller network and a kd block."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.checks import check_teacher, common_patch, network_strides
from nnunet_kd.planning.coarser import with_coarser_spacing
from nnunet_kd.planning.geometries import with_geometry
from nnunet_kd.planning.kd_block import VERSION, KDSettings, TeacherSource, settings_to_json
from nnunet_kd.planning.model_folder import ModelFolder, read_json_object, write_json_atomically
from nnunet_kd.planning.students import student_architecture


@dataclass(frozen=True, kw_only=True)
class StudentRequest:
    """What a student shall look like.

    Attributes:
        configuration: nnU-Net configuration, e.g. ``3d_fullres``.
        student: Name in ``nnunet_kd.planning.students.STUDENTS``.
        student_options: Its own options, as ``alpha`` of ``dsm_unet``.
        factor: Divides the features per stage, >= 1.
        depth: Stages to keep, ``None`` for all.
        fewer_blocks: Divides the convolutions or residual blocks of every stage, >= 1.
        coarser: Spacing over the plans' own, >= 1; more than 1 means preprocessing of its own.
        geometry: Patch and batch of ``nnunet_kd.planning.geometries.GEOMETRIES``, ``None`` for the plans' own.
        plans_name: Name of the student's plans.
    """

    configuration: str
    student: str = "same"
    student_options: Mapping[str, Any] = field(default_factory=dict)
    factor: int = 1
    depth: int | None = None
    fewer_blocks: int = 1
    coarser: float = 1.0
    geometry: str | None = None
    plans_name: str = "nnUNetKDPlans"


def default_plans_name(method: str | None, seed: int | None) -> str:
    """Name plans so that methods and seeds never share a results folder.

    Example:
        >>> default_plans_name(None, None), default_plans_name("none", 1)
        ('nnUNetKDPlans', 'nnUNetKDNoneS1Plans')
    """
    middle = "" if method is None else "".join(part.capitalize() for part in method.replace("-", "_").split("_"))
    return f"nnUNetKD{middle}{'' if seed is None else f'S{seed}'}Plans"


def check_plans_name(name: str) -> None:
    """Refuse names that nnU-Net could not split again.

    Raises:
        UsageError: If the name holds ``__``, or other characters than files and shells take everywhere, or does not
            end in ``Plans``.
    """
    if "__" in name or not re.fullmatch(r"[\w.+-]*Plans", name):
        raise UsageError(
            "-p: expected a name of letters, digits and _.+- that ends in 'Plans' without '__' and '/', "
            f"got '{name}'; e.g. nnUNetKDPlans"
        )


def student_plans(
    base: Mapping[str, Any],
    request: StudentRequest,
    settings: KDSettings,
    *,
    dataset_name: str,
    teachers: Sequence[ModelFolder] = (),
    existing: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Derive the student's plans.

    The configuration keeps its name and, on the teacher's data set, its ``data_identifier``, so that nothing is
    preprocessed twice. On another data set it gets one of its own: a folder of the same name there may have
    been preprocessed in another way.
    Its patch is rounded up to what the strides of student and teachers divide.

    Args:
        base: The first teacher's plans, or nnU-Net's own for a control.
        request: The student.
        settings: Its kd block.
        dataset_name: The student's data set, ``DatasetXXX_Name``.
        teachers: Model folders whose strides the patch must suit, if they run online.
        existing: Plans to which the configuration is added.

    Raises:
        UsageError: If the configuration is missing in ``base`` or the network cannot be made smaller.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    name = request.configuration
    if name not in base["configurations"]:
        known = ", ".join(base["configurations"])
        raise UsageError(f"-c: plans '{base['plans_name']}' have no configuration '{name}'; they have: {known}")
    configuration = deepcopy(PlansManager(deepcopy(dict(base))).get_configuration(name).configuration)
    configuration.pop("inherits_from", None)  # resolved, so that it does not change when its parent is planned
    configuration["architecture"] = student_architecture(
        configuration["architecture"],
        student=request.student,
        factor=request.factor,
        depth=request.depth,
        fewer_blocks=request.fewer_blocks,
        options=request.student_options,
    )
    if request.geometry is not None:
        configuration = with_geometry(configuration, request.geometry)
    if base["dataset_name"] != dataset_name:
        configuration["data_identifier"] = f"{request.plans_name}_{name}"
    if request.coarser != 1:
        configuration = with_coarser_spacing(configuration, request.coarser)
    plans = deepcopy(dict(existing)) if existing is not None else _without_kd(base, request.plans_name, dataset_name)
    plans["configurations"][name] = configuration
    online = teachers if settings.teacher_outputs == "online" else ()
    strides = [network_strides(plans, name), *(network_strides(t.plans, t.configuration) for t in online)]
    configuration["patch_size"] = common_patch(configuration["patch_size"], [s for s in strides if s is not None])
    plans.setdefault("kd", {"version": VERSION, "configurations": {}})
    plans["kd"]["configurations"][name] = settings_to_json(settings)
    return plans


def _without_kd(base: Mapping[str, Any], plans_name: str, dataset_name: str) -> dict[str, Any]:
    plans = deepcopy(dict(base)) | {"dataset_name": dataset_name}
    plans.pop("kd", None)
    plans.pop("continue_training", None)
    plans["plans_name"] = plans_name
    return plans


def with_hashes(source: TeacherSource, folder: ModelFolder) -> TeacherSource:
    """Record the hashes of the checkpoints that exist already; the others are recorded at first use."""
    if source.checkpoint is None:
        return source
    wanted = folder.folds if source.folds in ("same", "all") else source.folds
    paths = {str(fold): folder.path / f"fold_{fold}" / source.checkpoint for fold in wanted}
    return replace(source, sha256={fold: file_sha256(path) for fold, path in paths.items() if path.is_file()})


def check_existing(path: Path, request: StudentRequest, *, overwrite: bool) -> dict[str, Any] | None:
    """Return the plans already there, without the requested configuration's kd entry.

    Raises:
        UsageError: If they distil that configuration already and ``overwrite`` is false, are none of ours, or have
            another name than their file.
    """
    if not path.exists():
        return None
    plans = read_json_object(path)
    if "kd" not in plans:
        raise UsageError(f"{path} exists and has no kd block, so it is not ours to change; choose another name with -p")
    if plans.get("plans_name") != path.stem:
        raise UsageError(
            f"{path} calls itself {plans.get('plans_name')!r:.80}, so it is a copy and not ours to change; choose "
            "another name with -p"
        )
    kd = plans["kd"]
    if not all(isinstance(block, dict) and isinstance(block.get("configurations"), dict) for block in (plans, kd)):
        raise UsageError(f"{path}: expected objects 'configurations', also in 'kd'; choose another name with -p")
    if request.configuration in kd["configurations"] and not overwrite:
        raise UsageError(
            f"{path.stem} distils {request.configuration} already; type --overwrite to plan it anew, or choose another "
            "name with -p"
        )
    return plans


def check_students_teachers(
    plans: Mapping[str, Any], request: StudentRequest, teachers: Sequence[ModelFolder], dataset_json: Mapping[str, Any]
) -> None:
    """Run every check between the planned student and each teacher.

    Raises:
        UsageError: At the first difference.
    """
    cached = plans["kd"]["configurations"][request.configuration]["teacher_outputs"] == "cached"
    for teacher in teachers:
        check_teacher(teacher, plans, request.configuration, dataset_json, cached=cached)


def write_plans(plans: Mapping[str, Any], preprocessed: Path) -> Path:
    """Write ``<plans_name>.json`` beside nnU-Net's own plans."""
    path = preprocessed / f"{plans['plans_name']}.json"
    write_json_atomically(dict(plans), path)
    return path

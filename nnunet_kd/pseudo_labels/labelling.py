"""The teachers label cases, one file and one record each, so that a run that was stopped continues.

``nnUNet_preprocessed/DATASET/nnunet_kd_pseudo_labels/HASH/`` holds ``manifest.json``, the settings in plain words, and
for every finished case its label and ``CASE.json``. The hash covers whatever the labels depend on beside the images;
those are known by the hash of their files in the record.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.distillation.raw_images import preprocess_for
from nnunet_kd.distillation.soft_labels import MANIFEST, VERSION, key
from nnunet_kd.distillation.teacher_volumes import VolumeTeacher, mirror_axes
from nnunet_kd.distillation.teachers import load_members
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import LabelScheme, scheme_from_dataset
from nnunet_kd.networks.inference import whole_volume_probabilities
from nnunet_kd.planning.checks import network_strides, total_stride
from nnunet_kd.planning.model_folder import open_model_folder, read_json, write_json_atomically
from nnunet_kd.pseudo_labels.ensemble import (
    LabelMap,
    Probabilities,
    confidence,
    decide,
    disagreement,
    mean_probabilities,
)
from nnunet_kd.pseudo_labels.pool import Scan, channel_files
from nnunet_kd.pseudo_labels.teachers import Teacher

FOLDER = "nnunet_kd_pseudo_labels"
STEP_SIZE = 0.5  # nnU-Net's

Record = dict[str, Any]


@dataclass(frozen=True)
class LabelJob:
    """What a worker needs to know; paths must be valid where it runs.

    Attributes:
        teachers: The ensemble.
        device: Where it runs, e.g. ``cuda``.
        mirroring: Whether outputs are averaged over mirrored images, along the axes each member was trained for.
        whole_volume: One pass over the whole volume in place of nnU-Net's window; mirrored within the slices alone.
        folder: Where labels and records go.
    """

    teachers: tuple[Teacher, ...]
    device: str
    mirroring: bool
    whole_volume: bool
    folder: Path


# ---- the folder of finished cases ----


def begin(folder: Path, what: Mapping[str, Any], names: Sequence[str]) -> None:
    """Make the folder and write into it what the labels will be made by.

    Args:
        folder: Its name is the hash of ``what``.
        what: See :func:`nnunet_kd.pseudo_labels.teachers.recipe`.
        names: Of the teachers, for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"version": VERSION, "hash": key(what), "settings": dict(what), "teachers": list(names)}
    write_json_atomically(manifest, folder / MANIFEST)


def label_file(folder: Path, case: str, ending: str) -> Path:
    """Return the file of a case's label."""
    return folder / f"{case}{ending}"


def finished(folder: Path, case: str, *, files: str, ending: str) -> Record | None:
    """Return the record of a case, ``None`` where it is missing, damaged, or of other images.

    Args:
        folder: Of the finished cases.
        case: Its name.
        files: Hash of its images' files.
        ending: Of the label's file.
    """
    path, label = folder / f"{case}.json", label_file(folder, case, ending)
    if not path.is_file() or not label.is_file():
        return None
    try:
        record: Record = read_json(path)
    except UsageError:
        return None
    if not isinstance(record, dict) or not all(_is_share(record.get(name)) for name in ("confidence", "disagreement")):
        return None
    whole = record.get("files") == files and record.get("sha256") == file_sha256(label)
    return record if whole else None


def _is_share(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value <= 1


# ---- one case ----


def label_case(job: LabelJob, case: tuple[Scan, str]) -> None:
    """Predict one case with every member, and store its label and how far the members trust it.

    Args:
        job: By what and where to.
        case: The images and the hash of their files.

    Raises:
        UsageError: If a teacher returns NaN or infinity, or the device has too little memory for the whole volume.
    """
    scan, files_hash = case
    ensemble = _load(job)
    model = ensemble[0].folder
    labels: list[LabelMap] = []
    properties: dict[str, Any] = {}

    def shares(files: Sequence[Path]) -> Iterator[tuple[float, Probabilities]]:
        for answer in _answers(ensemble, files, job):
            labels.append(answer.label)
            properties.update(answer.properties)
            yield answer.weight, answer.probabilities

    with channel_files(scan) as files:
        mean = mean_probabilities(shares(files))
    label, probability = decide(mean, model.dataset_json.get("regions_class_order"))
    scheme = scheme_from_dataset(model.dataset_json, model.path / "dataset.json")
    ending = model.dataset_json["file_ending"]
    target = label_file(job.folder, scan.name, ending)
    # a case may be worked on twice at once, when a worker was lost from sight only
    temporary = target.with_name(f".{uuid.uuid4().hex}{ending}")
    try:
        ensemble[0].predictor.plans_manager.image_reader_writer_class().write_seg(label, str(temporary), properties)
        record = {
            "confidence": confidence(label, probability),
            "disagreement": disagreement(labels, scheme.structures),
            "volumes": _volumes(label, scheme, properties["spacing"]),
            "files": files_hash,
            "sha256": file_sha256(temporary),
        }
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    write_json_atomically(record, job.folder / f"{scan.name}.json")


def _volumes(label: LabelMap, scheme: LabelScheme, spacing: Sequence[float]) -> dict[str, float]:
    # nnU-Net gives images of two axes a thickness of 999 pixels
    size = spacing[1:] if label.shape[0] == 1 and spacing[0] > 998 * max(spacing[1:]) else spacing
    voxel = prod(map(float, size))
    return {structure.name: float(structure.mask(label).sum()) * voxel for structure in scheme.structures}


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one member says of a case, on the grid of its files."""

    weight: float
    probabilities: Probabilities
    label: LabelMap
    properties: dict[str, Any]


def _answers(ensemble: Sequence[VolumeTeacher], files: Sequence[Path], job: LabelJob) -> Iterator[_Answer]:
    """Ask one member after the other; the networks of a model folder share one preprocessed image."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    seen = None
    for teacher in ensemble:
        if teacher.folder.path != seen:
            image, properties = preprocess_for(teacher.folder, [str(file) for file in files])
            seen = teacher.folder.path
        logits = _logits(teacher, image, job)
        if not bool(torch.isfinite(logits).all()):
            raise UsageError(f"teacher {teacher.member.name} returned NaN or infinity; leave it out")
        predictor = teacher.predictor
        label, probabilities = convert_predicted_logits_to_segmentation_with_correct_shape(
            logits,
            predictor.plans_manager,
            predictor.configuration_manager,
            predictor.label_manager,
            properties,
            return_probabilities=True,
            num_threads_torch=torch.get_num_threads(),
        )
        yield _Answer(weight=teacher.member.weight, probabilities=probabilities, label=label, properties=properties)


def _logits(teacher: VolumeTeacher, image: Tensor, job: LabelJob) -> Tensor:
    """Return logits ``(C, *spatial)`` on the CPU for a preprocessed image."""
    if not job.whole_volume:
        return teacher.logits(image)
    strides = network_strides(teacher.folder.plans, teacher.folder.configuration)
    if strides is None:
        raise UsageError(f"--whole-volume: the plans of {teacher.folder.path.name} name no strides; leave it out")
    regions = bool(teacher.predictor.label_manager.has_regions)
    try:
        with torch.autocast(teacher.device.type, enabled=teacher.device.type == "cuda"):
            probabilities = whole_volume_probabilities(
                teacher.member.network,
                image.to(teacher.device),
                divisor=total_stride(strides),
                flip_axes=_published_flips(teacher),
                regions=regions,
            ).cpu()
    except torch.OutOfMemoryError as error:
        raise UsageError(
            f"--whole-volume: {teacher.device} has too little memory for {tuple(image.shape)}; type -device cpu, or "
            "leave it out"
        ) from error
    # what nnU-Net's way back to the original grid takes
    return torch.logit(probabilities, eps=1e-7) if regions else probabilities.clamp(min=1e-7).log()


def _published_flips(teacher: VolumeTeacher) -> list[int]:
    """Return the network's axes that are x or y of the files, as far as the member was trained to be mirrored there."""
    if not teacher.predictor.use_mirroring:
        return []
    n_axes = len(teacher.patch_size)
    forward = list(teacher.folder.plans["transpose_forward"])
    # nnU-Net reads the axes of a file as z, y, x; a network of two axes sees the last two of the transposed ones
    in_plane = [forward.index(axis) - (len(forward) - n_axes) for axis in (2, 1)]
    allowed = teacher.predictor.allowed_mirroring_axes or ()
    return sorted(axis for axis in in_plane if axis in allowed)


@lru_cache(maxsize=1)
def _load(job: LabelJob) -> list[VolumeTeacher]:
    """Load a job's members, once per process."""
    return load_ensemble(job.teachers, job.device, mirroring=job.mirroring)


def load_ensemble(teachers: Sequence[Teacher], device: str, *, mirroring: bool) -> list[VolumeTeacher]:
    """Load all networks of an ensemble; those of one model folder follow each other.

    Args:
        teachers: The model folders.
        device: Where the networks run.
        mirroring: Whether outputs are averaged over mirrored images.

    Raises:
        UsageError: For a checkpoint that is damaged, unsafe, does not fit, or changed since it was opened.
    """
    place = torch.device(device)
    ensemble = []
    for teacher in teachers:
        folder = open_model_folder(teacher.path)
        for member in load_members(teacher.source, folder, "all", device=place):
            axes = mirror_axes(folder, teacher.source, member.fold) if mirroring else None
            ensemble.append(VolumeTeacher(member, folder, mirror_axes=axes, step_size=STEP_SIZE, device=place))
    return ensemble

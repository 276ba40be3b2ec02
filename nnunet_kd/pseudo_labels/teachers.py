"""The models that label: whether they agree on the task, and what identifies what they say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import TeacherSource
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder
from nnunet_kd.pseudo_labels.channels import channel_names, same_name
from nnunet_kd.pseudo_labels.dataset import file_ending


@dataclass(frozen=True)
class Teacher:
    """One model folder of the ensemble.

    Attributes:
        path: The folder.
        folds: Its networks.
        checkpoint: File in each fold.
        weight: Its share, > 0, divided among the folds.
        sha256: Hash of each fold's checkpoint.
    """

    path: Path
    folds: tuple[int | str, ...]
    checkpoint: str
    weight: float
    sha256: tuple[str, ...]

    @property
    def source(self) -> TeacherSource:
        """What networks are loaded by."""
        hashes = dict(zip(map(str, self.folds), self.sha256, strict=True))
        return TeacherSource(
            model_folder=str(self.path),
            folds=self.folds,
            checkpoint=self.checkpoint,
            weight=self.weight,
            sha256=hashes,
        )


def open_teachers(
    folders: Sequence[str], weights: Sequence[float] | None, folds: Sequence[str] | None, checkpoint: str
) -> tuple[list[ModelFolder], list[Teacher]]:
    """Open the model folders of an ensemble and check that they go together.

    Args:
        folders: As typed.
        weights: One per folder; ``None`` for equal ones.
        folds: Numbers or ``all``, nnU-Net's fold of that name; ``None`` for every numbered fold a folder has, and its
            fold ``all`` where it has no other.
        checkpoint: File in each fold.

    Raises:
        UsageError: If a folder, fold or checkpoint is missing, the weights are not positive numbers, one per folder,
            or the models differ in labels, channels or image reader.
    """
    from nnunet_kd.distillation.checkpoints import file_sha256

    shares = _shares(weights, len(folders))
    models = [open_model_folder(folder) for folder in folders]
    for model in models:
        _check_alone(model)
        check_same_task(models[0].dataset_json, models[0].path.name, model.dataset_json, f"teacher {model.path.name}")
        _check_same_files(models[0], model)
    teachers = []
    for model, share in zip(models, shares, strict=True):
        wanted = _folds(model, folds)
        paths = [model.checkpoint(fold, checkpoint) for fold in wanted]
        teachers.append(Teacher(model.path, wanted, checkpoint, share, tuple(map(file_sha256, paths))))
    return models, teachers


def _shares(weights: Sequence[float] | None, n: int) -> list[float]:
    if weights is None:
        return [1.0] * n
    if len(weights) != n or not all(isfinite(weight) and weight > 0 for weight in weights):
        raise UsageError(
            f"--weights: expected {n} numbers above 0, one per --teacher, got {' '.join(f'{w:g}' for w in weights)}"
        )
    return list(weights)


def _folds(model: ModelFolder, asked: Sequence[str] | None) -> tuple[int | str, ...]:
    if asked is None:
        found = tuple(fold for fold in model.folds if fold != "all") or model.folds
        if not found:
            raise UsageError(
                f"expected trained folds in {model.path}, found none; train the teacher with nnUNetv2_train"
            )
        return found
    for text in asked:
        if text != "all" and not text.isdecimal():
            raise UsageError(f"-f: expected numbers or 'all', got '{text}'")
    return tuple(dict.fromkeys(text if text == "all" else int(text) for text in asked))


def _check_alone(model: ModelFolder) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    stage = PlansManager(model.plans).get_configuration(model.configuration).previous_stage_name
    if stage is not None:
        raise UsageError(
            f"teacher {model.path.name} is the second stage of a cascade and needs the predictions of {stage}; give a "
            "teacher that takes images alone"
        )


def _check_same_files(first: ModelFolder, model: ModelFolder) -> None:
    for what, ours, theirs in (
        ("image reader", first.plans["image_reader_writer"], model.plans["image_reader_writer"]),
        ("file ending", *(file_ending(m.dataset_json, str(m.path / "dataset.json")) for m in (first, model))),
    ):
        if ours != theirs:
            raise UsageError(
                f"teacher {model.path.name} has {what} {theirs}, teacher {first.path.name} has {ours}; give teachers "
                "that were planned alike"
            )


def check_same_task(ours: Mapping[str, Any], our_name: str, theirs: Mapping[str, Any], their_name: str) -> None:
    """Refuse two data sets that differ in the names or values of labels, in regions, or in channels.

    Names are compared without their case, those of MRI channels without their spelling. The order of regions counts,
    because nnU-Net gives each an output channel in that order.

    Args:
        ours: Content of a dataset.json.
        our_name: Whose it is.
        theirs: Content of another one.
        their_name: Whose it is.

    Raises:
        UsageError: Names the difference.
    """
    for what, a, b in (
        ("labels", _labels(ours), _labels(theirs)),
        ("region order", ours.get("regions_class_order"), theirs.get("regions_class_order")),
        ("channels", _channels(ours), _channels(theirs)),
    ):
        if a != b:
            key = {"labels": "labels", "region order": "regions_class_order"}.get(what)
            shown = [json.dumps(content.get(key) if key else channel_names(content)) for content in (theirs, ours)]
            raise UsageError(
                f"{their_name} has {what} {shown[0]}, {our_name} has {shown[1]}; take models and data of the same "
                "labels and channels"
            )


def _labels(content: Mapping[str, Any]) -> list[tuple[str, Any]]:
    labels = [(str(name).casefold(), value) for name, value in content["labels"].items()]
    return labels if content.get("regions_class_order") else sorted(labels, key=str)


def _channels(content: Mapping[str, Any]) -> list[str]:
    return [same_name(name) for name in channel_names(content)]


def recipe(
    models: Sequence[ModelFolder],
    teachers: Sequence[Teacher],
    *,
    mirroring: bool,
    step_size: float,
    whole_volume: bool,
) -> dict[str, Any]:
    """Describe in plain JSON all that the labels depend on beside the images.

    Args:
        models: The model folders.
        teachers: What is used of each.
        mirroring: Whether outputs are averaged over mirrored images.
        step_size: Step of the sliding window as a share of the patch.
        whole_volume: Whether one pass takes the place of the window.
    """
    from nnunet_kd.distillation.soft_labels import key

    total = sum(teacher.weight for teacher in teachers)
    members = [
        {
            "checkpoint sha256": sha256,
            "weight": round(teacher.weight / total / len(teacher.folds), 6),
            "plans": key(model.plans),
            "configuration": model.configuration,
        }
        for model, teacher in zip(models, teachers, strict=True)
        for sha256 in teacher.sha256
    ]
    window: dict[str, Any] = {"inference": "whole volume"} if whole_volume else {"step size": step_size}
    content = models[0].dataset_json
    return {
        "format": 1,
        "teachers": members,
        "mirroring": mirroring,
        **window,
        "labels": content["labels"],
        "region order": content.get("regions_class_order"),
    }

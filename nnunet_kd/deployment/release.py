"""Pack a trained model so that stock nnU-Net predicts it.

A release holds weights and descriptions only: no optimiser, no log, no path of the machine
it was trained on. It loads with ``torch.load(weights_only=True)``, and where stock nnU-Net
builds the same network from the plans, it is filed under nnU-Net's own trainer.
"""

import contextlib
import io
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from nnunet_kd import __version__
from nnunet_kd.deployment.portable import portable_dataset, portable_plans, without_paths
from nnunet_kd.distillation.checkpoints import file_sha256, load_checkpoint_safely, save_atomically, to_plain
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network, find_trainer, n_channels
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import ModelFolder, read_json, write_json_atomically

STOCK_TRAINER = "nnUNetTrainer"
CHECKPOINT = "checkpoint_final.pth"
_RECORD = "release.json"
_DATASET = re.compile(r"Dataset\d{3}_[\w.-]+")
# what every environment that predicts has anyway
_COMMON = {"torch", "dynamic_network_architectures", "nnunetv2"}


@dataclass(frozen=True, kw_only=True)
class Release:
    """A model ready to be written.

    Attributes:
        folder_name: ``TRAINER__PLANS__CONFIGURATION`` under which it is filed.
        dataset_name: ``DatasetXXX_Name``.
        documents: File name to JSON content.
        checkpoints: Fold to the content of its checkpoint.
        needs: Packages that prediction needs beside nnU-Net; empty for stock nnU-Net.
        previous_stage: Configuration whose predictions it takes as input (a cascade), or ``None``.
    """

    folder_name: str
    dataset_name: str
    documents: Mapping[str, Any]
    checkpoints: Mapping[int | str, Mapping[str, Any]]
    needs: tuple[str, ...] = ()
    previous_stage: str | None = None


def prepare_release(
    model: ModelFolder, *, folds: Sequence[int | str] | None = None, checkpoint_name: str = CHECKPOINT
) -> Release:
    """Read and check everything a release needs; nothing is written.

    Args:
        model: The trained model.
        folds: Those wanted; ``None`` takes every fold that has the checkpoint.
        checkpoint_name: File name in each fold.

    Raises:
        UsageError: If a fold or checkpoint is missing, damaged, of another configuration or
            trainer, holds numbers that are not finite, or does not fit the network of the plans.
    """
    _check_names(model)
    files = _find_checkpoints(model, folds, checkpoint_name)
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net's look-up prints where it searches
        network = build_network(model, deep_supervision=False)
    with tqdm(files.items(), desc="reading", unit="fold", leave=False) as progress:
        read = {fold: _read_fold(model, file, network) for fold, file in progress}
    axes = {tuple(fold["inference_allowed_mirroring_axes"] or ()) for fold in read.values()}
    if len(axes) > 1:
        raise UsageError(f"the folds of {model.path} differ in their mirroring axes; release them one by one with -f")
    trainer, needs = _choose_trainer(model, network)
    plans, dataset = portable_plans(model.plans), portable_dataset(model.dataset_json)
    for fold, checkpoint in read.items():
        place = {"configuration": model.configuration, "fold": fold}
        checkpoint["init_args"] = {"plans": plans, **place, "dataset_json": dataset}
        checkpoint["trainer_name"] = trainer
    documents = {"plans.json": plans, "dataset.json": dataset, _RECORD: _provenance(model, files, needs)}
    fingerprint = model.path / "dataset_fingerprint.json"
    if fingerprint.is_file():
        documents[fingerprint.name] = without_paths(read_json(fingerprint))
    return Release(
        folder_name=f"{trainer}__{plans['plans_name']}__{model.configuration}",
        dataset_name=plans["dataset_name"],
        documents=documents,
        checkpoints=read,
        needs=needs,
        previous_stage=_configuration(model).previous_stage_name,
    )


def _check_names(model: ModelFolder) -> None:
    known = model.plans.get("configurations", {})
    plans_name, dataset = str(model.plans.get("plans_name")), str(model.plans.get("dataset_name"))
    if model.configuration not in known or model.path.name.split("__")[1] != plans_name:
        raise UsageError(
            f"expected a folder TRAINER__{plans_name}__CONFIGURATION with one of {', '.join(known)}, as its plans.json "
            f"says, got {model.path.name}; give the folder its name back"
        )
    # it becomes part of the path that is written, and plans may come from anybody
    if not _DATASET.fullmatch(dataset):
        raise UsageError(f"expected a dataset_name like Dataset004_Name in {model.path}/plans.json, got '{dataset}'")


def _find_checkpoints(model: ModelFolder, folds: Sequence[int | str] | None, name: str) -> dict[int | str, Path]:
    present = [fold for fold in model.folds if (model.path / f"fold_{fold}" / name).is_file()]
    if folds is None and not present:
        raise UsageError(f"found no fold with {name} in {model.path}; train one or name another checkpoint with -chk")
    return {fold: model.checkpoint(fold, name) for fold in dict.fromkeys(folds or present)}


def _read_fold(model: ModelFolder, file: Path, network: nn.Module) -> dict[str, Any]:
    checkpoint = load_checkpoint_safely(file)
    arguments = checkpoint.get("init_args")
    found = (checkpoint.get("trainer_name"), arguments.get("configuration") if isinstance(arguments, dict) else None)
    if found != (model.trainer, model.configuration):
        raise UsageError(
            f"expected a checkpoint of {model.trainer}, {model.configuration} in {file}, got one of "
            f"{found[0]}, {found[1]}; put it back where it was trained"
        )
    weights = checkpoint["network_weights"]
    broken = next((name for name, value in weights.items() if value.is_complex() or not value.isfinite().all()), None)
    if broken is not None:
        raise UsageError(f"the weights in {file} are no finite numbers ({broken}): the training diverged; train again")
    try:
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights in {file} do not fit the network of its plans.json: {reason}") from error
    axes = to_plain(checkpoint.get("inference_allowed_mirroring_axes"))
    if not _are_axes(axes, len(_configuration(model).patch_size)):
        raise UsageError(
            f"expected inference_allowed_mirroring_axes in {file} to be axes of the patch, got {axes!r:.80}"
        )
    return {"network_weights": weights, "inference_allowed_mirroring_axes": axes}


def _are_axes(axes: Any, n_axes: int) -> bool:  # noqa: ANN401  # whatever a checkpoint holds
    """Return whether these are axes that nnU-Net can mirror along; ``None`` stands for no mirroring."""
    known = range(n_axes)
    return axes is None or (
        isinstance(axes, list | tuple)
        and all(type(axis) is int and axis in known for axis in axes)
        and len(set(axes)) == len(axes)
    )


def _configuration(model: ModelFolder) -> Any:  # noqa: ANN401  # untyped in nnU-Net
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    return PlansManager(model.plans).get_configuration(model.configuration)


def _choose_trainer(model: ModelFolder, network: nn.Module) -> tuple[str, tuple[str, ...]]:
    """Return the trainer to file the model under and the packages its prediction needs."""
    needs = _packages_of_network(network, model)
    with contextlib.redirect_stdout(io.StringIO()):
        stock = build_network(model, trainer=STOCK_TRAINER, deep_supervision=False)
        input_shape = (1, n_channels(model)[0], *_configuration(model).patch_size)
        if model.trainer == STOCK_TRAINER or _same_function(network, stock, input_shape):
            return STOCK_TRAINER, tuple(sorted(needs))
        home = find_trainer(model.trainer).__module__.partition(".")[0]
    return model.trainer, tuple(sorted(needs | ({home} - _COMMON)))


def _packages_of_network(network: nn.Module, model: ModelFolder) -> set[str]:
    configuration = _configuration(model)
    arguments = configuration.network_arch_init_kwargs
    imported = [arguments[key] for key in configuration.network_arch_init_kwargs_req_import if arguments.get(key)]
    return {name.partition(".")[0] for name in (type(network).__module__, *imported)} - _COMMON


def _same_function(trained: nn.Module, stock: nn.Module, input_shape: tuple[int, ...]) -> bool:
    """Return whether ``stock`` with the trained weights computes the same on one random patch.

    Names and shapes of the weights are not enough: another non-linearity has the same.
    """
    try:
        stock.load_state_dict(trained.state_dict())
    except RuntimeError:
        return False
    patch = torch.randn(input_shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, found = trained.eval()(patch), stock.eval()(patch)
    return expected.shape == found.shape and torch.allclose(expected, found, rtol=1e-4, atol=1e-5)


def _provenance(model: ModelFolder, files: Mapping[int | str, Path], needs: tuple[str, ...]) -> dict[str, Any]:
    settings = model.plans.get("kd", {}).get("configurations", {}).get(model.configuration, {})
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"nnunet_kd": __version__, **{name: metadata.version(name) for name in ("nnunetv2", "torch")}},
        "method": settings.get("method"),
        "source": {
            "model": model.path.name,
            "checkpoints": {
                str(fold): {"file": file.name, "sha256": file_sha256(file)} for fold, file in files.items()
            },
        },
        "needs": list(needs),
    }


def check_target(output: Path, release: Release, *, source: Path, overwrite: bool) -> Path:
    """Return what will be written: the zip itself, or the model folder below ``output``.

    Raises:
        UsageError: If it exists and may not be replaced, or is the source.
    """
    zipped = _is_zip(output)
    target = output if zipped else output / release.dataset_name / release.folder_name
    if os.path.realpath(target) == os.path.realpath(source):
        raise UsageError(f"{target} is the model to be released itself; name another folder with -o")
    if not zipped:
        check_replaceable(
            target, is_ours=lambda folder: (folder / _RECORD).is_file(), what="a release", overwrite=overwrite
        )
    elif os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} exists; name another with -o or add --overwrite")
    elif target.is_dir():
        raise UsageError(f"expected {target} to be a file, it is a folder; name another with -o")
    return target


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def write_release(release: Release, target: Path) -> None:
    """Write a release to what :func:`check_target` returned, under a temporary name first.

    Raises:
        UsageError: If the disk is full or the place may not be written.
    """
    zipped = _is_zip(target)
    try:
        with work_folder(target) as work:
            new = work / "new"
            _write_model(release, new / release.dataset_name / release.folder_name if zipped else new)
            if zipped:
                _write_zip(new, work / "archive")
                (work / "archive").replace(target)
            else:
                move_into_place(new, target)
    except (OSError, RuntimeError) as error:  # RuntimeError is torch's word for a full disk
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:200]
        raise UsageError(f"cannot write {target}: {reason}; free space or name another with -o") from error


def _write_model(release: Release, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in release.documents.items():
        write_json_atomically(content, folder / name)
    for fold, checkpoint in tqdm(release.checkpoints.items(), desc="writing", unit="fold"):
        (folder / f"fold_{fold}").mkdir()
        save_atomically(dict(checkpoint), folder / f"fold_{fold}" / CHECKPOINT)


def _write_zip(folder: Path, archive: Path) -> None:
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.write(member, member.relative_to(folder).as_posix())

"""Pack a trained model so that stock nnU-Net predicts it.

A release holds weights and descriptions only: no optimiser, no log, no path of the machine
it was trained on. It loads with ``torch.load(weights_only=True)``, and where stock nnU-Net
builds the same network from the plans, it is filed under nnU-Net's own trainer.
"""

import contextlib
import io
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from nnunet_kd import __version__
from nnunet_kd.deployment.model_folder import ModelFolder
from nnunet_kd.deployment.portable import portable_dataset, portable_plans, without_paths
from nnunet_kd.distillation.checkpoints import file_sha256, load_checkpoint_safely, save_atomically, to_plain
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import build_network

STOCK_TRAINER = "nnUNetTrainer"
CHECKPOINT = "checkpoint_final.pth"
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
    checkpoints: Mapping[str, Mapping[str, Any]]
    needs: tuple[str, ...] = ()
    previous_stage: str | None = None


def prepare_release(model: ModelFolder) -> Release:
    """Read and check everything a release needs; nothing is written.

    Args:
        model: The trained model; see :func:`~nnunet_kd.deployment.model_folder.read_model_folder`.

    Raises:
        UsageError: If a checkpoint is damaged, of another configuration or trainer, holds
            numbers that are not finite, or does not fit the network of the plans.
    """
    with contextlib.redirect_stdout(io.StringIO()):  # nnU-Net's look-up prints where it searches
        network, input_shape = build_network(model.path)
    files = tqdm(model.checkpoints.items(), desc="reading", unit="fold")
    read = {fold: _read_fold(model, fold, file, network) for fold, file in files}
    axes = {tuple(fold["inference_allowed_mirroring_axes"] or ()) for fold in read.values()}
    if len(axes) > 1:
        raise UsageError(f"the folds of {model.path} differ in their mirroring axes; release them one by one with -f")
    trainer, needs = _choose_trainer(model, network, input_shape)
    plans, dataset = portable_plans(model.plans), portable_dataset(model.dataset)
    for fold, checkpoint in read.items():
        arguments = {"configuration": model.configuration, "fold": fold if fold == "all" else int(fold)}
        checkpoint["init_args"] = {"plans": plans, **arguments, "dataset_json": dataset}
        checkpoint["trainer_name"] = trainer
    documents = {"plans.json": plans, "dataset.json": dataset, "release.json": _provenance(model, needs)}
    if model.fingerprint is not None:
        documents["dataset_fingerprint.json"] = without_paths(model.fingerprint)
    return Release(
        folder_name=f"{trainer}__{model.plans_name}__{model.configuration}",
        dataset_name=model.dataset_name,
        documents=documents,
        checkpoints=read,
        needs=needs,
        previous_stage=_manager(model)[1].previous_stage_name,
    )


def _read_fold(model: ModelFolder, fold: str, file: Path, network: nn.Module) -> dict[str, Any]:
    checkpoint = load_checkpoint_safely(file)
    found = (checkpoint.get("trainer_name"), checkpoint.get("init_args", {}).get("configuration"))
    if found != (model.trainer, model.configuration):
        raise UsageError(
            f"expected a checkpoint of {model.trainer}, {model.configuration} in {file}, got one of "
            f"{found[0]}, {found[1]}; put it back where it was trained"
        )
    weights = checkpoint["network_weights"]
    try:
        network.load_state_dict(weights)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights in {file} do not fit the network of its plans.json: {reason}") from error
    broken = next(
        (name for name, value in weights.items() if torch.is_tensor(value) and not value.isfinite().all()), None
    )
    if broken is not None:
        raise UsageError(
            f"the weights in {file} are not finite ({broken}): the training diverged; train fold {fold} again"
        )
    axes = to_plain(checkpoint.get("inference_allowed_mirroring_axes"))
    return {"network_weights": weights, "inference_allowed_mirroring_axes": axes}


def _manager(model: ModelFolder) -> tuple[Any, Any]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(deepcopy(dict(model.plans)))  # some trainers change what they are given
    return manager, manager.get_configuration(model.configuration)


def _choose_trainer(
    model: ModelFolder, network: nn.Module, input_shape: tuple[int, ...]
) -> tuple[str, tuple[str, ...]]:
    """Return the trainer to file the model under and the packages its prediction needs."""
    needs = _packages_of_network(network, _manager(model)[1])
    if model.trainer == STOCK_TRAINER or _same_function(network, _stock_network(model), input_shape):
        return STOCK_TRAINER, tuple(sorted(needs))
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):
        home = recursive_find_trainer_class_by_name(model.trainer).__module__.partition(".")[0]
    return model.trainer, tuple(sorted(needs | ({home} - _COMMON)))


def _packages_of_network(network: nn.Module, configuration: Any) -> set[str]:  # noqa: ANN401  # untyped in nnU-Net
    arguments = configuration.network_arch_init_kwargs
    imported = [arguments[key] for key in configuration.network_arch_init_kwargs_req_import if arguments.get(key)]
    return {name.partition(".")[0] for name in (type(network).__module__, *imported)} - _COMMON


def _stock_network(model: ModelFolder) -> nn.Module:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

    manager, configuration = _manager(model)
    n_inputs = determine_num_input_channels(manager, configuration, model.dataset)
    n_outputs = manager.get_label_manager(model.dataset).num_segmentation_heads
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = nnUNetTrainer.build_network_architecture(
            manager, configuration, n_inputs, n_outputs, False
        )
    return network


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


def _provenance(model: ModelFolder, needs: tuple[str, ...]) -> dict[str, Any]:
    settings = model.plans.get("kd", {}).get("configurations", {}).get(model.configuration, {})
    return {
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": {"nnunet_kd": __version__, **{name: metadata.version(name) for name in ("nnunetv2", "torch")}},
        "method": settings.get("method"),
        "source": {
            "model": model.path.resolve().name,
            "checkpoints": {
                fold: {"file": file.name, "sha256": file_sha256(file)} for fold, file in model.checkpoints.items()
            },
        },
        "needs": list(needs),
    }


def check_target(output: Path, release: Release, *, source: Path, overwrite: bool) -> Path:
    """Return what will be written: the zip itself, or the model folder below ``output``.

    Raises:
        UsageError: If it exists and may not be replaced, or is the source.
    """
    zipped = output.suffix == ".zip"
    target = output if zipped else output / release.dataset_name / release.folder_name
    if target.resolve() == source.resolve():
        raise UsageError(f"{target} is the model to be released itself; name another folder with -o")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} exists; name another with -o or add --overwrite")
    if target.exists() and target.is_dir() == zipped:
        raise UsageError(f"expected {target} to be a {'file' if zipped else 'folder'}, it is not; name another with -o")
    return target


def write_release(release: Release, target: Path) -> None:
    """Write a release to what :func:`check_target` returned, under a temporary name first.

    Raises:
        UsageError: If the disk is full or the place may not be written.
    """
    zipped = target.suffix == ".zip"
    temporary = target.with_name(target.name + ".tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _fresh_folder(temporary):
            model = temporary / release.dataset_name / release.folder_name if zipped else temporary
            _write_model(release, model)
            _write_zip(temporary, target) if zipped else _replace_folder(temporary, target)
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror or error}; free space or name another with -o"
        ) from error


@contextlib.contextmanager
def _fresh_folder(path: Path) -> Iterator[None]:
    shutil.rmtree(path, ignore_errors=True)  # of a run that was killed
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write_model(release: Release, folder: Path) -> None:
    folder.mkdir(parents=True)
    for name, content in release.documents.items():
        (folder / name).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    for fold, checkpoint in tqdm(release.checkpoints.items(), desc="writing", unit="fold"):
        (folder / f"fold_{fold}").mkdir()
        save_atomically(dict(checkpoint), folder / f"fold_{fold}" / CHECKPOINT)


def _write_zip(folder: Path, target: Path) -> None:
    archive = folder / "archive"
    members = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for member in members:
            file.write(member, member.relative_to(folder).as_posix())
    archive.replace(target)


def _replace_folder(folder: Path, target: Path) -> None:
    if target.exists():
        shutil.rmtree(target)
    folder.replace(target)

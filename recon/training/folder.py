"""What lies in a model folder beside the checkpoints."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_kd import __version__
from nnunet_kd.hardware import describe
from nnunet_kd.planning.json_blocks import write_block
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.training.run import Run

if TYPE_CHECKING:
    from nnunet_kd.recon.training.trainer import ReconTrainer


def write_model_files(run: Run) -> None:
    """Put plans, data set and fingerprint into the model folder, so that it can be used alone."""
    plans = run.dataset / f"{run.plans.plans_name}.json"
    sources = {"plans.json": plans, "dataset.json": run.dataset / "dataset.json"}
    sources["dataset_fingerprint.json"] = run.dataset / "dataset_fingerprint.json"
    for name, source in sources.items():
        if source.is_file():
            _copy(source, run.model_folder / name)


def _copy(source: Path, target: Path) -> None:
    temporary = target.with_name(f".{target.name}")
    shutil.copyfile(source, temporary)
    temporary.replace(target)


def write_debug(trainer: "ReconTrainer") -> dict[str, Any]:
    """Write ``debug.json``: what a person needs to tell two trainings apart. Return it."""
    run, network = trainer.run, trainer.bare_network()
    facts = {
        "trainer": run.trainer,
        "plans": run.plans.plans_name,
        "configuration": run.configuration_name,
        "fold": run.fold,
        "cases": _cases(trainer),
        "network": write_block(run.configuration.architecture),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "device": _device_name(trainer.device),
        "processes": trainer.place.world_size,
        "precision": trainer.precision.describe(),
        "seed": trainer.seed,
        "training": write_block(trainer.training),
        "kd": write_block(run.kd),
        "versions": {"nnunet_kd": __version__, "torch": torch.__version__},
        **trainer.describe(),
    }
    write_json_atomically(facts, run.fold_folder / "debug.json")
    return facts


def _cases(trainer: "ReconTrainer") -> str:
    run = trainer.run
    training = f"{len(run.training_cases)} to train ({len(trainer.cases)} slices)"
    return f"{training}, {len(run.validation_cases)} to validate"


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return describe() if device.type == "cpu" else str(device)

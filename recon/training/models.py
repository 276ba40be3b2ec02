"""A model folder, ``TRAINER__PLANS__CONFIGURATION`` with plans and folds in it, and the networks trained there."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import folds_of
from nnunet_kd.recon.planning.plans import Configuration, ReconPlans, build_network, read_plans

if TYPE_CHECKING:
    from torch import nn

FINAL, LATEST, BEST = "checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"


@dataclass(frozen=True, kw_only=True)
class ReconModel:
    """What a model folder says about its networks.

    Attributes:
        path: The folder.
        trainer: Name of the trainer, from the folder's name.
        configuration_name: Likewise of the configuration.
        plans: Content of plans.json.
    """

    path: Path
    trainer: str
    configuration_name: str
    plans: ReconPlans

    @property
    def configuration(self) -> Configuration:
        """The configuration that was trained."""
        return self.plans.configuration(self.configuration_name)

    @property
    def folds(self) -> tuple[int | str, ...]:
        """Folds that exist: numbers in order, then ``"all"``."""
        return folds_of(self.path)

    def checkpoint(self, fold: int | str, name: str) -> Path:
        """Return the path of a fold's checkpoint.

        Raises:
            UsageError: If it is missing or empty; says what there is and what to type.
        """
        path = self.path / f"fold_{fold}" / name
        if path.is_file() and path.stat().st_size:
            return path
        if path.is_file():
            raise UsageError(f"{path} is empty; train that fold again or name another checkpoint with -chk")
        if path.parent.is_dir():
            found = ", ".join(sorted(file.name for file in path.parent.glob("*.pth"))) or "none"
            raise UsageError(f"expected {name} in {path.parent}, found checkpoints: {found}; name one with -chk")
        found = ", ".join(map(str, self.folds)) or "none"
        raise UsageError(
            f"expected fold {fold} in {self.path}, found folds: {found}; train it with: nnunet_kd recon train "
            f"{self.plans.dataset_name} {self.configuration_name} {fold} -tr {self.trainer} -p {self.plans.plans_name}"
        )


def open_recon_model(folder: Path | str) -> ReconModel:
    """Open a model folder, absolute, relative to ``nnUNet_results`` or to the working directory.

    Raises:
        UsageError: If it is missing, has another name than such folders have, or its plans are damaged.
    """
    path = _locate(Path(folder).expanduser())
    parts = path.name.split("__")
    if len(parts) != 3:
        raise UsageError(f"expected a folder named TRAINER__PLANS__CONFIGURATION, got {path}; give the one with fold_X")
    plans = read_plans(path / "plans.json")
    plans.configuration(parts[2])
    return ReconModel(path=path, trainer=parts[0], configuration_name=parts[2], plans=plans)


def _locate(path: Path) -> Path:
    results = os.environ.get("nnUNet_results")
    candidates = [path] if path.is_absolute() or not results else [Path(results) / path, path]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.resolve()
    where = " or ".join(map(str, candidates)) + ("" if results else " (nnUNet_results is not set)")
    raise UsageError(f"no model folder {where}; train it with 'nnunet_kd recon train' or give another folder")


def load_network(
    model_folder: Path | str, fold: int | str, checkpoint_name: str = FINAL
) -> tuple["nn.Module", ReconPlans, Configuration]:
    """Build the network of a model folder and load the weights of a fold, strictly, on the CPU, in evaluation mode.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, as :func:`open_recon_model` takes it.
        fold: A number or ``"all"``.
        checkpoint_name: File in the fold's folder.

    Returns:
        The network, the plans and the configuration it was trained with.

    Raises:
        UsageError: If folder, fold or checkpoint are missing, damaged, unsafe, or do not fit each other.
    """
    model = open_recon_model(model_folder)
    path = model.checkpoint(fold, checkpoint_name)
    network = build_network(model.configuration)
    load_weights(network, path)
    return network.eval(), model.plans, model.configuration


def load_weights(network: "nn.Module", path: Path) -> dict[str, Any]:
    """Load a checkpoint's weights into a network, strictly, and return the checkpoint.

    Raises:
        UsageError: If the file is missing, damaged, unsafe, or belongs to another network.
    """
    from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

    checkpoint = load_checkpoint_safely(path)
    try:
        network.load_state_dict(checkpoint["network_weights"], strict=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights in {path} do not fit the network of the plans: {problem}") from None
    return checkpoint

"""The checkpoints of a fold: plain values and tensors, written whole or not at all, read without executing anything."""

import operator
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.distillation.checkpoints import (
    TEMPORARY,
    UnsafeCheckpointError,
    load_checkpoint_safely,
    save_atomically,
    to_plain,
)
from nnunet_kd.distillation.random_state import random_state, restore_random_state
from nnunet_kd.errors import UsageError
from nnunet_kd.recon.training.log import EpochLog
from nnunet_kd.recon.training.models import BEST, FINAL, LATEST, load_network

if TYPE_CHECKING:
    from nnunet_kd.recon.training.trainer import ReconTrainer

__all__ = ["BEST", "FINAL", "LATEST", "load_network", "remove_leftovers", "resume", "save_checkpoint"]


def save_checkpoint(trainer: "ReconTrainer", path: Path, *, epoch: int, best: float | None, log: EpochLog) -> None:
    """Write a checkpoint; a collective call of all ranks, the first of which writes.

    Args:
        trainer: What is trained.
        path: The file.
        epoch: Epochs that ended.
        best: Best validation score of the stage; ``None`` before the first.
        log: Of the epochs.
    """
    state = random_state()
    if trainer.place.rank != 0:
        return
    checkpoint = {
        "network_weights": trainer.bare_network().state_dict(),
        "optimizer_state": trainer.optimizer.state_dict(),
        "grad_scaler_state": None if trainer.scaler is None else trainer.scaler.state_dict(),
        "epoch": epoch,
        "best": to_plain(best),
        "logging": log.state(),
        "seed": trainer.seed,
        "trainer_name": trainer.run.trainer,
        "kd": {"random": state, **trainer.kd_state()},
    }
    save_atomically(checkpoint, path)


def resume(trainer: "ReconTrainer", say: Callable[[str], None]) -> tuple[int, float | None, EpochLog] | None:
    """Set a trainer to where a fold's checkpoint left off: the final one, else the latest, else the best.

    A damaged file is passed over for the next one. If none of several is whole, training does not start afresh,
    because it would write over them.

    Args:
        trainer: Ready to train.
        say: Takes lines for the log.

    Returns:
        Epochs that ended, best score and log; ``None`` where there is no checkpoint.

    Raises:
        UsageError: If no file is whole, one is unsafe, or it belongs to other plans.
    """
    folder = trainer.run.fold_folder
    candidates = [folder / name for name in (FINAL, LATEST, BEST) if (folder / name).is_file()]
    for path in candidates:
        try:
            checkpoint = load_checkpoint_safely(path)
        except UsageError as error:
            if isinstance(error, UnsafeCheckpointError):
                raise
            say(f"Passed over: {error}")
            continue
        found = take_over(trainer, checkpoint, path)
        say(f"Continuing from {path.name} after {found[0]} epochs")
        return found
    if candidates:
        raise UsageError(f"no whole checkpoint in {folder} to continue from; train without --c, which starts afresh")
    return None


def take_over(trainer: "ReconTrainer", checkpoint: dict[str, Any], path: Path) -> tuple[int, float | None, EpochLog]:
    """Set network, optimisers, random states and what is distilled.

    Raises:
        UsageError: If the checkpoint belongs to other plans, or lacks something.
    """
    try:
        kd = dict(checkpoint["kd"])
        trainer.bare_network().load_state_dict(checkpoint["network_weights"])
        trainer.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if trainer.scaler is not None and checkpoint["grad_scaler_state"]:
            trainer.scaler.load_state_dict(checkpoint["grad_scaler_state"])
        epoch, trainer.seed = (_count(checkpoint, key) for key in ("epoch", "seed"))
        best = None if checkpoint["best"] is None else float(checkpoint["best"])
        log = EpochLog(checkpoint["logging"])
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{path} does not suit the plans '{trainer.run.plans.plans_name}' ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); if they were planned anew since, train without --c"
        ) from error
    trainer.restore_kd(kd)
    restore_random_state(kd.get("random"), rank=trainer.place.rank)
    return epoch, best, log


def _count(checkpoint: dict[str, Any], key: str) -> int:
    number = operator.index(checkpoint[key])
    if number < 0:
        raise ValueError(f"{key}: {number}")
    return number


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for leftover in folder.glob(f"*.pth{TEMPORARY}"):
        leftover.unlink(missing_ok=True)

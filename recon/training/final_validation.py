"""The validation cases reconstructed by the trained network: ``fold_X/validation`` with ``summary.json``."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.training.checkpoints import BEST, FINAL, LATEST
from nnunet_kd.recon.training.models import load_weights
from nnunet_kd.recon.training.trainer import ReconTrainer
from nnunet_kd.recon.training.validation import mean_scores, validate


def load_trained(trainer: ReconTrainer) -> Path:
    """Load the final checkpoint's weights, else those of the latest, else of the best, and return the file.

    Raises:
        UsageError: If there is none, or it does not fit.
    """
    folder = trainer.run.fold_folder
    for name in (FINAL, LATEST, BEST):
        if (folder / name).is_file():
            load_weights(trainer.bare_network(), folder / name)
            return folder / name
    raise UsageError(f"expected a checkpoint in {folder}, found none; train without --val first")


def validate_finally(trainer: ReconTrainer, say: Callable[[str], None]) -> None:
    """Write every validation case's reconstruction as fastMRI's submissions do, and their scores.

    Args:
        trainer: With the weights to validate.
        say: Takes lines for the log.
    """
    from nnunet_kd.recon.data.hdf5 import written
    from nnunet_kd.recon.evaluation.summary import summarise

    folder = trainer.run.fold_folder / "validation"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(name: str, image: NDArray[np.float32]) -> None:
        with written(folder / f"{name}.h5") as content:
            content["reconstruction"] = image

    scores = validate(trainer, keep)
    if trainer.place.rank == 0:
        files = [(trainer.run.preprocessed / f"{name}_target.b2nd", folder / f"{name}.h5") for name in scores]
        write_json_atomically(summarise(files, list(scores.values())), folder / "summary.json")
        text = ", ".join(f"{name} {score:.4f}" for name, score in mean_scores(scores).items())
        say(f"Validation complete, mean over {len(scores)} volumes: {text}")

"""What plans amount to: the accelerations that their masks reach, the trainer that takes them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks.settings import OF_POINTS, SamplingSettings
from nnunet_kd.recon.physics.sampling import true_acceleration
from nnunet_kd.recon.planning.plans import ReconPlans
from nnunet_kd.recon.planning.sampling import planned_sampling


def true_accelerations(plans: ReconPlans, fingerprint: Mapping[str, Any]) -> list[float]:
    """Return the true acceleration of every case under the mask it is validated with.

    Args:
        plans: Of a reconstruction.
        fingerprint: Of the data set.
    """
    sampling = planned_sampling(plans.sampling or {})
    found = []
    for name, case in fingerprint["cases"].items():
        if "mask" in case:
            found.append(float(case["mask"]["true_acceleration"]))
            continue
        mask = sampling.draw(case["matrix"], name)
        whole = np.array(np.broadcast_to(mask, case["matrix"]))
        padding = case["padding"]
        found.append(true_acceleration(whole, None if padding is None else (padding[0], padding[1])))
    return found


def check_masks(plans: ReconPlans, fingerprint: Mapping[str, Any]) -> None:
    """Refuse masks that may sample nothing, and a fully sampled centre that is larger than the matrix.

    Args:
        plans: Of a reconstruction; others have no masks.
        fingerprint: Of the data set.

    Raises:
        UsageError: With the smallest share of the centre that helps, or the most lines that fit.
    """
    settings = None if plans.sampling is None else planned_sampling(plans.sampling).settings
    if settings is None or settings.mask == "file":
        return
    for matrix in sorted({tuple(case["matrix"]) for case in fingerprint["cases"].values() if "mask" not in case}):
        _check_centre(settings, matrix)


def _check_centre(settings: SamplingSettings, matrix: tuple[int, ...]) -> None:
    size = min(matrix) if settings.mask in OF_POINTS else matrix[1 if settings.axis == "columns" else 0]
    if settings.n_calibration is not None and settings.n_calibration > size:
        raise UsageError(
            f"sampling, n_calibration: expected at most {size} on a matrix of {matrix[0]}x{matrix[1]}, got "
            f"{settings.n_calibration}; write a smaller number into dataset.json"
        )
    if settings.mask != "random":
        return
    for fraction in settings.center_fractions:
        n_center = round(size * fraction) if settings.n_calibration is None else settings.n_calibration
        if n_center == 0:
            raise UsageError(
                f"masks 'random' with {fraction:g} of the centre keep no line for certain on a matrix of "
                f"{matrix[0]}x{matrix[1]}; type --center-fraction with at least {1 / size:.3f} for each acceleration, "
                "or --mask equispaced"
            )


def acceleration_line(plans: ReconPlans, fingerprint: Mapping[str, Any]) -> str:
    """Return masks, nominal and true acceleration in a line."""
    sampling = planned_sampling(plans.sampling or {})
    true = true_accelerations(plans, fingerprint)
    nominal = ", ".join(f"{value:g}" for value in sampling.settings.acceleration)
    mask = sampling.settings.mask
    asked = f"{mask} file" if mask == "file" else f"{mask}, nominal acceleration {nominal}"
    fixed = ", one mask for all" if sampling.fixed_seed is not None or mask == "file" else ""
    return f"masks         {asked}, true {np.mean(true):.2f} ({min(true):.2f} to {max(true):.2f} over volumes){fixed}"


def trainer_name(plans: ReconPlans, configuration: str) -> str:
    """Return the trainer that suits a configuration's network: its own if it has one, else one for any."""
    from nnunet_kd.recon.training.trainers import TRAINERS

    network = plans.configuration(configuration).architecture.network_class_name.rpartition(".")[2]
    distils = plans.kd is not None  # a control without teachers too: the others read no kd block
    own = f"{network}{'KD' if distils else ''}Trainer"
    if own in TRAINERS:
        return own
    return "DistilledTrainer" if distils else "ReconTrainer"

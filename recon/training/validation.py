"""Reconstruction of whole volumes and their scores, on the scale of the data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import SampleSettings, collate, make_sample
from nnunet_kd.recon.evaluation.metrics import METRICS, Score, score_volume
from nnunet_kd.recon.training.batches import to_device
from nnunet_kd.recon.training.ranks import gather
from nnunet_kd.recon.training.supervision import magnitude

if TYPE_CHECKING:
    from nnunet_kd.recon.training.trainer import ReconTrainer

Scores = dict[str, dict[str, float]]


def metric_names(wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the names in the registry of metrics, whatever their case.

    Raises:
        UsageError: If there is none of a name.
    """
    known = {name.casefold(): name for name in METRICS}
    for name in wanted:
        if name.casefold() not in known:
            raise UsageError(f"plans, metrics: expected names among {', '.join(known)}, got '{name}'")
    return tuple(known[name.casefold()] for name in wanted)


def is_better(score: float, best: float | None, metric: str) -> bool:
    """Tell whether a score beats the best so far; NaN beats nothing."""
    if best is None or np.isnan(best):
        return not np.isnan(score)
    found: Score = METRICS[metric]
    return score > best if found.metric.higher_is_better else score < best


def crop_to(image: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the centre out of images ``(B, H, W)``, from ``(N - n) // 2`` on, as the targets were cut."""
    top, left = ((n - wanted) // 2 for n, wanted in zip(image.shape[-2:], size, strict=True))
    return image[..., top : top + size[0], left : left + size[1]]


@torch.no_grad()
def reconstruct(
    trainer: "ReconTrainer", name: str, settings: SampleSettings | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reconstruct a validation case under its own mask.

    Args:
        trainer: Its network is in evaluation mode.
        name: Of the case.
        settings: Of its mask; ``None`` takes those of the plans.

    Returns:
        Target and image, float32, ``(S, h, w)``, on the scale of the data.

    Raises:
        UsageError: If the case has no target.
    """
    cases, size = trainer.validation_cases, trainer.run.configuration.batch_size
    settings = settings or trainer.settings
    facts = cases.facts[name]
    targets, images = [], []
    for start in range(0, facts.n_slices, size):
        numbers = range(start, min(start + size, facts.n_slices))
        slices = (cases.read(name, number, settings.n_neighbours) for number in numbers)
        batch = collate([make_sample(data, settings, volume_scale=facts.volume_scale) for data in slices])
        if batch.target is None:
            raise UsageError(f"{name}: expected a target to validate with, found none; preprocess the data set again")
        output = trainer.reconstruct(to_device(batch, trainer.device).acquisition)
        scale = torch.as_tensor(batch.scale).view(-1, 1, 1)
        images.append(crop_to(magnitude(output).cpu(), batch.target.shape[-2:]) * scale)
        targets.append(batch.target * scale)
    truth, found = (torch.cat(parts).numpy().astype(np.float32, copy=False) for parts in (targets, images))
    return truth, found


def validate(
    trainer: "ReconTrainer",
    keep: Callable[[str, NDArray[np.float32]], None] | None = None,
    settings: SampleSettings | None = None,
) -> Scores:
    """Return the scores of every validation case, shared out over the ranks.

    Args:
        trainer: What is trained.
        keep: Called with name and image of each case.
        settings: Of the masks; ``None`` takes those of the plans.

    Raises:
        UsageError: If an image cannot be scored.
    """
    trainer.bare_network().eval()
    place, scores = trainer.place, {}
    for name in trainer.run.validation_cases[place.rank :: place.world_size]:
        target, image = reconstruct(trainer, name, settings)
        try:
            scores[name] = score_volume(target, image, trainer.metrics)
        except ValueError as error:  # weights that are not finite, slices that a metric's window does not fit into
            raise UsageError(f"{name}: {error}; lower training, initial_lr or change metrics in the plans") from error
        if keep is not None:
            keep(name, image)
    everyone = {name: found for ranks in gather(scores) for name, found in ranks.items()}
    return {name: everyone[name] for name in trainer.run.validation_cases}


def by_acceleration(trainer: "ReconTrainer") -> dict[str, SampleSettings]:
    """Return settings of masks with one of several planned accelerations each, by a label such as ``x8``.

    Empty where plans have one acceleration, or every validation case has a mask of its own.
    """
    planned = trainer.settings.sampling
    if planned is None or len(planned.settings.acceleration) < 2:
        return {}
    if all(facts.mask is not None for facts in trainer.validation_cases.facts.values()):
        return {}
    asked, found = planned.settings, {}
    for number, rate in enumerate(asked.acceleration):
        centre = asked.center_fraction
        if centre is not None and not asked.any_combination:
            centre = centre[number : number + 1]
        one = replace(asked, acceleration=(rate,), center_fraction=centre)
        found[f"x{rate:g}"] = replace(trainer.settings, sampling=replace(planned, settings=one))
    return found


def validate_epoch(trainer: "ReconTrainer") -> dict[str, float]:
    """Return mean scores by metric; of several accelerations the mean over them, then each, as ``PSNR x8``."""
    several = by_acceleration(trainer)
    if not several:
        return mean_scores(validate(trainer))
    found = {label: mean_scores(validate(trainer, settings=settings)) for label, settings in several.items()}
    names = next(iter(found.values()), {})
    means = {name: float(np.mean([scores[name] for scores in found.values()])) for name in names}
    return means | {f"{name} {label}": scores[name] for label, scores in found.items() for name in names}


def mean_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over cases per metric; volumes without a value, as empty ones, do not count."""
    names = next(iter(scores.values()), {})
    values = {name: [case[name] for case in scores.values() if np.isfinite(case[name])] for name in names}
    return {name: float(np.mean(row)) if row else float("nan") for name, row in values.items()}

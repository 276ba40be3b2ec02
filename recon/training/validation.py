"""Reconstruction of whole volumes and their scores, on the scale of the data."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import PreprocessedCases, SampleSettings, collate, make_sample
from nnunet_kd.recon.evaluation.metrics import METRICS, Score, score_volume
from nnunet_kd.recon.training.batches import to_device
from nnunet_kd.recon.training.supervision import magnitude

Scores = dict[str, dict[str, float]]
Context = Callable[[], AbstractContextManager[Any]]


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
    network: nn.Module,
    cases: PreprocessedCases,
    name: str,
    settings: SampleSettings,
    *,
    batch_size: int,
    device: torch.device,
    context: Context,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Reconstruct a case under its own mask.

    Args:
        network: In evaluation mode.
        cases: Holds the case.
        name: Of the case.
        settings: Of the plans.
        batch_size: Slices at once.
        device: Of the network.
        context: Autocast or nothing.

    Returns:
        Target and image, float32, ``(S, h, w)``, on the scale of the data. Empty slices are zero.
    """
    facts = cases.facts[name]
    targets, images = [], []
    numbers = [number for number in range(facts.n_slices) if number not in facts.empty_slices]
    for start in range(0, len(numbers), batch_size):
        slices = (cases.read(name, n, settings.n_neighbours) for n in numbers[start : start + batch_size])
        batch = collate([make_sample(data, settings, volume_scale=facts.volume_scale) for data in slices])
        if batch.target is None:
            raise UsageError(f"{name}: expected a target to validate with, found none; preprocess the data set again")
        with context():
            output = network(to_device(batch, device).acquisition)
        scale = torch.as_tensor(batch.scale).view(-1, 1, 1)
        images.append(crop_to(magnitude(output).cpu(), batch.target.shape[-2:]) * scale)
        targets.append(batch.target * scale)
    return tuple(_volume(torch.cat(parts), numbers, facts.n_slices) for parts in (targets, images))  # type: ignore[return-value]


def _volume(slices: Tensor, numbers: Sequence[int], n_slices: int) -> NDArray[np.float32]:
    volume = np.zeros((n_slices, *slices.shape[1:]), dtype=np.float32)
    volume[list(numbers)] = slices.numpy()
    return volume


def score_cases(
    network: nn.Module,
    cases: PreprocessedCases,
    names: Sequence[str],
    settings: SampleSettings,
    metrics: tuple[str, ...],
    *,
    batch_size: int,
    device: torch.device,
    context: Context,
) -> Scores:
    """Return the scores of every named case, see :func:`reconstruct`."""
    scores = {}
    for name in names:
        target, image = reconstruct(
            network, cases, name, settings, batch_size=batch_size, device=device, context=context
        )
        scores[name] = score_volume(target, image, metrics)
    return scores


def mean_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over cases per metric; volumes without a value, as empty ones, do not count."""
    names = next(iter(scores.values()), {})
    values = {name: [case[name] for case in scores.values() if np.isfinite(case[name])] for name in names}
    return {name: float(np.mean(row)) if row else float("nan") for name, row in values.items()}

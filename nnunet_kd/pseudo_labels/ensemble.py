"""From the members' probabilities to one label, and how far to trust it."""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.labels import Structure

Probabilities = NDArray[np.float32]
LabelMap = NDArray[np.uint8]


def mean_probabilities(members: Iterable[tuple[float, Probabilities]]) -> Probabilities:
    """Return the weighted arithmetic mean over members.

    Args:
        members: Weight > 0 and probabilities ``(C, *spatial)`` of each; one is held at a time.

    Returns:
        ``(C, *spatial)``, float32.

    Raises:
        ValueError: If there is no member.

    References:
        Equal weights: Lachinov et al. 2019, https://arxiv.org/abs/2002.03688

    Example:
        >>> mean_probabilities([(1.0, np.float32([[1.0], [0.0]])), (3.0, np.float32([[0.0], [1.0]]))]).tolist()
        [[0.25], [0.75]]
    """
    total: Probabilities | None = None
    sum_of_weights = 0.0
    for weight, probabilities in members:
        share: Probabilities = np.asarray(probabilities, dtype=np.float32) * np.float32(weight)
        total = share if total is None else total + share
        sum_of_weights += weight
    if total is None:
        raise ValueError("expected at least one member, got none")
    total /= np.float32(sum_of_weights)
    return total


def decide(mean: Probabilities, region_order: Sequence[int] | None) -> tuple[NDArray[Any], Probabilities]:
    """Return the label map of mean probabilities, and how probable each voxel's label is.

    Exclusive labels: the class of the highest probability, of equal ones the lowest. Regions: each one above 0.5 is
    painted with its label, in nnU-Net's order; a voxel is as probable as the region that painted it last, and outside
    of all regions as improbable as the likeliest of them.

    Args:
        mean: ``(C, *spatial)``: classes with the background first, or regions.
        region_order: nnU-Net's ``regions_class_order``; ``None`` for exclusive labels.

    Returns:
        Labels and probabilities in [0, 1], ``(*spatial)`` each.

    Example:
        >>> label, probability = decide(np.float32([[0.4, 0.1], [0.4, 0.2], [0.2, 0.7]]), None)
        >>> label.tolist(), np.round(probability, 1).tolist()
        ([0, 2], [0.4000000059604645, 0.699999988079071])
    """
    smallest = np.uint8 if max(region_order or [mean.shape[0] - 1]) < 255 else np.uint16
    if region_order is None:
        return mean.argmax(axis=0).astype(smallest), mean.max(axis=0)
    label, probability = np.zeros(mean.shape[1:], dtype=smallest), 1 - mean.max(axis=0)
    for value, region in zip(region_order, mean, strict=True):
        inside = region > 0.5
        label[inside] = value
        probability[inside] = region[inside]
    return label, probability


def confidence(label: NDArray[Any], probability: Probabilities) -> float:
    """Return how probable a label is where it names something: the mean over voxels that are not background.

    A label that names nothing is as probable as its least probable voxel: one likely miss makes an empty label
    doubtful, however much of the image is surely empty.

    Args:
        label: What :func:`decide` returned.
        probability: What it returned beside that.

    Returns:
        A number in [0, 1].

    Example:
        >>> confidence(np.array([0, 1, 2]), np.float32([0.6, 0.5, 1.0]))
        0.75
        >>> confidence(np.array([0, 0]), np.float32([0.5, 1.0]))
        0.5
    """
    foreground = label != 0
    if not foreground.any():
        return float(probability.min())
    return float(probability[foreground].mean(dtype=np.float64))


def disagreement(labels: Sequence[NDArray[Any]], structures: Sequence[Structure]) -> float:
    """Return 1 minus the mean Dice between the members' own labels.

    The mean is over all pairs of members and over the classes or regions that any member found. Where both of a pair
    found nothing of a class they agree, Dice 1.

    Args:
        labels: One label map per member, of one shape.
        structures: Classes or regions.

    Returns:
        A number in [0, 1]; 0 for a single member, and where none found anything.

    Example:
        >>> one = Structure(name="one", labels=(1,))
        >>> disagreement([np.array([1, 1, 0]), np.array([1, 0, 0])], [one])  # Dice 2/3
        0.33333333333333337
    """
    scores = []
    for structure in structures:
        masks = [structure.mask(label) for label in labels]
        if any(mask.any() for mask in masks):
            scores += [_dice(a, b) for a, b in combinations(masks, 2)]
    return 1 - float(np.mean(scores)) if scores else 0.0


def _dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0

"""Which predicted lesion belongs to which lesion of the reference, as LiTS pairs them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Lesions of the reference and predicted ones that are taken for the same lesion.

    Attributes:
        reference: Where it is, a mask.
        prediction: Where it was found, a mask.
        overlap: Intersection over union of both.
    """

    reference: Mask
    prediction: Mask
    overlap: float


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The lesions of one case.

    Attributes:
        pairs: Those that overlap, whatever little.
        n_reference: Components of the reference.
        n_predicted: Components of the prediction.
    """

    pairs: tuple[Pair, ...]
    n_reference: int
    n_predicted: int

    def found(self, least: float) -> list[Pair]:
        """Return the pairs with an overlap above ``least``."""
        return [pair for pair in self.pairs if pair.overlap > least]


def _overlaps(reference: Labels, prediction: Labels, n_reference: int, n_predicted: int) -> NDArray[np.int64]:
    """Count the common voxels of each predicted lesion (row) and each of the reference (column)."""
    both = (reference > 0) & (prediction > 0)
    counts = np.zeros((n_predicted, n_reference), dtype=np.int64)
    np.add.at(counts, (prediction[both] - 1, reference[both] - 1), 1)
    return counts


def _merge_reference(overlaps: NDArray[np.int64]) -> tuple[list[list[int]], list[NDArray[np.int64]]]:
    """Join lesions of the reference that one predicted lesion spans, if none covers them more."""
    members = [[number] for number in range(overlaps.shape[1])]
    columns = [overlaps[:, number] for number in range(overlaps.shape[1])]
    for predicted in range(overlaps.shape[0]):
        own = [k for k, column in enumerate(columns) if column[predicted] and column.argmax() == predicted]
        for other in reversed(own[1:]):
            members[own[0]] += members.pop(other)
            columns[own[0]] = columns[own[0]] + columns.pop(other)
    return members, columns


def pair_lesions(reference: Mask, prediction: Mask) -> Pairing:
    """Pair the lesions of one case.

    Lesions are components of voxels with common faces. Lesions of the reference that one predicted lesion overlaps,
    more than any other does, are one; then each predicted lesion goes to the one it overlaps most, and
    those that go to the same are one.

    Args:
        reference: The truth.
        prediction: Of the same shape.

    References:
        What the comments of the organisers' program say,
        https://github.com/PatrickChrist/lits-challenge-scoring, program/helpers/calc_metric.py
    """
    from scipy.ndimage import label

    (true, n_true), (found, n_found) = label(reference), label(prediction)
    pairs: list[Pair] = []
    if n_true and n_found:
        members, columns = _merge_reference(_overlaps(true, found, n_true, n_found))
        table = np.stack(columns, axis=1)
        best = np.where(table.any(axis=1), table.argmax(axis=1), -1)
        for number, lesions in enumerate(members):
            predicted = np.flatnonzero(best == number)
            if len(predicted):
                first = np.isin(true, np.add(lesions, 1))
                second = np.isin(found, predicted + 1)
                overlap = int((first & second).sum()) / int((first | second).sum())
                pairs.append(Pair(reference=first, prediction=second, overlap=overlap))
    return Pairing(pairs=tuple(pairs), n_reference=n_true, n_predicted=n_found)

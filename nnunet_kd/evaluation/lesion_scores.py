"""Scores lesion by lesion, as BraTS has them since 2023."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.scores import dice
from nnunet_kd.evaluation.surfaces import surface_scores
from nnunet_kd.optional import require

Mask = NDArray[np.bool_]
Labels = NDArray[np.integer[Any]]
Box = tuple[slice, ...]


@dataclass(frozen=True, kw_only=True)
class LesionRules:
    """What one data set means by a lesion.

    Attributes:
        n_dilations: A lesion of the reference reaches so many voxels beyond itself: parts that touch then are
            one lesion, and a predicted component that touches it belongs to it.
        smallest: Lesions of the reference up to this volume in mm^3 count neither as found nor as missed.
        penalty: HD95 in mm of a lesion that was missed, and of each that was made up.
    """

    n_dilations: int
    smallest: float
    penalty: float


@dataclass(frozen=True, kw_only=True)
class LesionScores:
    """How well the lesions of one case were found.

    Attributes:
        dice: Sum of the Dice of the reference's lesions, over their number and that of false ones; 1 without any.
        hd95: The same mean of HD95, in mm; 0 without any.
        n_lesions: Of the reference that count.
        n_false: Predicted components that belong to no lesion of the reference, however small.
    """

    dice: float
    hd95: float
    n_lesions: int
    n_false: int


def _components(mask: Mask) -> Labels:
    components: Labels = require("cc3d").connected_components(mask, connectivity=26)
    return components


def _dilate(mask: Mask, n_dilations: int) -> Mask:
    from scipy.ndimage import binary_dilation, generate_binary_structure

    return np.asarray(binary_dilation(mask, generate_binary_structure(3, 2), iterations=n_dilations))


def _boxes(labels: Labels, margin: int) -> list[Box]:
    """Return the box of each label with a margin, cut at the image's border."""
    from scipy.ndimage import find_objects

    return [
        tuple(
            slice(max(0, part.start - margin), min(length, part.stop + margin))
            for part, length in zip(box, labels.shape, strict=True)
        )
        for box in find_objects(labels)
    ]


def reference_lesions(reference: Mask, n_dilations: int) -> Labels:
    """Number the lesions of a reference from 1, 0 elsewhere.

    Components (neighbours by a face, an edge or a corner) whose dilations touch are one lesion. A dilation adds the
    neighbours by a face or an edge.

    Args:
        reference: 3-D.
        n_dilations: How often, at least once.
    """
    return np.where(reference, _components(_dilate(reference, n_dilations)), 0)


def lesion_scores(reference: Mask, prediction: Mask, *, spacing: Sequence[float], rules: LesionRules) -> LesionScores:
    """Score one structure of one case lesion by lesion.

    The predicted components that touch a lesion of the reference with its dilations are, together and whole, its
    prediction; one that touches two lesions is part of both. What touches a lesion that is too small to count is no
    false lesion either.

    Args:
        reference: The truth, 3-D.
        prediction: Of the same shape.
        spacing: Voxel size in mm, in array order.
        rules: Of the data set.

    References:
        The organisers' program, https://github.com/rachitsaluja/BraTS-2023-Metrics
    """
    if not (reference.any() or prediction.any()):
        return LesionScores(dice=1.0, hd95=0.0, n_lesions=0, n_false=0)
    # away from both masks nothing happens; the image's border stays where it is, for dilations end there
    (around,) = _boxes((reference | prediction).astype(np.uint8), rules.n_dilations)
    reference, prediction = reference[around], prediction[around]
    lesions, components = reference_lesions(reference, rules.n_dilations), _components(prediction)
    overlaps, distances = [], []
    touched: set[int] = set()
    for number, box in enumerate(_boxes(lesions, rules.n_dilations), start=1):
        lesion = lesions == number
        reach = _dilate(lesion[box], rules.n_dilations)
        own = sorted(set(np.unique(components[box][reach]).tolist()) - {0})
        touched.update(own)
        if lesion.sum() * np.prod(spacing) > rules.smallest:
            found = np.isin(components, own)
            overlaps.append(dice(lesion, found))
            hd95 = surface_scores(lesion, found, spacing).hd95
            distances.append(hd95 if np.isfinite(hd95) else rules.penalty)
    n_false = len(set(np.unique(components).tolist()) - {0} - touched)
    n_all = len(overlaps) + n_false
    return LesionScores(
        dice=sum(overlaps) / n_all if n_all else 1.0,
        hd95=(sum(distances) + n_false * rules.penalty) / n_all if n_all else 0.0,
        n_lesions=len(overlaps),
        n_false=n_false,
    )

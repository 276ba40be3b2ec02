"""Lesion-wise scores by hand, and against the definition over whole volumes."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import label

from nnunet_kd.evaluation.lesion_scores import LesionRules, LesionScores, lesion_scores
from nnunet_kd.evaluation.surfaces import surface_scores

Mask = NDArray[np.bool_]
RULES = LesionRules(n_dilations=1, smallest=2, penalty=374)
ONE = (1.0, 1.0, 1.0)


def cubes(*corners: tuple[int, int, int], size: int = 2) -> Mask:
    """Cubes of ``size`` voxels in 16 x 10 x 10."""
    mask = np.zeros((16, 10, 10), dtype=bool)
    for x, y, z in corners:
        mask[x : x + size, y : y + size, z : z + size] = True
    return mask


NONE, FIRST = cubes(), cubes((4, 4, 4))
ISLAND = cubes((12, 0, 0), size=1)
NO_HD95 = -1.0  # finite, and not worked out

# reference, prediction, lesion-wise Dice and HD95, lesions of the reference, false ones
CASES: dict[str, tuple[Mask, Mask, float, float, int, int]] = {
    "both_empty": (NONE, NONE, 1, 0, 0, 0),
    "truth_empty": (NONE, ISLAND, 0, 374, 0, 1),
    "prediction_empty": (FIRST, NONE, 0, 374, 1, 0),
    # one lesion exactly, and a voxel far away that is not too small to be false: (1 + 0) / 2, (0 + 374) / 2
    "false_island": (FIRST, FIRST | ISLAND, 1 / 2, 187, 1, 1),
    # a gap of two voxels, which the two dilations fill: one lesion of 16 voxels, 8 of them found, 2 * 8 / (16 + 8).
    # The far face of the missed cube is 4 mm from the found one, and more than a twentieth of the surface
    "merged_by_dilation": (cubes((4, 4, 4), (8, 4, 4)), FIRST, 2 / 3, 4, 1, 0),
    # a gap of three: two lesions, one found exactly and one missed
    "apart": (cubes((4, 4, 4), (9, 4, 4)), FIRST, 1 / 2, 187, 2, 0),
    # two components of the prediction, one in the lesion and one beside it: 2 * 1 / (8 + 2)
    "two_components_of_one_lesion": (FIRST, cubes((4, 4, 4), (6, 4, 4), size=1), 1 / 5, NO_HD95, 1, 0),
    # a bar of 2 x 2 x 8 over two lesions, 4 mm apart, is the prediction of each: 2 * 8 / (8 + 32) twice
    "two_lesions_of_one_component": (
        cubes((4, 4, 0), (4, 4, 6)),
        cubes((4, 4, 0), (4, 4, 2), (4, 4, 4), (4, 4, 6)),
        2 / 5,
        NO_HD95,
        2,
        0,
    ),
    # with an edge in common a voxel is in reach, with a corner only it is not: missed, and false
    "edge": (FIRST, cubes((6, 6, 5), size=1), 0, NO_HD95, 1, 0),
    "corner": (FIRST, cubes((6, 6, 6), size=1), 0, 374, 1, 1),
    # a lesion of 1 mm^3 does not count, and what touches it is not false either
    "small_and_found": (ISLAND, ISLAND, 1, 0, 0, 0),
    "small_and_missed": (FIRST | ISLAND, FIRST, 1, 0, 1, 0),
    "small_and_found_beside_another": (FIRST | ISLAND, FIRST | ISLAND, 1, 0, 1, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_cases_by_hand(case: str) -> None:
    reference, prediction, dice, hd95, n_lesions, n_false = CASES[case]
    found = lesion_scores(reference, prediction, spacing=ONE, rules=RULES)
    assert (found.n_lesions, found.n_false) == (n_lesions, n_false)
    assert found.dice == pytest.approx(dice)
    assert found.hd95 == pytest.approx(hd95) if hd95 != NO_HD95 else found.hd95 < 374


@pytest.mark.parametrize(("spacing", "n_lesions"), [((2.0, 1.0, 1.0), 0), ((2.1, 1.0, 1.0), 1)])
def test_a_lesion_of_the_threshold_itself_does_not_count(spacing: tuple[float, ...], n_lesions: int) -> None:
    """One voxel of 2 and of 2.1 mm^3; the threshold is 2 mm^3."""
    assert lesion_scores(ISLAND, NONE, spacing=spacing, rules=RULES).n_lesions == n_lesions


def test_distances_are_in_mm() -> None:
    """Two voxels beside each other along an axis of 3 mm: half of each surface 3 mm from the other."""
    first, second = cubes((4, 4, 4), size=1), cubes((5, 4, 4), size=1)
    assert lesion_scores(first, second, spacing=(3.0, 1.0, 1.0), rules=RULES).hd95 == 3


def slow(reference: Mask, prediction: Mask, spacing: tuple[float, ...], rules: LesionRules) -> LesionScores:
    """The definition over whole volumes, voxel by voxel where it is cheap."""
    steps = [step - 1 for step in np.argwhere(np.ones((3, 3, 3))) if np.abs(step - 1).sum() <= 2]

    def grow(mask: Mask) -> Mask:
        for _ in range(rules.n_dilations):
            near = np.concatenate([np.argwhere(mask) + step for step in steps])
            near = near[((near >= 0) & (near < mask.shape)).all(axis=1)]
            mask = np.zeros_like(mask)
            mask[tuple(near.T)] = True
        return mask

    grown, components = label(grow(reference), np.ones((3, 3, 3)))[0], label(prediction, np.ones((3, 3, 3)))[0]
    scores, used = [], {0}
    for number in range(1, grown.max() + 1):
        lesion = reference & (grown == number)
        own = set(components[grow(lesion)].tolist()) - {0}
        used |= own
        found = np.isin(components, list(own))
        hd95 = surface_scores(lesion, found, spacing).hd95
        if lesion.sum() * np.prod(spacing) > rules.smallest:
            scores.append((2 * (lesion & found).sum() / (lesion.sum() + found.sum()), 374 if np.isinf(hd95) else hd95))
    n_false = len(set(components.ravel().tolist()) - used)
    scores += [(0.0, 374.0)] * n_false
    means = np.mean(scores, axis=0) if scores else (1.0, 0.0)
    return LesionScores(dice=means[0], hd95=means[1], n_lesions=len(scores) - n_false, n_false=n_false)


@pytest.mark.parametrize("seed", range(6))
def test_many_lesions_agree_with_the_definition(seed: int) -> None:
    random = np.random.default_rng(seed)
    rules = LesionRules(n_dilations=1 + seed % 2, smallest=3, penalty=374)
    reference, prediction = np.zeros((2, 30, 24, 20), dtype=bool)
    for mask, n_blobs in ((reference, 9), (prediction, 12)):
        for corner in random.integers(0, (30, 24, 20), size=(n_blobs, 3)):
            ends = corner + random.integers(1, 5, size=3)
            mask[tuple(slice(start, end) for start, end in zip(corner, ends, strict=True))] = True
    expected = slow(reference, prediction, (1.0, 2.0, 1.5), rules)
    found = lesion_scores(reference, prediction, spacing=(1.0, 2.0, 1.5), rules=rules)
    assert expected.n_lesions > 1
    assert (found.n_lesions, found.n_false) == (expected.n_lesions, expected.n_false)
    assert (found.dice, found.hd95) == pytest.approx((expected.dice, expected.hd95))

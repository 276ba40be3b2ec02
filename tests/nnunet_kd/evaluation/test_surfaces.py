"""Distances between surfaces, by hand and against all pairs of voxels."""

import warnings

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from nnunet_kd.evaluation.surfaces import border_distances, hausdorff, surface_scores

SPACING = (3.0, 1.0, 0.5)


def test_surfaces_of_two_voxels_lie_at_their_corners() -> None:
    """Voxels 0 and 3 of an axis of 2 mm: corners at 0 and 2 mm, at 6 and 8 mm, all of one area.

    Half of the surface is 4 mm from the other voxel, half 6 mm.
    """
    first, second = np.zeros((2, 4, 1, 1), dtype=bool)
    first[0], second[3] = True, True
    found = surface_scores(first, second, (2.0, 1.0, 1.0), tolerance=4.0)
    assert (found.hd95, found.surface_dice) == (6.0, 0.5)
    assert surface_scores(first, second, (2.0, 1.0, 1.0), tolerance=3.99).surface_dice == 0
    assert surface_scores(first, second, (2.0, 1.0, 1.0), tolerance=6.0).surface_dice == 1


def test_an_empty_mask_is_infinitely_far_and_two_have_no_distance() -> None:
    full, empty = np.ones((2, 2, 2), dtype=bool), np.zeros((2, 2, 2), dtype=bool)
    for masks in ((full, empty), (empty, full)):
        found = surface_scores(*masks, (1.0, 1.0, 1.0))
        assert (found.hd95, found.surface_dice) == (np.inf, 0.0)
    assert np.isnan(surface_scores(empty, empty, (1.0, 1.0, 1.0)).hd95)


def test_the_library_warns_nobody(random: np.random.Generator) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        surface_scores(random.random((5, 6, 7)) < 0.5, random.random((5, 6, 7)) < 0.5, SPACING)


@pytest.mark.parametrize(("connectivity", "n_neighbours"), [(1, 6), (2, 18)])
def test_border_distances_are_the_least_of_all_pairs(
    connectivity: int, n_neighbours: int, random: np.random.Generator
) -> None:
    masks = [np.pad(random.random((4, 5, 6)) < 0.9, ((0, 2), (2, 0), (0, 0))) for _ in range(2)]
    steps = np.argwhere(np.ones((3, 3, 3))) - 1
    near = steps[(np.abs(steps).sum(axis=1) > 0) & (np.abs(steps).sum(axis=1) <= connectivity)]
    assert len(near) == n_neighbours

    def border(mask: np.ndarray) -> np.ndarray:
        inside = {tuple(voxel) for voxel in np.argwhere(mask)}
        return np.array([v for v in sorted(inside) if not all(tuple(np.add(v, s)) in inside for s in near)])

    first, second = (border(mask) * SPACING for mask in masks)
    pairs = cdist(first, second)
    found = border_distances(*masks, SPACING, connectivity=connectivity)
    np.testing.assert_allclose(found[0], pairs.min(axis=1))
    np.testing.assert_allclose(found[1], pairs.min(axis=0))
    if connectivity == 1:
        assert hausdorff(*masks, SPACING) == pytest.approx(max(pairs.min(axis=0).max(), pairs.min(axis=1).max()))

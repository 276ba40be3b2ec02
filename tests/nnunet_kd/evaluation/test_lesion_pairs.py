"""Pairs of lesions by hand, along one axis."""

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.evaluation.lesion_pairs import pair_lesions


def line(text: str) -> NDArray[np.bool_]:
    """A row of voxels, ``#`` where the mask is."""
    return np.array([[[letter == "#" for letter in text]]])


@pytest.mark.parametrize(
    ("reference", "prediction", "overlaps", "numbers"),
    [
        ("......", "......", [], (0, 0)),
        ("......", ".##...", [], (0, 1)),
        (".##...", "......", [], (1, 0)),
        (".##...", "....##", [], (1, 1)),
        (".###..", "..###.", [2 / 4], (1, 1)),
        # one predicted lesion spans two: 4 of its 5 voxels
        ("##.##.", "#####.", [4 / 5], (2, 1)),
        # two predicted lesions in one: 4 of 5
        ("#####.", "##.##.", [4 / 5], (1, 2)),
        # the second lesion is covered more by the second prediction, so that the first prediction does not
        # join it to the first; the first prediction goes to the first lesion: 3 of 5, and 3 of 4
        ("###.####", "#####.##", [3 / 5, 2 / 4], (2, 2)),
        # a predicted lesion goes to the lesion it overlaps most, here the second; nobody is left for the first
        ("#.###...", "######..", [4 / 6], (2, 1)),
        ("##.##.##", "##....#.", [2 / 2, 1 / 2], (3, 2)),
    ],
)
def test_lesions_are_joined_and_paired(
    reference: str, prediction: str, overlaps: list[float], numbers: tuple[int, int]
) -> None:
    found = pair_lesions(line(reference), line(prediction))
    assert [pair.overlap for pair in found.pairs] == pytest.approx(overlaps)
    assert (found.n_reference, found.n_predicted) == numbers
    assert len(found.found(0.5)) == sum(overlap > 0.5 for overlap in overlaps)


def test_lesions_that_share_an_edge_only_are_two() -> None:
    diagonal = np.eye(3, dtype=bool)[None]
    assert pair_lesions(diagonal, diagonal).n_reference == 3

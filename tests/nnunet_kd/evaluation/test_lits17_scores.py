"""LiTS' scores by hand: of the liver, of lesions that were found, and of all cases together."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.lits17_scores import METRICS, N_COUNTS, POOLED, SCORES, combine, object_scores

SCHEME = LabelScheme(structures=(Structure(name="liver", labels=(1, 2)), Structure(name="lesion", labels=(2,))))
NAN = float("nan")
PENALTY = [1, 9001, 9001, 9001, 9001]
SaveLabels = Callable[..., Path]
Score = Callable[[str, str], np.ndarray]


@pytest.fixture
def score(tmp_path: Path, save_labels: SaveLabels) -> Score:
    """Score a row of voxels of 2 mm, a digit each."""

    def from_text(reference: str, prediction: str) -> np.ndarray:
        files = [
            save_labels(tmp_path / f"{n}.nii.gz", np.array([[list(map(int, text))]], np.uint8), (1.0, 1.0, 2.0))
            for n, text in (("truth", reference), ("found", prediction))
        ]
        return SCORES.score_files((files[0], files[1]), SCHEME)

    return from_text


# Distances in a row of voxels: all are border. Liver of 4 against 3 of these: the reference's have 0, 0, 0 and 2 mm,
# the prediction's 0: mean 2 / 7, root of the mean square sqrt(4 / 7), largest 2
LIVER = [6 / 7, 1 / 4, 1 / 3, 2 / 7, np.sqrt(4 / 7), 2]


@pytest.mark.parametrize(
    ("reference", "prediction", "liver", "lesion"),
    [
        # RVD is (reference - prediction) / prediction, here (4 - 3) / 3; no lesion in either: Dice 1, nothing found
        ("011110", "011100", LIVER, [1, *[NAN] * 5]),
        # the other way round: (3 - 4) / 4
        ("011100", "011110", [6 / 7, 1 / 4, -1 / 4, *LIVER[3:]], [1, *[NAN] * 5]),
        # lesions belong to the liver. One lesion of 3, found with 2: overlap 2 / 3; distances 0, 0, 2, 0, 0
        ("112221", "112211", [1, 0, 0, 0, 0, 0], [4 / 5, 1 / 3, 1 / 2, 2 / 5, np.sqrt(4 / 5), 2]),
        # overlap 1 / 2 is not above 1 / 2: not found
        ("112211", "112111", [1, 0, 0, 0, 0, 0], [2 / 3, *[NAN] * 5]),
        # two lesions, one found exactly, one with overlap 1 / 3: the means are of the first alone
        ("2212221", "2212111", [1, 0, 0, 0, 0, 0], [6 / 8, 0, 0, 0, 0, 0]),
        # a false lesion in a case without, and a missed one
        ("111111", "112111", [1, 0, 0, 0, 0, 0], [0, *[NAN] * 5]),
        ("112111", "111111", [1, 0, 0, 0, 0, 0], [0, *[NAN] * 5]),
        # no plain liver predicted: none of it counts, the lesion does
        ("112211", "002200", [0, *PENALTY], [1, 0, 0, 0, 0, 0]),
        ("112211", "000000", [0, *PENALTY], [0, *[NAN] * 5]),
        ("000000", "011000", [0, *PENALTY], [1, *[NAN] * 5]),
    ],
)
def test_cases_by_hand(reference: str, prediction: str, liver: list[float], lesion: list[float], score: Score) -> None:
    found = score(reference, prediction)
    assert found.shape == (2, len(METRICS) + N_COUNTS)
    np.testing.assert_allclose(found[:, : len(METRICS)], [liver, lesion], atol=1e-12)


def test_a_voxel_with_an_edge_at_the_outside_is_border() -> None:
    """A cube of 3 x 3 x 3 and the same without the middle of an edge, which makes a border of its centre.

    Both borders have 26 voxels; that centre and the edge's middle are 1 mm from the other, the rest is common.
    """
    prediction = np.ones((3, 3, 3), dtype=bool)
    reference = prediction.copy()
    reference[0, 0, 1] = False
    assert object_scores(reference, prediction, (1.0, 1.0, 1.0))[2] == pytest.approx(2 / 52)


@pytest.mark.parametrize(
    ("cases", "liver_dice", "lesion"),
    [
        # First case: lesions of 3 and 1, found with 2 (overlap 2 / 3) and not at all; a false one of 1.
        # Second: one of 2, found exactly. Third: no plain liver in the prediction.
        # Lesion: Dice 2 * (2 + 2) / (4 + 3 + 2 + 2 + 0 + 0); objects are the means of the two found: VOE 1 / 3 and 0,
        # RVD 1 / 2 and 0, ASSD 2 / 5 and 0, RMSD sqrt(4 / 5) and 0, 2 mm and 0; found 2 of 3 predicted and of 3 true.
        # Burden: 4 / 9 - 3 / 9, 0 and 0 / 3 - 9001.
        # Liver: 9 + 3 common voxels of 18 + 6 and the 3 of the third reference
        (
            [("222121111", "221112111"), ("122", "122"), ("111", "000")],
            24 / 27,
            [
                *(8 / 11, 1 / 6, 1 / 4, 1 / 5, np.sqrt(4 / 5) / 2, 1),
                *(2 / 3, 2 / 3, 2 / 3, 2 / 3),
                *(np.sqrt((1 / 81 + 9001**2) / 3), 1 / 9),
            ],
        ),
        # a pair with overlap 1 / 3 is touched but not found; nothing found at all has the penalties
        ([("12221", "12111")], 1, [2 / 4, *PENALTY, 0, 0, 1, 1, 2 / 5, 2 / 5]),
        ([("111", "111")], 1, [NAN, *PENALTY, 0, 0, 0, 0, 0, 0]),
        # one predicted lesion over two of the reference is one pair, of three counted lesions: overlap 4 / 5
        ([("22122", "22222")], 0, [8 / 9, *PENALTY[:0], 1 / 5, -1 / 5, *[None] * 3, 1, 1 / 2, 1, 1 / 2, *[None] * 2]),
    ],
    ids=["three_cases", "touched", "no_lesion", "joined"],
)
def test_all_cases_together_by_hand(
    cases: list[tuple[str, str]], liver_dice: float, lesion: list[float | None], score: Score
) -> None:
    counts = np.stack([score(*case)[:, len(METRICS) :] for case in cases])
    liver, found = combine(counts)
    np.testing.assert_allclose(liver, [liver_dice, *[NAN] * (len(POOLED) - 1)])
    known = [number for number, value in enumerate(lesion) if value is not None]
    np.testing.assert_allclose(found[known], [lesion[number] for number in known], atol=1e-12)

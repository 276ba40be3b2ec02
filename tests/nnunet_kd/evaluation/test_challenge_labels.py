"""What a challenge scores, found in data sets that name it in their own ways."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.score_sets import SCORE_SETS, score_set

Labels = dict[str, tuple[int, ...]]
SaveLabels = Callable[..., Path]


def fitted(name: str, labels: Labels, ignore: int | None = None) -> Labels:
    fit = score_set(name).fit
    assert fit is not None
    structures = tuple(Structure(name=key, labels=values) for key, values in labels.items())
    found = fit(LabelScheme(structures=structures, ignore=ignore), "dataset.json")
    return {structure.name: tuple(sorted(structure.labels)) for structure in found.structures}


BRATS = {"whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)}
KITS = {"kidney and masses": (1, 2, 3), "masses": (2, 3), "tumor": (2,)}
LITS = {"liver": (1, 2), "lesion": (2,)}


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("brats2023", BRATS, BRATS),
        ("brats2023-met", {"TC": (2, 3), "WT": (1, 2, 3), "ET": (3,)}, BRATS),
        ("brats2023", {"edema": (1,), "necrosis": (2,), "enhancing tumor": (3,)}, BRATS),
        ("brats2023", {"edema": (1,), "non-enhancing tumor": (2,), "enhancing tumour": (3,)}, BRATS),  # MSD's
        # the organisers' own numbers: 1 is necrosis there
        ("brats2023-men", {"NCR": (1,), "ED": (2,), "ET": (3,)}, BRATS | {"tumor core": (1, 3)}),
        ("kits23", {"kidney": (1,), "tumor": (2,), "cyst": (3,)}, KITS),
        ("kits23", {"kidney": (1, 2, 3), "masses": (2, 3), "tumor": (2,)}, KITS),
        ("lits17", {"liver": (1,), "tumor": (2,)}, LITS),
        ("lits17", {"liver": (1, 2), "cancer": (2,)}, LITS),
        ("acdc", {"RV": (1,), "MLV": (2,), "LVC": (3,)}, {"LV": (3,), "RV": (1,), "MYO": (2,)}),
        ("msd", {"liver": (1,), "cancer": (2,)}, {"liver": (1,), "cancer": (2,)}),
    ],
)
def test_classes_and_regions_give_the_challenges_structures(name: str, labels: Labels, expected: Labels) -> None:
    assert fitted(name, labels) == expected
    assert list(fitted(name, labels)) == list(expected)


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("kits23", {"1": (1,), "2": (2,), "3": (3,)}, "the labels kidney, tumor, cyst, or the regions kidney and"),
        ("kits23", {"kidney": (1,), "tumor": (2,)}, "found 'kidney' (1), 'tumor' (2) in dataset.json"),
        ("kits23", {"kidney": (1,), "tumor": (2,), "cyst": (3,), "liver": (4,)}, "'liver' (4)"),
        ("kits23", {"kidney": (1, 2), "masses": (2, 3), "tumor": (2,)}, "kidney and masses (3 labels)"),
        ("kits23", {"kidney": (1, 2, 3), "masses": (2, 3), "tumor": (1,)}, "give the dataset.json"),
        ("brats2023", BRATS | {"resection cavity": (4,)}, "'resection cavity' (4)"),
        ("brats2023", BRATS | {"tumor core": (1, 2)}, "'tumor core' (1, 2)"),
        ("lits17", {"liver": (1,), "vessel": (2,)}, "the labels liver, lesion"),
        ("msd", {"liver": (2,), "cancer": (1,)}, "Task04_Hippocampus Anterior, Posterior"),
        ("msd", {"liver": (1, 2), "cancer": (2,)}, "'liver' (1, 2)"),
    ],
)
def test_other_structures_are_refused_with_what_was_expected(name: str, labels: Labels, said: str) -> None:
    with pytest.raises(UsageError) as error:
        fitted(name, labels)
    assert said in str(error.value)
    assert f"--scores {name} " in str(error.value)
    assert "\n" not in str(error.value)


FITTED = [name for name in SCORE_SETS if score_set(name).fit]


@pytest.mark.parametrize("name", FITTED)
def test_an_ignore_label_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"--scores {name} knows no ignore label"):
        fitted(name, {"a": (1,)}, ignore=2)


@pytest.mark.parametrize("name", FITTED)
def test_other_processes_can_score(name: str) -> None:
    assert pickle.loads(pickle.dumps(score_set(name).score_files))


@pytest.mark.parametrize("name", FITTED)
def test_slices_and_unknown_labels_are_refused(name: str, save_labels: SaveLabels, tmp_path: Path) -> None:
    scheme = LabelScheme(structures=(Structure(name="a", labels=(1,)), Structure(name="b", labels=(2,))))
    flat = save_labels(tmp_path / "flat.nii.gz", np.ones((4, 4), np.uint8))
    with pytest.raises(UsageError, match="expected volumes"):
        score_set(name).score_files((flat, flat), scheme)
    other = save_labels(tmp_path / "other.nii.gz", np.full((4, 4, 4), 9, np.uint8))
    with pytest.raises(UsageError, match="found 9"):
        score_set(name).score_files((other, other), scheme)

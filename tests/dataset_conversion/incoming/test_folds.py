"""Claims about folds over patients."""

from pathlib import Path

import pytest

from nnunet_kd.dataset_conversion.challenge import Case
from nnunet_kd.dataset_conversion.incoming.folds import patient_folds


def _cases(n_patients: int, n_each: int = 2, label: Path | None = Path("x")) -> list[Case]:
    return [
        Case(name=f"p{patient:02d}_{scan}", images=(), label=label, patient=f"p{patient:02d}")
        for patient in range(n_patients)
        for scan in range(n_each)
    ]


def test_no_patient_is_on_both_sides_of_a_fold() -> None:
    splits, text = patient_folds([*_cases(11), *_cases(30, label=None)])
    assert splits is not None
    assert text == "5 over 11 patients"
    for fold in splits:
        sides = [{name[:3] for name in fold[part]} for part in ("train", "val")]
        assert not sides[0] & sides[1]
        assert len(fold["train"]) + len(fold["val"]) == 22
    assert sorted(name for fold in splits for name in fold["val"]) == sorted(case.name for case in _cases(11))


def test_patients_are_dealt_out_as_nnunet_deals_out_cases() -> None:
    """scikit-learn's KFold(5, shuffle=True, random_state=12345) over ten sorted names, written out."""
    from sklearn.model_selection import KFold

    splits, _ = patient_folds(_cases(10))
    expected = [sorted(val) for _, val in KFold(5, shuffle=True, random_state=12345).split(range(10))]
    assert splits is not None
    assert [sorted({int(name[1:3]) for name in fold["val"]}) for fold in splits] == expected


@pytest.mark.parametrize(("cases", "text"), [(_cases(9, 1), "nnU-Net's own"), (_cases(4), "5 patients, there are 4")])
def test_no_file_where_it_would_say_nothing_or_cannot_be(cases: list[Case], text: str) -> None:
    splits, said = patient_folds(cases)
    assert splits is None
    assert text in said

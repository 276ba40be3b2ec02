import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.dataset import RawDataset, open_dataset
from nnunet_kd.recon.planning.splits import patient_splits, planned_splits

# two visits of each patient
PATIENTS = {f"case{number:02d}": f"patient{number // 2}" for number in range(14)}


@pytest.mark.parametrize("n_folds", [2, 5, 7])
def test_patients_are_never_on_both_sides(n_folds: int) -> None:
    splits = patient_splits(PATIENTS, n_folds)
    assert len(splits) == n_folds
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(PATIENTS)
    for fold in splits:
        assert {*fold["train"], *fold["val"]} == set(PATIENTS)
        assert not {PATIENTS[case] for case in fold["train"]} & {PATIENTS[case] for case in fold["val"]}


def test_one_case_per_patient_gives_nnunets_folds() -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    cases = [f"case{number:02d}" for number in range(11)]
    assert patient_splits({case: case for case in cases}) == generate_crossval_split(cases, n_splits=5)


def test_fewer_patients_than_folds_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"at least 5 patients for 5 folds, got 2; type --folds") as error:
        patient_splits({"a": "1", "b": "2", "c": "2"})
    assert "\n" not in str(error.value)


@pytest.fixture
def described(folders: Path) -> Callable[..., RawDataset]:
    path = folders / "raw" / "Dataset001_Single" / "dataset.json"
    content = json.loads(path.read_text())

    def rewrite(**changes: Any) -> RawDataset:
        path.write_text(json.dumps(content | changes))
        return open_dataset("1")

    return rewrite


def test_own_folds_of_the_data_set_win(described: Callable[..., RawDataset], folders: Path) -> None:
    own = [{"train": ["phantom_001"], "val": ["phantom_004"]}]
    dataset = described(splits=own)
    assert planned_splits(dataset, folders) == own
    assert len(planned_splits(dataset, folders, 3)) == 3
    assert planned_splits(dataset, folders, 0) == []


def test_folds_that_are_there_stay_unless_they_divide_a_patient(
    described: Callable[..., RawDataset], folders: Path
) -> None:
    mine = [{"train": ["phantom_001"], "val": ["phantom_002"]}]
    (folders / "splits_final.json").write_text(json.dumps(mine))
    assert planned_splits(described(), folders) == mine
    with pytest.raises(UsageError, match=r"--folds 3, but .* has 1"):
        planned_splits(described(), folders, 3)
    dataset = described(patients={"phantom_001": "same", "phantom_002": "same"})
    with pytest.raises(UsageError, match=r"splits_final\.json, fold 0: .*patient 'same'"):
        planned_splits(dataset, folders)

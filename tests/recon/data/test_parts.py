"""Who trains and who tests: never a patient in two parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.formats.source import SourceCase
from nnunet_kd.recon.data.parts import SplitOptions, deal_out

PARTS = {"a1": "train", "a2": "train", "b1": "val", "c1": "test"}
CASES = [SourceCase(name=name, files=(), part=part) for name, part in PARTS.items()]
PATIENTS = {name: name[0] for name in PARTS}


def _json(folder: Path, content: Any) -> Path:
    (folder / "file.json").write_text(json.dumps(content))
    return folder / "file.json"


def test_the_sources_parts_become_one_fold() -> None:
    parts = deal_out(CASES, PATIENTS, SplitOptions())
    assert (parts.training, parts.test) == (["a1", "a2", "b1"], ["c1"])
    assert parts.splits == [{"train": ["a1", "a2"], "val": ["b1"]}]
    assert deal_out(CASES, PATIENTS, SplitOptions(own_splits=False)).splits is None


def test_test_patients_take_all_their_cases_along() -> None:
    parts = deal_out(CASES, PATIENTS, SplitOptions(test_patients=["a"]))
    assert (parts.training, parts.test, parts.splits) == (["b1"], ["a1", "a2", "c1"], None)


def test_a_file_of_patients_counts_before_the_source(tmp_path: Path) -> None:
    patients = _json(tmp_path, {"a1": "x", "a2": "x"})
    assert deal_out(CASES, PATIENTS, SplitOptions(test_patients=["x"], patients=patients)).test == ["a1", "a2", "c1"]


@pytest.mark.parametrize("names", [{"train": ["a"], "val": ["b"]}, {"train": ["a1", "a2"], "val": ["b1"]}])
def test_a_file_of_folds_names_patients_or_cases(tmp_path: Path, names: dict[str, list[str]]) -> None:
    parts = deal_out(CASES, PATIENTS, SplitOptions(splits=_json(tmp_path, [names])))
    assert parts.splits == [{"train": ["a1", "a2"], "val": ["b1"]}]


@pytest.mark.parametrize(
    ("patients", "message"),
    [
        ({"a2": "b"}, "patient 'b' is in train .'a2'. and val .'b1'."),
        ({"c1": "a"}, "patient 'a' is in kspaceTr .'a1'. and kspaceTs .'c1'."),
        ({"d1": "a"}, "expected cases of the source, got 'd1'"),
        ({"a1": 3}, "expected the name of a patient, got 3"),
    ],
)
def test_a_patient_in_two_parts_is_refused(tmp_path: Path, patients: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        deal_out(CASES, PATIENTS, SplitOptions(patients=_json(tmp_path, patients)))


@pytest.mark.parametrize("folds", [{"train": ["a1"]}, [], [{"train": ["a1"], "val": ["a2"]}], [{"train": "a1"}], ["a"]])
def test_folds_of_another_form_are_refused(tmp_path: Path, folds: Any) -> None:
    with pytest.raises(UsageError, match=r"file\.json"):
        deal_out(CASES, PATIENTS, SplitOptions(splits=_json(tmp_path, folds)))


def test_an_unknown_test_patient_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--test-patients: .* got 'z'"):
        deal_out(CASES, PATIENTS, SplitOptions(test_patients=["z"]))

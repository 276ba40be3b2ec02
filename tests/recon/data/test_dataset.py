"""Raw data sets: what ``dataset.json`` must say, and no patient in two parts."""

import json
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.dataset import check_settings, dataset_name, open_dataset

SETTINGS = {
    "task": "reconstruction",
    "name": "Knee",
    "acquisition": "single_coil",
    "kspace": "measured",
    "sampling": {"mask": "random", "acceleration": 4},
    "patients": {"a": "1", "b": "2", "c": "3"},
    "splits": [{"train": ["a"], "val": ["b"]}],
    "numTraining": 2,
    "file_ending": ".h5",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    folder = tmp_path / "Dataset004_Knee"
    for case in ("kspaceTr/a", "kspaceTr/b", "kspaceTs/c"):
        path = folder / f"{case}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "dataset.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.mark.parametrize("text", ["4", "Dataset004_Knee", "PATH"])
def test_a_data_set_is_opened_by_number_name_or_path(folder: Path, text: str) -> None:
    dataset = open_dataset(str(folder) if text == "PATH" else text)
    assert (list(dataset.training), list(dataset.test)) == (["a", "b"], ["c"])
    assert dataset.patients == SETTINGS["patients"]
    assert dataset.splits == SETTINGS["splits"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "segmentation"}, "task: expected one of reconstruction"),
        ({"acquisition": None}, "acquisition: expected one of"),
        ({"kspace": "real"}, "kspace: expected one of measured"),
        ({"sampling": None}, "expected 'sampling' for task reconstruction"),
        ({"task": "super_resolution"}, "expected 'truncation' for task super_resolution"),
        ({"numTraining": 3}, "numTraining: expected 3 cases in kspaceTr, found 2"),
        ({"patients": {"a": "1", "b": "1"}}, "fold 0: .* patient '1' is in train .'a'. and val .'b'."),
        ({"patients": {"a": "1", "c": "1"}}, "patient '1' is in kspaceTr .'a'. and kspaceTs .'c'."),
        ({"patients": ["1"]}, "patients: expected an object"),
        ({"splits": [{"train": ["a"], "val": ["d"]}]}, "splits, fold 0: expected cases of kspaceTr, got 'd'"),
        ({"splits": [{"train": ["a"]}]}, "splits, fold 0: expected cases under 'train' and 'val'"),
    ],
)
def test_what_is_wrong_is_named(folder: Path, change: dict[str, Any], message: str) -> None:
    (folder / "dataset.json").write_text(json.dumps(SETTINGS | change))
    with pytest.raises(UsageError, match=message) as error:
        open_dataset("4")
    assert str(folder / "dataset.json") in str(error.value)


@pytest.mark.parametrize(("factor", "good"), [([4, 4], True), ([1, 2, 2], False), ([4], False), ([0.5, 2], False)])
def test_truncation_has_a_factor_per_axis(factor: list[float], good: bool) -> None:
    settings = {key: value for key, value in SETTINGS.items() if key not in ("sampling", "splits", "patients")}
    settings |= {"task": "super_resolution", "truncation": {"factor": factor}}
    if good:
        check_settings(settings, ["a", "b"], [], "here")
        return
    with pytest.raises(UsageError, match="truncation, factor"):
        check_settings(settings, ["a", "b"], [], "here")


def test_a_mask_file_is_found_from_anywhere(folder: Path) -> None:
    change = {"sampling": {"mask": "file", "file": "mask.npy"}}
    (folder / "dataset.json").write_text(json.dumps(SETTINGS | change))
    assert Path(open_dataset("4").settings["sampling"]["file"]) == folder.resolve() / "mask.npy"


@pytest.mark.parametrize(("number", "name"), [(0, "A"), (1000, "A"), (1, "A__B"), (1, "a b"), (1, "")])
def test_names_that_nnunet_could_not_take_are_refused(number: int, name: str) -> None:
    with pytest.raises(UsageError):
        dataset_name(number, name)


def test_an_unknown_data_set_is_named_with_those_that_exist(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one data set '5' in .*, found none"):
        open_dataset("5")

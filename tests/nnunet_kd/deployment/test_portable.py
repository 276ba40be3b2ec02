"""Paths of the author's machine, whichever system it ran, do not travel with a model."""

from typing import Any

import pytest

from nnunet_kd.deployment.portable import portable_dataset, portable_plans, without_paths
from nnunet_kd.errors import UsageError

MODEL = "nnUNetTrainer__nnUNetPlans__2d"


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        (f"Dataset004_A/{MODEL}", f"Dataset004_A/{MODEL}"),
        (f"/data/ada/results/Dataset004_A/{MODEL}", f"Dataset004_A/{MODEL}"),
        (f"/data/ada/{MODEL}", MODEL),
        (f"../ada/{MODEL}", MODEL),
        (f"C:\\Users\\ada\\Dataset004_A\\{MODEL}", f"Dataset004_A/{MODEL}"),
    ],
)
def test_a_teachers_folder_becomes_its_name(folder: str, expected: str) -> None:
    block = {"method": "kd", "teachers": [{"model_folder": folder, "folds": "same"}]}
    plans = {"plans_name": "P", "kd": {"version": 1, "configurations": {"2d": block}}}
    settings = portable_plans(plans)["kd"]["configurations"]["2d"]
    assert settings == {"method": "kd", "teachers": [{"model_folder": expected, "folds": "same"}]}
    assert block["teachers"] == [{"model_folder": folder, "folds": "same"}]


@pytest.mark.parametrize(
    "block",
    [
        None,
        {"configurations": None},
        {"configurations": {"2d": None}},
        *({"configurations": {"2d": {"teachers": teachers}}} for teachers in (None, [{}], [5], [{"model_folder": 3}])),
    ],
    ids=str,
)
def test_a_kd_block_of_another_form_is_refused(block: object) -> None:
    with pytest.raises(UsageError, match="kd block"):
        portable_plans({"plans_name": "P", "kd": block})


@pytest.mark.parametrize("text", ["/", "/no path but text", "https://example.org/a/b", "torch.nn.LeakyReLU", "1/2", ""])
def test_what_is_no_path_stays(text: str) -> None:
    assert without_paths([text]) == [text]


def test_the_list_of_training_files_stays_at_home() -> None:
    dataset = {"labels": {"background": 0}, "dataset": {"case": {"label": "/data/ada/case.nii.gz"}}}
    assert portable_dataset(dataset) == {"labels": {"background": 0}}


def test_networks_of_a_release_fetch_no_weights() -> None:
    def plans(pretrained: bool) -> dict[str, Any]:
        architecture = {"arch_kwargs": {"n_stages": 5, "pretrained": pretrained}}
        return {"configurations": {"2d": {"architecture": architecture}, "2d_bigger": {"inherits_from": "2d"}}}

    given = plans(pretrained=True)
    assert portable_plans(given) == plans(pretrained=False)
    assert given == plans(pretrained=True)

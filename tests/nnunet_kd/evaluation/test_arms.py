"""Arms from folders and from nnU-Net's summaries: what is accepted, and what is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.arms import FOREGROUND, ArmScores, Cases, Run, check_cases, open_run, score_arms
from nnunet_kd.evaluation.labels import scheme_from_dataset, scheme_from_values
from nnunet_kd.evaluation.score_sets import RunScores
from nnunet_kd.evaluation.summaries import read_summary

SaveLabels = Callable[..., Path]
Summarise = Callable[..., Path]
SMALL = np.array([[[0, 1], [2, 0]]], dtype=np.uint8)


def open_all(folder: Path, *names: str) -> list[Run]:
    return [open_run(name, folder / name) for name in names]


def scored(folder: Path, *names: str, labels: NDArray[np.int64] | None = None) -> dict[str, ArmScores]:
    del labels
    runs = open_all(folder, *names)
    return score_arms(runs, check_cases(runs, reference=folder / "labels"), n_processes=1)


# --- agreement with nnU-Net ---


def test_dice_agrees_with_nnunets_own_evaluation(arms: Path, stock_summary: Summarise) -> None:
    summary = stock_summary(arms / "labels", arms / "kd", arms / "summary.json")
    runs = [open_run("ours", arms / "kd"), open_run("nnU-Net's", summary)]
    found = score_arms(runs, check_cases(runs, reference=arms / "labels"), n_processes=1)
    np.testing.assert_allclose(found["ours"].runs[0].values[:, :, :1], found["nnU-Net's"].runs[0].values, rtol=1e-12)
    assert found["nnU-Net's"].metrics == ("dice",)


def test_regions_ignored_voxels_and_empty_masks_agree_with_nnunet(
    tmp_path: Path, save_labels: SaveLabels, stock_summary: Summarise, random: np.random.Generator
) -> None:
    for number in range(3):
        for folder, top in (("labels", 4), ("kd", 3)):
            labels = random.integers(0, top, size=(4, 5, 6)).astype(np.uint8)
            labels[labels == 2] = 2 if number else 0  # no structure 2 in the first case
            save_labels(tmp_path / folder / f"c{number}.nii.gz", labels)
    dataset = {"labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}}
    (tmp_path / "dataset.json").write_text(json.dumps(dataset))
    summary = stock_summary(tmp_path / "labels", tmp_path / "kd", tmp_path / "s.json", [(1, 2), (2,)], 3)
    runs = [open_run("ours", tmp_path / "kd"), open_run("theirs", summary)]
    cases = check_cases(runs, reference=tmp_path / "labels")
    assert cases.scheme_source.endswith("dataset.json")
    found = score_arms(runs, cases, n_processes=1)
    assert np.isnan(found["ours"].runs[0].values[0, 1]).all()
    np.testing.assert_allclose(found["ours"].runs[0].values[:, :, :1], found["theirs"].runs[0].values, rtol=1e-12)


# --- what an arm may be ---


def test_a_folder_with_predictions_and_a_summary_is_scored_anew(arms: Path, stock_summary: Summarise) -> None:
    stock_summary(arms / "labels", arms / "kd", arms / "kd" / "summary.json")
    assert open_run("kd", arms / "kd").summary is None


def test_a_folder_that_holds_only_a_summary_is_read(arms: Path, stock_summary: Summarise) -> None:
    stock_summary(arms / "labels", arms / "kd", arms / "only" / "summary.json")
    assert open_run("kd", arms / "only").cases == [f"case_{number}" for number in range(8)]


def test_summaries_alone_need_no_reference(arms: Path, stock_summary: Summarise) -> None:
    files = [stock_summary(arms / "labels", arms / arm, arms / f"{arm}.json") for arm in ("kd", "student")]
    runs = [open_run(file.stem, file) for file in files]
    cases = check_cases(runs, reference=None)
    assert [structure.name for structure in cases.scheme.structures] == ["1", "2"]
    assert score_arms(runs, cases)["kd"].runs[0].values.shape == (8, 2, 1)


def test_predictions_without_a_reference_are_refused(arms: Path) -> None:
    with pytest.raises(UsageError, match="--reference"):
        check_cases(open_all(arms, "kd"), reference=None)


# --- refusals ---


def test_every_fault_is_named_at_once(arms: Path, save_labels: SaveLabels) -> None:
    (arms / "kd" / "case_3.nii.gz").unlink()
    shutil.copy(arms / "kd" / "case_0.nii.gz", arms / "kd" / "stranger.nii.gz")
    save_labels(arms / "student" / "case_5.nii.gz", np.zeros((12, 14, 16), dtype=np.uint8), (2.0, 1.0, 1.5))
    with pytest.raises(UsageError) as refused:
        check_cases(open_all(arms, "teacher", "kd", "student"), reference=arms / "labels")
    text = str(refused.value)
    for said in ("'kd'", "lacks case_3", "stranger", "'student'", "case_5 (spacing 1.5x1x2 instead of 1x1x2)"):
        assert said in text
    assert "'teacher'" not in text
    assert "\n" not in text


def test_a_summary_of_other_cases_is_refused(arms: Path, stock_summary: Summarise) -> None:
    summary = stock_summary(arms / "labels", arms / "kd", arms / "s.json")
    (arms / "labels" / "case_7.nii.gz").unlink()
    with pytest.raises(UsageError, match="the reference has not, case_7"):
        check_cases([open_run("kd", summary)], reference=arms / "labels")


def test_chosen_cases_leave_the_others_out_and_must_exist(arms: Path) -> None:
    (arms / "kd" / "case_3.nii.gz").unlink()
    runs, chosen = open_all(arms, "kd", "student"), ["case_6", "case_1"]
    cases = check_cases(runs, reference=arms / "labels", wanted=chosen)
    assert cases.names == ("case_6", "case_1")
    assert score_arms(runs, cases, n_processes=1)["kd"].runs[0].cases == ("case_6", "case_1")
    with pytest.raises(UsageError, match=r"lacks case_3(?!.*case_1)"):
        check_cases(runs, reference=arms / "labels", wanted=["case_1", "case_3"])
    with pytest.raises(UsageError, match="the reference lacks nobody"):
        check_cases(runs, reference=arms / "labels", wanted=["case_1", "nobody"])


def test_a_summary_without_a_structure_is_refused(arms: Path, stock_summary: Summarise) -> None:
    summary = stock_summary(arms / "labels", arms / "kd", arms / "s.json", [1])
    runs = [open_run("kd", summary)]
    with pytest.raises(UsageError, match="no Dice of 2"):
        score_arms(runs, check_cases(runs, reference=arms / "labels"))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"metric_per_case": []}',
        '{"metric_per_case": [{"metrics": {"1": {"IoU": 1}}, "prediction_file": "a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"liver": {"Dice": 1}}, "prediction_file": "a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"1": {"Dice": 1}}}]}',
        '{"metric_per_case": [{"metrics": {"0": {"Dice": 1}}, "prediction_file": "a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"1": {"Dice": 1e300}}, "prediction_file": "a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"1": {"Dice": -Infinity}}, "prediction_file": "a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"1": {"Dice": 1}}, "prediction_file": "a.nii.gz"}, '
        '{"metrics": {"1": {"Dice": 1}}, "prediction_file": "b/a.nii.gz"}]}',
        '{"metric_per_case": [{"metrics": {"1": {"Dice": 1}}, "prediction_file": "a.nii.gz"}, '
        '{"metrics": {"2": {"Dice": 1}}, "prediction_file": "b.nii.gz"}]}',
    ],
)
def test_files_that_are_no_summary_are_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "odd.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"odd\.json"):
        read_summary(file)


# --- structures ---


@pytest.mark.parametrize("value", [7, -3])
@pytest.mark.parametrize("folder", ["labels", "kd"])
def test_labels_that_nobody_named_are_refused(arms: Path, save_labels: SaveLabels, folder: str, value: int) -> None:
    (arms / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "a": 1, "b": 2}}))
    save_labels(arms / folder / "case_3.nii.gz", np.full((12, 14, 16), value, np.int16), (2.0, 1.0, 1.0))
    runs = [open_run("kd", arms / "kd")]
    with pytest.raises(UsageError, match=rf"{folder}/case_3.* found {value}"):
        score_arms(runs, check_cases(runs, reference=arms / "labels"))


@pytest.mark.parametrize("label", [-1, 10**30, True, "1", None])
def test_numbers_that_are_no_label_are_refused(label: object) -> None:
    with pytest.raises(UsageError, match=r"expected nnU-Net's labels"):
        scheme_from_dataset({"labels": {"background": 0, "a": label}}, Path("dataset.json"))


def test_a_decathlon_dataset_json_beside_the_labels_is_passed_over(arms: Path) -> None:
    (arms / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "a"}}))
    cases = check_cases(open_all(arms, "kd"), reference=arms / "labels")
    assert [structure.name for structure in cases.scheme.structures] == ["1", "2"]
    with pytest.raises(UsageError, match="nnU-Net's labels"):
        check_cases(open_all(arms, "kd"), reference=arms / "labels", dataset_json=arms / "dataset.json")


def test_a_reference_without_any_structure_is_refused(tmp_path: Path, save_labels: SaveLabels) -> None:
    for folder in ("labels", "kd"):
        save_labels(tmp_path / folder / "a.nii.gz", 0 * SMALL)
    with pytest.raises(UsageError, match="every case is empty"):
        check_cases(open_all(tmp_path, "kd"), reference=tmp_path / "labels")


def test_runs_are_averaged_per_case_and_structures_within_a_run() -> None:
    nan = np.nan
    values = np.array([[[0.2], [0.4]], [[0.6], [nan]]])  # two cases, two structures
    runs = [
        RunScores(cases=("a", "b"), structures=("1", "2"), metrics=("dice",), values=v) for v in (values, values + 0.2)
    ]
    arm = ArmScores(name="kd", sources=("x", "y"), runs=tuple(runs))
    np.testing.assert_allclose(arm.by_run("2", "dice"), [[0.4, nan], [0.6, nan]])
    np.testing.assert_allclose(arm.per_case(FOREGROUND, "dice"), [0.4, 0.7])


def test_an_arm_has_only_the_metrics_of_all_its_runs(arms: Path, stock_summary: Summarise) -> None:
    summary = stock_summary(arms / "labels", arms / "kd", arms / "s.json")
    runs = [open_run("kd", arms / "kd"), open_run("kd", summary)]
    cases = Cases(names=("case_0",), reference=None, scheme=scheme_from_values([1]), scheme_source="")
    with pytest.raises(KeyError):  # predictions are never scored without a reference
        score_arms(runs, cases)
    found = score_arms(runs, check_cases(runs, reference=arms / "labels"), n_processes=1)
    assert found["kd"].metrics == ("dice",)
    assert found["kd"].by_run("1", "dice").shape == (2, 8)

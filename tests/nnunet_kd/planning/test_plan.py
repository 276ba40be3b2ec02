"""Claims about ``nnunet_kd plan``, through the program in this process."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd.cli import main
from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.planning.checks import common_patch
from nnunet_kd.planning.planner import default_plans_name

Plan = Callable[..., int]


def written(site: Any) -> list[str]:
    return sorted(path.name for path in (site.preprocessed / site.dataset).glob("nnUNetKD*"))


def test_the_student_takes_the_teachers_plans_with_a_smaller_network_and_a_block(
    site: Any, plan: Plan, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan("--seed", "7", "--losses", "logits_kl:weight=0.5,temperature=4,schedule=warmup") == 0
    plans, theirs = site.plans("nnUNetKDPlans"), json.loads((teacher / "plans.json").read_text())
    ours, base = plans["configurations"]["3d_fullres"], theirs["configurations"]["3d_fullres"]
    assert ours["architecture"]["arch_kwargs"]["features_per_stage"] == [
        max(4, n // 2) for n in base["architecture"]["arch_kwargs"]["features_per_stage"]
    ]
    assert ours["data_identifier"] == base["data_identifier"]  # nothing is preprocessed twice
    kd = plans["kd"]["configurations"]["3d_fullres"]
    assert kd["losses"] == [{"name": "logits_kl", "weight": 0.5, "schedule": "warmup", "temperature": 4}]
    assert kd["seed"] == 7
    (entry,) = kd["teachers"]
    assert (
        entry["model_folder"] == "Dataset900_Toy/nnUNetTrainer__nnUNetPlans__3d_fullres"
    )  # relative to nnUNet_results
    assert entry["sha256"]["0"] == file_sha256(teacher / "fold_0" / "checkpoint_final.pth")
    assert kd["budget"]["num_epochs"] == 2
    output = capsys.readouterr().out
    for claim in ("parameters", "GMAC per patch", "peak activations", "on disk", "nnUNetv2_train Dataset900_Toy"):
        assert claim in output


def test_planning_again_needs_overwrite_and_changes_that_configuration_only(
    site: Any, plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    before = site.plans("nnUNetKDPlans")
    before["kd"]["configurations"]["2d"] = before["kd"]["configurations"]["3d_fullres"]
    site.write_plans(before)
    assert plan("--seed", "1") == 2
    assert "--overwrite" in capsys.readouterr().err
    assert site.plans("nnUNetKDPlans") == before
    assert plan("--seed", "1", "--overwrite") == 0
    after = site.plans("nnUNetKDPlans")["kd"]["configurations"]
    assert after["3d_fullres"]["seed"] == 1
    assert after["2d"]["seed"] is None


def test_a_control_needs_no_teacher_and_keeps_the_size(site: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "-d", "900", "-c", "3d_fullres", "--method", "none"]) == 0
    plans = site.plans("nnUNetKDNonePlans")
    kd = plans["kd"]["configurations"]["3d_fullres"]
    assert kd["losses"] == kd["teachers"] == []
    stock = site.plans("nnUNetPlans")["configurations"]["3d_fullres"]["architecture"]
    assert plans["configurations"]["3d_fullres"]["architecture"] == stock
    assert "1.0x" in capsys.readouterr().out


def test_a_random_teacher_is_a_teacher_without_checkpoint(site: Any, plan: Plan) -> None:
    assert plan("--random-teacher", "--seed", "2", name=None) == 0
    (entry,) = site.plans("nnUNetKDRandomS2Plans")["kd"]["configurations"]["3d_fullres"]["teachers"]
    assert entry["checkpoint"] is None
    assert entry["sha256"] == {}


def test_it_says_what_the_student_learns_from_and_for_how_long(plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    plan("--losses", "logits_kl:weight=0.5,schedule=ramp,temperature=4")
    output = capsys.readouterr().out
    assert "1 teacher (checkpoint_final.pth, the fold being trained) through logits_kl (weight 0.5, ramp" in output
    assert "temperature 4)" in output
    plan("--random-teacher", "-p", "nnUNetKDRandomPlans", "--epochs", "7")
    output = capsys.readouterr().out
    assert "RANDOM weights" in output
    assert "budget: 7 epochs of" in output
    assert "these plans of the data set have another:\n  nnUNetKDPlans: 2 epochs of" in output
    plan("--method", "none", "-p", "nnUNetKDNonePlans")
    assert "learns from: labels only (a control, or a teacher to be)" in capsys.readouterr().out


def test_several_teachers_and_folds_make_an_ensemble(site: Any, plan: Plan, teacher: Path) -> None:
    other = teacher.with_name("nnUNetTrainer__nnUNetOtherPlans__3d_fullres")
    shutil.copytree(teacher, other)
    assert plan("--teacher", str(other), "--folds", "0", "1") == 0
    entries = site.plans("nnUNetKDPlans")["kd"]["configurations"]["3d_fullres"]["teachers"]
    assert [entry["folds"] for entry in entries] == [[0, 1], [0, 1]]


@pytest.mark.parametrize("student", ["plain_unet", "resenc_unet"])
def test_other_network_classes_are_planned_on_the_teachers_stages(site: Any, plan: Plan, student: str) -> None:
    assert plan("--student", student) == 0
    name = site.plans("nnUNetKDPlans")["configurations"]["3d_fullres"]["architecture"]["network_class_name"]
    assert name.endswith({"plain_unet": "PlainConvUNet", "resenc_unet": "ResidualEncoderUNet"}[student])


def test_patches_are_rounded_up_to_what_all_strides_divide() -> None:
    assert common_patch([40, 56], [[[1, 1], [2, 2], [2, 2]], [[1, 1], [3, 1]]]) == [48, 56]
    assert common_patch([12, 8], [[[1, 1], [2, 2]]]) == [12, 8]


@pytest.mark.parametrize(
    ("method", "seed", "name"),
    [
        (None, None, "nnUNetKDPlans"),
        ("none", 0, "nnUNetKDNoneS0Plans"),
        ("random_teacher", None, "nnUNetKDRandomTeacherPlans"),
    ],
)
def test_names_keep_methods_and_seeds_apart(method: str | None, seed: int | None, name: str) -> None:
    assert default_plans_name(method, seed) == name


# ---- what bad input gets: one line, status 2, nothing written ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "nowhere"], "no model folder"),
        (["-c", "3d_lowres"], "is a 3d_fullres model"),
        (["-d", "901"], "expected one data set '901'"),
        (["--shrink", "0"], "--shrink: expected a whole number >= 1"),
        (["--depth", "1"], "--depth: expected 3 to"),
        (["--losses", "logits_kk"], "did you mean 'logits_kl'"),
        (["--losses", "logits_kl:temperatur=2"], "unknown key 'temperatur'"),
        (["--losses", "logits_kl:x"], "expected NAME:KEY=VALUE"),
        (["--losses", "imitation"], "imitation compares images, which only reconstruction has"),
        (["--losses", "logits_kl", "--method", "kd"], "exclude each other"),
        (["--method", "none", "--random-teacher"], "leave out --random-teacher"),
        (["--folds", "3"], "expected fold 3"),
        (["--folds", "x"], "expected fold x"),
        (["-chk", "checkpoint_latest.pth", "--folds", "all"], "expected checkpoint_latest.pth"),
        (["-p", "my__Plans"], "without '__'"),
        (["-p", "a:b*Plans"], "letters, digits"),
        (["-p", "a\nPlans"], "letters, digits"),
        (["-p", "a" * 300 + "Plans"], "give a shorter name"),
        (["-d", ""], "expected one data set ''"),
        (["--no-mirroring"], "type --teacher-outputs cached too"),
        (["-d", "/abs"], "expected one data set '/abs'"),
        (["--teacher", "~nobody-of-this-name/x"], "no model folder"),
        (["-chk", "nope.pth"], "expected nope.pth"),
        (["-chk", ""], "expected in"),
        (["--lr", "1e308"], "initial_lr: expected a number > 0"),
        (["-p", "nnUNetPlans"], "has no kd block"),
        (["--epochs", "0"], "num_epochs: expected a whole number >= 1"),
    ],
)
def test_mistakes_end_in_one_line(
    site: Any, plan: Plan, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert plan(*options) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert written(site) == ["nnUNetKDTeacherPlans.json"]


@pytest.mark.parametrize("folds", [["same"], ["all"], ["0"]])
def test_an_empty_checkpoint_is_no_teacher(
    site: Any, plan: Plan, teacher: Path, capsys: pytest.CaptureFixture[str], folds: list[str]
) -> None:
    (teacher / "fold_0" / "checkpoint_final.pth").write_bytes(b"")
    assert plan("--folds", *folds) == 2
    assert "is empty" in capsys.readouterr().err
    assert written(site) == ["nnUNetKDTeacherPlans.json"]


def test_folds_may_be_trained_after_planning(plan: Plan, teacher: Path) -> None:
    (teacher / "fold_0" / "checkpoint_final.pth").unlink()
    assert plan() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"plans_name": "nnUNetPlans"},
        {"plans_name": "../../escape"},
        {"plans_name": None},
        {"kd": None},
        {"kd": []},
        {"kd": {}},
        {"configurations": None},
    ],
)
def test_plans_that_are_not_ours_are_not_overwritten(
    site: Any, plan: Plan, capsys: pytest.CaptureFixture[str], change: dict[str, Any]
) -> None:
    plan()
    folder = site.preprocessed / site.dataset
    content = site.plans("nnUNetKDPlans") | {"plans_name": "copyPlans"} | change
    (folder / "copyPlans.json").write_text(json.dumps(content))
    before = {path: path.read_bytes() for path in site.root.rglob("*.json")}
    capsys.readouterr()
    assert plan("-p", "copyPlans", "--overwrite") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert {path: path.read_bytes() for path in site.root.rglob("*.json")} == before


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_folders_that_are_not_set_are_named(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], variable: str
) -> None:
    monkeypatch.delenv(variable)
    options = ["--teacher", "Dataset900_Toy/nnUNetTrainer__nnUNetPlans__3d_fullres"]
    assert plan(*options, with_teacher=False) == 2
    assert variable in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("dataset.json", {"labels": {"background": 0, "outer": 2, "inner": 1}}, "labels"),
        ("dataset.json", {"channel_names": {"0": "CT"}}, "channels"),
        ("dataset.json", {"regions_class_order": [1, 2]}, "region order"),
        ("plans.json", {"transpose_forward": [2, 1, 0]}, "transposition is"),
    ],
)
def test_a_second_teacher_that_saw_other_data_is_refused_with_the_difference(
    site: Any,
    plan: Plan,
    teacher: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    change: dict[str, Any],
    message: str,
) -> None:
    other = teacher.with_name("nnUNetTrainer__nnUNetOtherPlans__3d_fullres")
    shutil.copytree(teacher, other)
    content = json.loads((other / file).read_text())
    (other / file).write_text(json.dumps(content | change))
    assert plan("--teacher", str(other)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "nnUNetOtherPlans" in error


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("spacing", [2.0, 1.0, 1.0], "spacing is [2.0, 1.0, 1.0]"),
        ("normalization_schemes", ["CTNormalization"], "normalisation is"),
        ("use_mask_for_norm", [True], "use of the mask"),
    ],
)
def test_a_second_teacher_with_other_preprocessing_is_refused(
    plan: Plan, teacher: Path, capsys: pytest.CaptureFixture[str], key: str, value: Any, message: str
) -> None:
    other = teacher.with_name("nnUNetTrainer__nnUNetOtherPlans__3d_fullres")
    shutil.copytree(teacher, other)
    plans = json.loads((other / "plans.json").read_text())
    plans["configurations"]["3d_fullres"][key] = value
    (other / "plans.json").write_text(json.dumps(plans))
    assert plan("--teacher", str(other)) == 2
    assert message in capsys.readouterr().err


def test_names_of_labels_may_differ_in_case(plan: Plan, teacher: Path) -> None:
    content = json.loads((teacher / "dataset.json").read_text())
    content["labels"] = {"background": 0, "Outer": 1, "INNER": 2}
    (teacher / "dataset.json").write_text(json.dumps(content))
    assert plan() == 0


def test_regions_in_another_order_are_other_outputs(
    site: Any, plan: Plan, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    regions = {"background": 0, "whole": [1, 2], "inner": 2}
    swapped = {"background": 0, "inner": 2, "whole": [1, 2]}
    ours = site.preprocessed / site.dataset / "dataset.json"
    content = json.loads(ours.read_text()) | {"regions_class_order": [1, 2]}
    ours.write_text(json.dumps(content | {"labels": regions}))
    for labels, status in ((regions, 0), (swapped, 2)):
        (teacher / "dataset.json").write_text(json.dumps(content | {"labels": labels}))
        assert plan("--overwrite") == status
    assert "has labels" in capsys.readouterr().err


def test_the_patch_of_the_student_suits_a_teacher_with_longer_strides(
    site: Any, plan: Plan, teacher: Path, make_trainer: Callable[..., Any]
) -> None:
    plans = json.loads((teacher / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["patch_size"] = [18, 22, 18]  # no multiple of the strides
    (teacher / "plans.json").write_text(json.dumps(plans))
    assert plan() == 0
    patch = site.plans("nnUNetKDPlans")["configurations"]["3d_fullres"]["patch_size"]
    trainer = make_trainer()
    trainer.initialize()
    assert all(new >= old for new, old in zip(patch, [18, 22, 18], strict=True))
    with torch.no_grad():
        trainer.network(torch.zeros(1, 1, *patch))


def test_a_teacher_of_another_data_set_gives_plans_that_are_preprocessed_by_themselves(
    site: Any, plan: Plan, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """This data set's own folder of the same name may have been preprocessed in another way."""
    theirs = json.loads((teacher / "plans.json").read_text())
    (teacher / "plans.json").write_text(json.dumps(theirs | {"dataset_name": "Dataset901_Other"}))
    assert plan() == 0
    plans = site.plans("nnUNetKDPlans")
    assert plans["dataset_name"] == site.dataset
    assert plans["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetKDPlans_3d_fullres"
    output = capsys.readouterr().out
    assert f"nnUNetv2_preprocess -d {site.dataset} -plans_name nnUNetKDPlans -c 3d_fullres" in output
    assert "extract_fingerprint" not in output
    (site.preprocessed / site.dataset / "dataset_fingerprint.json").unlink()  # training needs it
    assert plan("--overwrite") == 0
    assert "nnUNetv2_extract_fingerprint -d 900\n" in capsys.readouterr().out

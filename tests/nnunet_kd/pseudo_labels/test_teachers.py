"""Claims about which models may label together."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.pseudo_labels.teachers import check_same_task, open_teachers, recipe

LABELS = {"labels": {"background": 0, "necrotic": 1, "edema": 2}, "channel_names": {"0": "T1", "1": "T1ce"}}
REGIONS = {
    "labels": {"background": 0, "whole": [1, 2], "core": [2]},
    "regions_class_order": [1, 2],
    "channel_names": {"0": "T1"},
}


@pytest.mark.parametrize(
    ("ours", "change", "what"),
    [
        # as the Decathlon numbers them
        (LABELS, {"labels": {"background": 0, "edema": 1, "necrotic": 2}}, "labels"),
        (LABELS, {"labels": {"background": 0, "necrotic": 1, "oedema": 2}}, "labels"),
        (LABELS, {"channel_names": {"0": "T1ce", "1": "T1"}}, "channels"),
        (LABELS, {"channel_names": {"0": "T1"}}, "channels"),
        # the same regions, but the network's outputs the other way round
        (REGIONS, {"labels": {"background": 0, "core": [2], "whole": [1, 2]}}, "labels"),
        (REGIONS, {"regions_class_order": [2, 1]}, "region order"),
    ],
)
def test_other_labels_regions_or_channels_are_refused(ours: dict[str, Any], change: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=rf"^B has {what} .*, A has"):
        check_same_task(ours, "A", {**ours, **change}, "B")


@pytest.mark.parametrize(
    "change",
    [
        {"labels": {"background": 0, "Edema": 2, "Necrotic": 1}},
        {"channel_names": {"0": "t1n", "1": "T1-Gd"}},
        {"numTraining": 3},
    ],
)
def test_spelling_and_order_of_labels_do_not_matter(change: dict[str, Any]) -> None:
    check_same_task(LABELS, "A", {**LABELS, **change}, "B")


def _plans(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        plans = json.loads((folder / "plans.json").read_text())
        plans["configurations"]["3d_lowres"] = plans["configurations"]["3d_fullres"]
        plans["configurations"]["3d_fullres"] |= {k: v for k, v in changes.items() if k == "previous_stage"}
        plans |= {k: v for k, v in changes.items() if k != "previous_stage"}
        (folder / "plans.json").write_text(json.dumps(plans))

    return edit


def _dataset(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(json.dumps(content | changes))

    return edit


@pytest.mark.parametrize(
    ("edit", "options", "message"),
    [
        (_plans(image_reader_writer="NibabelIO"), {}, "image reader NibabelIO"),
        (_plans(previous_stage="3d_lowres"), {}, "second stage of a cascade"),
        (_dataset(labels={"background": 0, "inner": 1, "outer": 2}), {}, "has labels"),
        (_dataset(file_ending=".mha"), {}, "file ending .mha"),
        (_dataset(file_ending=None), {}, "expected a file_ending"),
        (None, {"weights": [1.0]}, "--weights: expected 2 numbers above 0, one per --teacher, got 1"),
        (None, {"weights": [1.0, 0.0]}, "--weights"),
        (None, {"weights": [1.0, float("nan")]}, "--weights"),
        (None, {"folds": ["7"]}, "expected fold 7"),
        (None, {"folds": ["x"]}, "-f: expected numbers or 'all', got 'x'"),
        (None, {"checkpoint": "checkpoint_first.pth"}, "expected checkpoint_first.pth"),
    ],
)
def test_models_that_do_not_go_together_are_refused(
    teacher: Path, edit: Callable[[Path], None] | None, options: dict[str, Any], message: str
) -> None:
    other = teacher.with_name("Other__nnUNetPlans__3d_fullres")
    shutil.copytree(teacher, other)
    if edit is not None:
        edit(other)
    asked = {"weights": None, "folds": None, "checkpoint": "checkpoint_final.pth"} | options
    with pytest.raises(UsageError, match=message):
        open_teachers([str(teacher), str(other)], **asked)


def test_folds_are_all_numbered_ones_unless_named(teacher: Path) -> None:
    def folds(*asked: str) -> tuple[int | str, ...]:
        return open_teachers([str(teacher)], None, asked or None, "checkpoint_final.pth")[1][0].folds

    assert folds() == (0, 1)
    assert folds("1") == (1,)
    assert folds("all") == ("all",)


def test_every_setting_that_changes_labels_changes_the_recipe(teacher: Path) -> None:
    models, teachers = open_teachers([str(teacher)] * 2, [1, 3], None, "checkpoint_final.pth")
    settings = {"mirroring": True, "step_size": 0.5, "whole_volume": False}
    first = recipe(models, teachers, **settings)
    assert [member["weight"] for member in first["teachers"]] == [0.125, 0.125, 0.375, 0.375]
    json.dumps(first)
    for change in ({"mirroring": False}, {"step_size": 0.3}, {"whole_volume": True}):
        assert recipe(models, teachers, **{**settings, **change}) != first
    assert recipe(models, open_teachers([str(teacher)] * 2, None, None, "checkpoint_final.pth")[1], **settings) != first

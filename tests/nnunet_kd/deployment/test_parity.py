"""Figures of agreement on hand-made logits, and the limits they are held to."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunet_kd.deployment.example_patches import Patch
from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.deployment.parity import Agreement, Tolerance, check_agreement, compare, structures
from nnunet_kd.errors import UsageError

REGIONS = {"background": 0, "whole": (1, 2), "core": (2,), "ignore": 3}


@pytest.fixture
def plan(make_model: Callable[..., Path]) -> InferencePlan:
    """Labels background, inner and outer."""
    model = make_model()
    plans, dataset = (json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json"))
    return make_inference_plan(plans, dataset, "3d_fullres", None)


def logits_of(labels: list[int]) -> np.ndarray:
    """Logits 3 of each voxel's label and 0 of the others, ``(3, 1, 1, n)``."""
    return 3 * np.eye(3, dtype=np.float32)[labels].T[:, None, None]


def patch_of(labels: list[int] | None) -> Patch:
    size = 4 if labels is None else len(labels)
    reference = None if labels is None else np.array(labels, dtype=np.int16)[None, None]
    return Patch(case="a", image=np.zeros((1, 1, 1, size), dtype=np.float32), labels=reference)


def test_figures_against_reference_labels(plan: InferencePlan) -> None:
    expected, found = logits_of([0, 1, 1, 2]), logits_of([0, 1, 2, 2])
    figures = compare([expected], [found], [patch_of([0, 1, 1, 2])], plan)
    assert (figures.max_logit_difference, figures.max_logit, figures.voxel_agreement) == (3, 3, 0.75)
    assert figures.dice_of_predictions == {"inner": pytest.approx(2 / 3), "outer": pytest.approx(2 / 3)}
    assert figures.dice_reference == 1
    assert figures.dice_exported == pytest.approx(2 / 3)
    assert figures.dice_drop == pytest.approx(1 / 3)


def test_dice_is_taken_over_all_patches_together(plan: InferencePlan) -> None:
    expected = [logits_of([1, 1, 1]), logits_of([1, 0, 0])]
    found = [logits_of([1, 1, 1]), logits_of([0, 0, 0])]
    figures = compare(expected, found, [patch_of([1, 1, 1]), patch_of([1, 0, 0])], plan)
    assert figures.dice_exported == pytest.approx(6 / 7)
    assert figures.dice_of_predictions["outer"] is None


def test_without_labels_the_drop_is_against_pytorch(plan: InferencePlan) -> None:
    figures = compare([logits_of([0, 1, 1, 0])], [logits_of([0, 1, 0, 0])], [patch_of(None)], plan)
    assert (figures.dice_reference, figures.dice_exported) == (None, None)
    assert figures.dice_drop == pytest.approx(1 / 3)


def test_regions_agree_where_all_of_them_do_and_ignored_voxels_do_not_count(plan: InferencePlan) -> None:
    regions = replace(plan, labels=REGIONS, regions_class_order=(1, 2))
    assert structures(regions) == {"whole": (1, 2), "core": (2,)}
    expected = np.array([[1, 1, -1, 1], [1, -1, -1, 1]], dtype=np.float32)[:, None, None]
    found = np.array([[1, 1, -1, 1], [-1, -1, -1, -1]], dtype=np.float32)[:, None, None]
    figures = compare([expected], [found], [patch_of([2, 1, 0, 3])], regions)
    assert figures.voxel_agreement == 0.5
    assert figures.dice_reference == 1
    assert figures.dice_exported == 0.5  # whole is right, core is missed


def test_labels_are_named_in_the_order_of_the_channels(plan: InferencePlan) -> None:
    assert list(structures(replace(plan, labels={"b": 2, "background": 0, "a": 1}))) == ["a", "b"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [(np.zeros((2, 1, 1, 4)), "another shape"), (np.full((3, 1, 1, 4), np.nan), "no finite numbers")],
    ids=["shape", "nan"],
)
def test_an_export_that_is_broken_is_refused(plan: InferencePlan, broken: np.ndarray, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compare([logits_of([0, 1, 2, 0])], [broken.astype(np.float32)], [patch_of(None)], plan)


@pytest.mark.parametrize(
    ("tolerance", "message"),
    [
        (Tolerance(voxels=0.05), "share of voxels with another label of 0.1, more than 0.05.*--tolerance"),
        (Tolerance(voxels=1, logit=0.1), "logit difference of 0.25, more than 0.1.*--logit-tolerance"),
        (Tolerance(voxels=1, dice=0.01), "mean Dice of 0.02, more than 0.01.*--max-drop"),
    ],
    ids=["voxels", "logit", "dice"],
)
def test_more_than_is_tolerated_is_refused_with_the_number(tolerance: Tolerance, message: str) -> None:
    figures = Agreement(
        max_logit_difference=0.25,
        max_logit=5,
        voxel_agreement=0.9,
        dice_of_predictions={},
        dice_reference=0.8,
        dice_exported=0.78,
        dice_drop=0.02,
    )
    check_agreement(figures, Tolerance(voxels=0.2, logit=0.3, dice=0.03), "bf16")
    with pytest.raises(UsageError, match=f"the bf16 export .*{message}"):
        check_agreement(figures, tolerance, "bf16")

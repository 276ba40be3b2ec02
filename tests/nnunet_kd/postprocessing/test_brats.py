"""BraTS' rules against numbers counted by hand, and against nnU-Net's own way to paint regions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.postprocessing.brats import (
    TumourLabels,
    assemble_regions,
    clean,
    remove_small_components,
    remove_small_enhancing,
    tumour_labels,
)

EDITIONS = {
    "to 2021": TumourLabels(edema=2, necrotic=1, enhancing=4),
    "since 2023": TumourLabels(edema=2, necrotic=1, enhancing=3),
    "nnU-Net's": TumourLabels(edema=1, necrotic=2, enhancing=3),
}
edition = pytest.mark.parametrize("labels", EDITIONS.values(), ids=EDITIONS)


def tumour(n_enhancing: int) -> NDArray[np.float64]:
    """Region probabilities: 300 voxels of tumour, 200 of them core, some of these enhancing."""
    probabilities = np.full((3, 10, 10, 10), 0.1)
    for channel, size in enumerate((300, 200, n_enhancing)):
        probabilities[channel].flat[:size] = 0.9
    return probabilities


def counts(segmentation: NDArray[Any]) -> dict[int, int]:
    values, sizes = np.unique(segmentation[segmentation > 0], return_counts=True)
    return dict(zip(values.tolist(), sizes.tolist(), strict=True))


# --- regions and small enhancing tumours ---


@edition
@pytest.mark.parametrize(("n_enhancing", "kept"), [(0, 0), (1, 0), (32, 0), (33, 33), (150, 150)])
def test_32_enhancing_voxels_are_too_few_and_33_are_enough(labels: TumourLabels, n_enhancing: int, kept: int) -> None:
    expected = {labels.edema: 100, labels.necrotic: 200 - kept} | ({labels.enhancing: kept} if kept else {})
    assert counts(assemble_regions(tumour(n_enhancing), labels=labels)) == expected
    painted = assemble_regions(tumour(n_enhancing), labels=labels, min_enhancing=0)
    assert counts(remove_small_enhancing(painted, labels=labels)) == expected
    assert counts(painted).get(labels.enhancing, 0) == n_enhancing  # the input is not touched


def test_regions_are_painted_in_order_wherever_they_lie() -> None:
    probabilities = np.zeros((3, 1, 8))
    probabilities[0, 0, :2], probabilities[1, 0, 1:4], probabilities[2, 0, 3:6] = 0.51, 0.51, 0.51
    probabilities[:, 0, 7] = 0.5  # not more than the threshold
    labels = EDITIONS["to 2021"]
    assert assemble_regions(probabilities, labels=labels, min_enhancing=2).tolist() == [[2, 1, 1, 4, 4, 4, 0, 0]]
    # too few: the voxels stay what lies beneath them, also nothing
    assert assemble_regions(probabilities, labels=labels, min_enhancing=3).tolist() == [[2, 1, 1, 1, 0, 0, 0, 0]]
    assert assemble_regions(probabilities, labels=labels, threshold=0.51).any() == np.False_


def test_without_the_rule_regions_are_painted_as_nnunet_does() -> None:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    regions = {"background": 0, "whole tumor": (1, 2, 3), "tumor core": (2, 3), "enhancing tumor": (3,)}
    probabilities = np.random.default_rng(0).random((3, 5, 6, 7))
    expected = LabelManager(regions, (1, 2, 3)).convert_probabilities_to_segmentation(probabilities)
    ours = assemble_regions(probabilities, labels=EDITIONS["nnU-Net's"], min_enhancing=0)
    np.testing.assert_array_equal(ours, expected)


def test_three_regions_are_needed() -> None:
    with pytest.raises(ValueError, match="got 4"):
        assemble_regions(np.zeros((4, 2, 2)), labels=EDITIONS["to 2021"])


# --- components ---


@pytest.mark.parametrize(
    ("sizes", "left"),
    [
        ((90, 10), {1: 90, 2: 10}),  # exactly a tenth stays
        ((91, 9), {1: 91}),
        ((100, 12, 11), {1: 100}),  # both shares are of all 123 voxels: 12 and 11 are below 12.3
        ((40, 40, 40), {1: 40, 2: 40, 3: 40}),
        ((9,) * 11, {}),  # as published: each of eleven equal components is small
        ((), {}),
    ],
)
def test_components_below_a_tenth_of_the_tumour_go(sizes: tuple[int, ...], left: dict[int, int]) -> None:
    segmentation = np.zeros((30, 20, 20), dtype=np.uint8)
    for number, size in enumerate(sizes, start=1):
        segmentation[2 * number].flat[:size] = number
    assert counts(remove_small_components(segmentation)) == left
    assert counts(remove_small_components(segmentation, min_share=0.0)) == counts(segmentation)


def test_a_tumour_larger_than_the_background_is_no_background() -> None:
    """The published code counts 1000 - 800 = 200 voxels of foreground here and keeps the island of 50."""
    segmentation = np.zeros((10, 10, 10), dtype=np.uint8)
    segmentation[:8] = 2
    segmentation[9].flat[:50] = 1
    assert counts(remove_small_components(segmentation)) == {2: 800}
    assert counts(remove_small_components(segmentation, min_share=50 / 850)) == {1: 50, 2: 800}


@pytest.mark.parametrize("shape", [(6, 6), (6, 6, 6)])
def test_voxels_that_touch_by_a_corner_are_connected(shape: tuple[int, ...]) -> None:
    segmentation = np.zeros(shape, dtype=np.int16)
    segmentation[(slice(0, 3),) * len(shape)] = 1
    segmentation[(3,) * len(shape)] = 2  # corner to corner, of another label
    segmentation[(5,) * len(shape)] = 2
    cleaned = remove_small_components(segmentation, min_share=0.2)
    assert cleaned[(3,) * len(shape)] == 2
    assert cleaned[(5,) * len(shape)] == 0
    assert cleaned.dtype == np.int16


def test_both_rules_follow_each_other() -> None:
    labels = EDITIONS["since 2023"]
    segmentation = assemble_regions(tumour(30), labels=labels, min_enhancing=0)
    segmentation[9, 9, :9] = 3  # 39 enhancing voxels in all, 9 of them a crumb: the count comes first
    assert counts(clean(segmentation, labels=labels)) == {2: 100, 1: 170, 3: 30}
    assert counts(clean(segmentation, labels=labels, min_enhancing=39)) == {2: 100, 1: 200}
    assert counts(clean(segmentation, labels=labels, min_enhancing=0, min_component=0)) == counts(segmentation)


# --- names ---


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}, (1, 2, 3)),
        ({"Whole Tumour": [1, 2, 4], "Tumour Core": [1, 4], "Enhancing Tumour": 4}, (2, 1, 4)),
        ({"ET": 3, "TC": [1, 3], "WT": [1, 2, 3]}, (2, 1, 3)),
        ({"NETC": 1, "SNFH": 2, "ET": 3, "RC": 4}, (2, 1, 3)),
        ({"edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, (1, 2, 3)),
        ({"necrotic tumor core (NCR)": 1, "peritumoral edematous tissue": 2, "GD-enhancing tumor": 4}, (2, 1, 4)),
        ({"surrounding non-enhancing FLAIR hyperintensity": 2, "non-enhancing tumor core": 1, "ET": 3}, (2, 1, 3)),
        ({"ET": 1, "NET": 2, "CC": 3, "ED": 4}, (4, 2, 1)),
    ],
)
def test_every_editions_names_are_understood(labels: dict[str, Any], expected: tuple[int, int, int]) -> None:
    found = tumour_labels({"labels": {"background": 0, **labels}}, Path("dataset.json"))
    assert (found.edema, found.necrotic, found.enhancing) == expected


@pytest.mark.parametrize(
    "labels",
    [
        {"anterior": 1, "posterior": 2},
        {"edema": 1, "necrosis": 2},  # no enhancing tumour
        {"whole tumor": [1, 2, 3], "enhancing tumor": 3},  # no core
        {"edema": 1, "edema left": 2, "necrosis": 3, "ET": 4},
        {"whole tumor": [1, 2, 3, 4], "tumor core": [3, 4], "enhancing tumor": 4},  # two values of edema
        {"edema": 1, "necrosis": 1, "ET": 2},
    ],
    ids=["others", "no enhancing", "no core", "twice", "two values", "one value"],
)
def test_other_names_are_refused_with_what_was_found(labels: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"found \w+ .*; give a dataset\.json .* --dataset-json") as error:
        tumour_labels({"labels": {"background": 0, **labels}}, Path("dataset.json"))
    assert all(name in str(error.value) for name in labels)

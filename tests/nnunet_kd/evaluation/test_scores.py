"""Scores against hand counts and a brute-force reference that knows no library."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation import score_sets as scores_module
from nnunet_kd.evaluation.labels import LabelScheme, Structure, scheme_from_dataset, scheme_from_values, with_tolerances
from nnunet_kd.evaluation.score_sets import score_runs
from nnunet_kd.evaluation.scores import METRICS, dice, score_case, score_masks

Mask = NDArray[np.bool_]
SaveLabels = Callable[..., Path]


def surface(mask: Mask) -> list[tuple[int, ...]]:
    """Every voxel of the mask with a face neighbour outside of mask or image."""
    filled = {tuple(map(int, voxel)) for voxel in np.argwhere(mask)}
    steps = [
        tuple(sign * (axis == other) for other in range(mask.ndim)) for axis in range(mask.ndim) for sign in (-1, 1)
    ]
    return [v for v in filled if any(tuple(a + b for a, b in zip(v, s, strict=True)) not in filled for s in steps)]


def distances(start: list[tuple[int, ...]], end: list[tuple[int, ...]], spacing: Sequence[float]) -> list[float]:
    def length(a: tuple[int, ...], b: tuple[int, ...]) -> float:
        return math.sqrt(sum(((x - y) * size) ** 2 for x, y, size in zip(a, b, spacing, strict=True)))

    return [min(length(a, b) for b in end) for a in start]


def percentile_95(values: list[float]) -> float:
    """Linear between order statistics."""
    ordered, position = sorted(values), 0.95 * (len(values) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (position - low) * (ordered[high] - ordered[low])


def blobs(random: np.random.Generator, shape: Sequence[int]) -> tuple[Mask, Mask]:
    """Two overlapping boxes with holes and ragged edges, some at the border of the image."""
    masks = []
    for _ in range(2):
        mask = random.random(shape) < 0.15
        start = [int(random.integers(0, size // 2)) for size in shape]
        mask[tuple(slice(s, s + size // 2) for s, size in zip(start, shape, strict=True))] = True
        masks.append(mask)
    return masks[0], masks[1]


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((9, 11), (1.0, 1.0)), ((8, 13), (0.7, 1.9)), ((6, 7, 8), (1.0, 1.0, 1.0)), ((4, 9, 7), (3.0, 0.8, 1.1))],
)
@pytest.mark.parametrize("seed", range(3))
def test_distances_agree_with_brute_force(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    reference, prediction = blobs(np.random.default_rng(seed), shape)
    first, second = surface(reference), surface(prediction)
    there, back = distances(second, first, spacing), distances(first, second, spacing)
    tolerance = spacing[-1]
    within = sum(distance <= tolerance + 1e-9 for distance in there + back) / len(there + back)
    overlap, hd95, surface_dice = score_masks(reference, prediction, spacing=spacing, tolerance=tolerance)
    assert overlap == pytest.approx(2 * np.sum(reference & prediction) / (reference.sum() + prediction.sum()))
    assert hd95 == pytest.approx(max(percentile_95(there), percentile_95(back)), rel=1e-5)
    assert surface_dice == pytest.approx(within, rel=1e-5)


def test_dice_by_hand() -> None:
    reference, prediction = np.zeros((2, 4, 4), dtype=bool)
    reference[:2], prediction[1:3, :3] = True, True  # 8 and 6 voxels, 3 in common
    assert dice(reference, prediction) == pytest.approx(6 / 14)


def test_scores_do_not_change_when_the_masks_swap(random: np.random.Generator) -> None:
    one, two = blobs(random, (7, 8, 9))
    there, back = (score_masks(*pair, spacing=(2, 1, 1)) for pair in ((one, two), (two, one)))
    assert there == pytest.approx(back)


def test_equal_masks_score_best(random: np.random.Generator) -> None:
    mask, _ = blobs(random, (6, 7, 8))
    assert score_masks(mask, mask, spacing=(1, 1, 1), tolerance=0.0) == (1.0, 0.0, 1.0)


def test_a_shift_by_the_tolerance_is_forgiven_and_a_larger_one_is_not() -> None:
    one, two = np.zeros((2, 16, 12), dtype=bool)
    one[3:8, 3:8], two[6:11, 3:8] = True, True
    size = float(np.float32(0.3))  # as NIfTI stores it: three of them are a little more than 0.9
    assert 3 * size > 0.9
    assert score_masks(one, two, spacing=(size, size), tolerance=0.9)[2] == 1.0
    assert score_masks(one, two, spacing=(size, size), tolerance=0.85)[2] < 1.0


def test_distances_are_in_millimetres() -> None:
    one, two = np.zeros((2, 5, 5, 5), dtype=bool)
    one[1, 2, 2], two[3, 2, 2] = True, True
    assert score_masks(one, two, spacing=(2.5, 1, 1))[1] == pytest.approx(5.0)


def test_a_structure_absent_from_both_has_no_score() -> None:
    empty = np.zeros((4, 4), dtype=bool)
    assert np.isnan(score_masks(empty, empty, spacing=(1, 1))).all()


@pytest.mark.parametrize("swap", [False, True])
def test_a_structure_absent_from_one_scores_worst(swap: bool) -> None:
    empty, full = np.zeros((3, 4, 12), dtype=bool), np.ones((3, 4, 12), dtype=bool)
    pair = (full, empty) if swap else (empty, full)
    assert score_masks(*pair, spacing=(1, 1, 1)) == (0.0, 13.0, 0.0)


def test_one_slice_scores_like_the_image_it_is(random: np.random.Generator) -> None:
    one, two = blobs(random, (9, 11))
    flat = score_masks(one, two, spacing=(0.7, 1.9))
    for axis in range(3):
        spacing = [0.7, 1.9]
        spacing.insert(axis, 5.0)
        volume = score_masks(np.expand_dims(one, axis), np.expand_dims(two, axis), spacing=spacing)
        assert volume == pytest.approx(flat)


# --- structures of a case ---


def test_a_region_is_the_union_of_its_labels(random: np.random.Generator) -> None:
    reference, prediction = random.integers(0, 4, size=(2, 5, 6, 7))
    whole = Structure(name="whole", labels=(1, 3))
    scores = score_case(reference, prediction, spacing=(1, 1, 1), scheme=LabelScheme(structures=(whole,)))
    expected = score_masks((reference % 2).astype(bool), (prediction % 2).astype(bool), spacing=(1, 1, 1))
    assert tuple(scores[0]) == expected


def test_ignored_voxels_do_not_count(random: np.random.Generator) -> None:
    reference = np.zeros((6, 8), dtype=np.uint8)
    reference[1:4, 1:4], reference[:, 5:] = 1, 9
    good, bad = reference.copy(), reference.copy()
    good[:, 5:], bad[:, 5:] = 0, random.integers(0, 2, size=(6, 3))
    scheme = LabelScheme(structures=(Structure(name="a", labels=(1,)),), ignore=9)
    for prediction in (good, bad):
        scores = score_case(reference, prediction, spacing=(1, 1), scheme=scheme)
        np.testing.assert_array_equal(scores, [[1.0, 0.0, 1.0]])


def test_labels_regions_and_the_ignore_label_are_read_from_dataset_json() -> None:
    labels = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    scheme = scheme_from_dataset({"labels": labels}, Path("dataset.json"))
    assert scheme.ignore == 3
    assert [(s.name, s.labels) for s in scheme.structures] == [("whole", (1, 2)), ("core", (2,))]


@pytest.mark.parametrize(
    "dataset", [{}, {"labels": {"0": "background", "1": "liver"}}, {"labels": {"background": 0}}, {"labels": {"a": []}}]
)
def test_labels_in_another_form_are_refused(dataset: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"there/dataset\.json"):
        scheme_from_dataset(dataset, Path("there/dataset.json"))


def test_each_structure_may_have_its_own_tolerance() -> None:
    one, two = np.zeros((2, 9, 9), dtype=np.uint8)
    one[2:5, 2:5], two[3:6, 2:5] = 1, 1
    one[7, 2:5], two[8, 2:5] = 2, 2
    scheme = with_tolerances(scheme_from_values([1, 2]), 1.0, {"2": 0.5})
    surface_dice = score_case(one, two, spacing=(1, 1), scheme=scheme)[:, 2]
    assert surface_dice.tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("default", "by_name"), [(-1.0, {}), (1.0, {"1": float("nan")}), (1.0, {"liver": 2.0})])
def test_impossible_tolerances_are_refused(default: float, by_name: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="--tolerance"):
        with_tolerances(scheme_from_values([1, 2]), default, by_name)


# --- folders ---


@pytest.mark.parametrize("n_processes", [1, 2])
def test_every_run_and_case_gets_its_own_scores(
    tmp_path: Path,
    save_labels: SaveLabels,
    random: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    n_processes: int,
) -> None:
    monkeypatch.setattr(scores_module, "_START_UP", 0.0)  # start the processes though they do not pay here
    spacing, scheme = (3.0, 1.0, 1.0), scheme_from_values([1, 2])
    arrays = random.integers(0, 3, size=(3, 4, 5, 6, 7)).astype(np.uint8)  # reference and two runs of four cases
    folders = [
        {f"c{i}": save_labels(tmp_path / str(j) / f"c{i}.nii.gz", arrays[j, i], spacing) for i in range(4)}
        for j in range(3)
    ]
    shuffled = dict(reversed(folders[2].items()))
    runs = score_runs(folders[0], {"a": folders[1], "b": shuffled}, scheme=scheme, n_processes=n_processes)
    for j, key in enumerate("ab", start=1):
        expected = [score_case(arrays[0, i], arrays[j, i], spacing=spacing, scheme=scheme) for i in range(4)]
        np.testing.assert_array_equal(runs[key].values, expected)
    assert runs["a"].cases == ("c0", "c1", "c2", "c3")
    assert runs["a"].metrics == tuple(metric.name for metric in METRICS)


def test_broken_files_are_all_named(tmp_path: Path, save_labels: SaveLabels) -> None:
    good = save_labels(tmp_path / "good.nii.gz", np.ones((3, 3, 3), dtype=np.uint8))
    broken = [tmp_path / f"broken_{number}.nii.gz" for number in range(2)]
    for file in broken:
        file.write_bytes(good.read_bytes()[:40])
    run = dict(zip("abcd", [good, good, *broken], strict=True))
    with pytest.raises(UsageError, match=r"(?s)broken_0\.nii\.gz.*broken_1\.nii\.gz"):
        score_runs(dict.fromkeys(run, good), {"arm": run}, scheme=scheme_from_values([1]))


def test_few_cases_start_no_processes(tmp_path: Path, save_labels: SaveLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnunet_kd.cases._distributed", None)
    labels = save_labels(tmp_path / "a.nii.gz", np.ones((3, 3, 3), dtype=np.uint8))
    cases = {str(number): labels for number in range(5)}
    scores = score_runs(cases, {"arm": cases}, scheme=scheme_from_values([1]), n_processes=8)
    assert (scores["arm"].values == [1.0, 0.0, 1.0]).all()

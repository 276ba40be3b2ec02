"""Patches for comparison and calibration: around foreground, spread over cases, the same at every call."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from nnunet_kd.deployment.example_patches import Source, noise_examples, preprocessed_source, raw_source, take_examples
from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.errors import UsageError


@pytest.fixture
def plan(make_model: Callable[..., Path]) -> InferencePlan:
    """Patches of 4 x 6 x 8, labels 1 and 2."""
    model = make_model(patch_size=[4, 6, 8])
    plans, dataset = (json.loads((model / name).read_text()) for name in ("plans.json", "dataset.json"))
    return make_inference_plan(plans, dataset, "3d_fullres", None)


def volume(shape: tuple[int, ...] = (12, 14, 20)) -> tuple[np.ndarray, np.ndarray]:
    """An image that shows its labels: one voxel of 1 in a corner, one of 2 in the other."""
    labels = np.zeros(shape, dtype=np.int16)
    labels[0, 0, 0], labels[-1, -1, -1] = 1, 2
    return labels[None].astype(np.float32), labels


def source(n: int, *, with_labels: bool = True) -> Source:
    image, labels = volume()
    cases = tuple(f"case_{index}" for index in range(n))
    return Source(origin="here", cases=cases, load=lambda _: (image, labels if with_labels else None))


def write_raw(folder: Path, n: int) -> None:
    (folder / "labels").mkdir(parents=True)
    for index in range(n):
        image, labels = volume()
        noise = np.random.default_rng(index).normal(size=labels.shape)
        nib.save(nib.Nifti1Image(image[0] * 50 + noise, np.eye(4)), folder / f"case_{index}_0000.nii.gz")
        nib.save(nib.Nifti1Image(labels.astype(np.uint8), np.eye(4)), folder / "labels" / f"case_{index}.nii.gz")


def test_patches_hold_the_labels_in_turn(plan: InferencePlan) -> None:
    examples = take_examples(source(2), plan, n_checked=4)
    assert [patch.image.shape for patch in examples.checked] == [(1, 4, 6, 8)] * 4
    assert [patch.labels.max() for patch in examples.checked] == [1, 2, 1, 2]
    assert all((patch.image[0] == patch.labels).all() for patch in examples.checked)
    assert [patch.case for patch in examples.checked] == ["case_0", "case_0", "case_1", "case_1"]


def test_the_same_patches_come_at_every_call(plan: InferencePlan) -> None:
    image = np.random.default_rng(0).normal(size=(1, 9, 9, 9)).astype(np.float32)
    cases = Source(origin="", cases=("a", "b"), load=lambda _: (image, None))
    first, again = (take_examples(cases, plan, n_checked=3).checked for _ in range(2))
    for patch, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(patch.image, other.image)


def test_calibration_has_other_cases_than_the_comparison(plan: InferencePlan) -> None:
    examples = take_examples(source(5), plan, n_checked=3, n_calibration=6)
    checked, calibration = ({patch.case for patch in part} for part in (examples.checked, examples.calibration))
    assert (len(examples.checked), len(examples.calibration)) == (3, 6)
    assert checked == {"case_0", "case_2", "case_4"}
    assert calibration == {"case_1", "case_3"}
    assert len(take_examples(source(1), plan, n_checked=1, n_calibration=2).calibration) == 2


def test_small_images_are_filled_with_zeros(plan: InferencePlan) -> None:
    image, labels = np.ones((1, 2, 3, 20), dtype=np.float32), np.ones((2, 3, 20), dtype=np.int16)
    small = Source(origin="", cases=("a",), load=lambda _: (image, labels))
    (patch,) = take_examples(small, plan, n_checked=1).checked
    assert patch.image.shape == (1, 4, 6, 8)
    assert patch.image.sum() == patch.labels.sum() == 2 * 3 * 8


def test_a_2d_model_gets_slices(plan: InferencePlan) -> None:
    planar = replace(plan, patch_size=(6, 8), spacing=(1.0, 1.0))
    examples = take_examples(source(1), planar, n_checked=2)
    assert [patch.image.shape for patch in examples.checked] == [(1, 6, 8)] * 2
    assert [patch.labels.max() for patch in examples.checked] == [1, 2]


def test_noise_fills_the_channels_of_a_cascade_with_zeros_and_ones(plan: InferencePlan) -> None:
    patch = noise_examples(replace(plan, previous_stage="3d_lowres"), 2).checked[1]
    assert patch.image.shape == (3, 4, 6, 8)
    assert set(np.unique(patch.image[1:])) == {0.0, 1.0}
    assert len(np.unique(patch.image[0])) > 100


def test_preprocessed_cases_are_read_as_nnunet_stored_them(plan: InferencePlan, tmp_path: Path) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    image, labels = volume()
    stored = np.where(labels == 0, -1, labels)[None].astype(np.int8)
    assert preprocessed_source(tmp_path, plan) is None
    nnUNetDatasetBlosc2.save_case(image, stored, {"spacing": [1, 1, 1]}, str(tmp_path / "case_0"))
    found = preprocessed_source(tmp_path, plan)
    assert found is not None
    (patch, other) = take_examples(found, plan, n_checked=2).checked
    assert (patch.image[0] == patch.labels).all()
    assert (patch.labels.max(), other.labels.max()) == (1, 2)
    cascade = replace(plan, previous_stage="3d_lowres")
    found = preprocessed_source(tmp_path, cascade)
    assert found is not None
    (patch,) = take_examples(found, cascade, n_checked=1).checked
    np.testing.assert_array_equal(patch.image[1:], [patch.labels == 1, patch.labels == 2])


def test_raw_cases_are_preprocessed_with_their_labels(plan: InferencePlan, tmp_path: Path) -> None:
    write_raw(tmp_path, 2)
    turned = replace(plan, transpose_forward=(2, 0, 1), transpose_backward=(1, 2, 0))
    examples = take_examples(raw_source(tmp_path, turned, tmp_path / "labels"), turned, n_checked=2)
    for patch in examples.checked:
        assert np.unravel_index(patch.image[0].argmax(), patch.labels.shape) == tuple(np.argwhere(patch.labels)[0])
    unlabelled = take_examples(raw_source(tmp_path, turned), turned, n_checked=1)
    assert unlabelled.checked[0].labels is None


def test_a_cascade_takes_its_labels_as_input(plan: InferencePlan, tmp_path: Path) -> None:
    write_raw(tmp_path, 1)
    cascade = replace(plan, previous_stage="3d_lowres")
    with pytest.raises(UsageError, match=r"label maps of 3d_lowres.*--labels"):
        raw_source(tmp_path, cascade)
    (patch,) = take_examples(raw_source(tmp_path, cascade, tmp_path / "labels"), cascade, n_checked=1).checked
    np.testing.assert_array_equal(patch.image[1:], [patch.labels == 1, patch.labels == 2])


@pytest.mark.parametrize("fault", ["no_images", "no_label", "other_shape"])
def test_folders_that_do_not_fit_are_refused(plan: InferencePlan, tmp_path: Path, fault: str) -> None:
    write_raw(tmp_path / "raw", 1)
    images, labels = tmp_path / "raw", tmp_path / "raw" / "labels"
    if fault == "no_images":
        images = labels
    elif fault == "no_label":
        (labels / "case_0.nii.gz").unlink()
    else:
        nib.save(nib.Nifti1Image(np.zeros((3, 3, 3), dtype=np.uint8), np.eye(4)), labels / "case_0.nii.gz")
    message = {"no_images": "CASE_0000.nii.gz", "no_label": "--labels: expected", "other_shape": "the shape of its"}
    with pytest.raises(UsageError, match=message[fault]):
        take_examples(raw_source(images, plan, labels), plan, n_checked=1)

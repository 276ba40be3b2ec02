"""Bundles from Python: files and arrays to labels."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nnunetv2.ensembling.ensemble import merge_files
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.predictor import Predictor
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.probabilities import channels_from_dataset

MakeBundle = Callable[..., Path]
WriteImages = Callable[..., Path]


def expected(image: np.ndarray) -> np.ndarray:
    """What the toy network makes of an image at the model's spacing."""
    return np.where(image > 1, 1, np.where(image < -1, 2, 0))


def test_three_lines_are_enough(make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path) -> None:
    image = write_images("case_0000") / "case_0000.nii.gz"
    predict = Predictor.open(make_bundle(), threads=1)
    labels = predict.files([image], tmp_path / "case.nii.gz")
    voxels = nib.load(image).get_fdata()
    np.testing.assert_array_equal(labels, expected(voxels).T)
    written = nib.load(tmp_path / "case.nii.gz")
    np.testing.assert_array_equal(written.get_fdata(), expected(voxels))
    np.testing.assert_array_equal(written.affine, nib.load(image).affine)
    array = voxels.T[None].astype(np.float32)
    kept = array.copy()
    np.testing.assert_array_equal(predict.array(array, (1, 1, 1)), labels)
    z_scored = make_bundle(name="z", normalization_schemes=("ZScoreNormalization",) * 2)
    Predictor.open(z_scored).array(array, (1, 1, 1))
    np.testing.assert_array_equal(array, kept)


@pytest.mark.parametrize(
    ("array", "spacing", "message"),
    [
        (np.zeros((8, 8, 8)), (1, 1, 1), r"expected an array \(C, x, y, z\)"),
        (np.zeros((1, 8, 8, 8)), (1, 1), "three spacings"),
        (np.zeros((2, 8, 8, 8)), (1, 1, 1), "expected 1 channels"),
        (np.full((1, 8, 8, 8), np.nan), (1, 1, 1), "finite"),
    ],
    ids=["axes", "spacing", "channels", "nan"],
)
def test_arrays_that_do_not_fit_are_refused(make_bundle: MakeBundle, array: Any, spacing: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Predictor.open(make_bundle()).array(array, spacing)


@pytest.mark.parametrize(("mirroring", "n_passes"), [(False, 1), (True, 4)])
def test_mirroring_is_off_unless_asked_for(make_bundle: MakeBundle, mirroring: bool, n_passes: int) -> None:
    seen = []

    def network(patches: np.ndarray) -> np.ndarray:
        seen.append(patches)
        return np.repeat(patches, 3, axis=1)

    predict = Predictor.open(make_bundle(network, mirror_axes=(0, 2)), mirroring=mirroring)
    predict.array(np.random.default_rng(0).normal(size=(1, 8, 8, 8)), (1, 1, 1))
    assert len(seen) == n_passes


def test_options_reach_the_window(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    assert Predictor.open(bundle).settings.window.step_size == 0.5
    predict = Predictor.open(bundle, step_size=0.9, resampling="fast")
    assert (predict.settings.window.step_size, predict.settings.resampling) == (0.9, "fast")
    assert predict.identity()["step_size"] == 0.9


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({"mirror_axes": None}, {"mirroring": True}, "without mirroring"),
        ({}, {"step_size": 0.0}, "-step_size 0.5"),
        ({}, {"runtime": "onnx"}, "export --format onnx"),
    ],
    ids=["mirroring", "step", "runtime"],
)
def test_settings_that_do_not_fit_are_refused(
    make_bundle: MakeBundle, changes: Any, settings: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        Predictor.open(make_bundle(**changes), **settings)


def test_another_ending_is_refused_before_the_network_runs(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ending in \.nii\.gz"):
        Predictor.open(make_bundle()).files([tmp_path / "absent.nii.gz"], tmp_path / "mask.png")


def test_a_cascade_takes_the_previous_label_map(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path
) -> None:
    def network(patches: np.ndarray) -> np.ndarray:
        background = np.full_like(patches[:, :1], 0.5)
        return np.concatenate([background, patches[:, 1:]], axis=1)

    folder = write_images("case_0000")
    labels = np.random.default_rng(0).integers(0, 3, size=(12, 10, 9)).astype(np.uint8)
    nib.save(nib.Nifti1Image(labels, nib.load(folder / "case_0000.nii.gz").affine), tmp_path / "first.nii.gz")
    predict = Predictor.open(make_bundle(network, previous_stage="3d_lowres"))
    result = predict.files([folder / "case_0000.nii.gz"], previous=tmp_path / "first.nii.gz")
    np.testing.assert_array_equal(result, labels.T)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize("regions", [False, True])
def test_nnunet_ensembles_the_probabilities(
    make_bundle: MakeBundle, write_images: WriteImages, tmp_path: Path, reader: str, regions: bool
) -> None:
    """Stock nnU-Net turns the files back into the same label map, in the same place."""
    folder = write_images("case_0000")
    kept = {"labels": {"background": 0, "all": (1, 2), "a": 1, "b": 2}, "regions_class_order": (2, 1, 2)}
    bundle = make_bundle(image_reader_writer=reader, **(kept if regions else {}))
    predict = Predictor.open(bundle, save_probabilities=True)
    output = tmp_path / "case.nii.gz"
    case = CaseFiles(name="case", files=(folder / "case_0000.nii.gz",), output=output)
    predict.finish(case, predict.compute(predict.prepare(case, {}), {}), {})
    documents = predict.documents()
    manager = PlansManager(documents["plans.json"])
    label_manager = manager.get_label_manager(documents["dataset.json"])
    writer = manager.image_reader_writer_class()
    merge_files([str(tmp_path / "case.npz")], str(tmp_path / "merged"), ".nii.gz", writer, label_manager)
    ours, theirs = nib.load(output), nib.load(tmp_path / "merged.nii.gz")
    np.testing.assert_array_equal(ours.get_fdata(), theirs.get_fdata())
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    _, properties = writer.read_images([str(folder / "case_0000.nii.gz")])
    written = pickle.loads((tmp_path / "case.pkl").read_bytes())
    assert set(properties) <= set(written)
    assert len(channels_from_dataset(documents["dataset.json"], tmp_path).labels) == 3

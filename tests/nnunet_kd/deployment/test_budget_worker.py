"""Claims about the process that a candidate is measured in, and about those who wait for it."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from nnunet_kd.deployment import budget_measure
from nnunet_kd.deployment.budget_worker import (
    MeasuredPredictor,
    SampledNetwork,
    example_labels,
    measure_case,
    put_labels,
    timed_pass,
)
from nnunet_kd.deployment.inference.plan import InferencePlan, Resampling
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.errors import UsageError

PLAN = InferencePlan(
    dataset_name="Dataset999_Toy",
    configuration="3d_fullres",
    spacing=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    transpose_forward=(2, 0, 1),
    transpose_backward=(1, 2, 0),
    normalization_schemes=("NoNormalization",),
    use_mask_for_norm=(False,),
    foreground_intensity_properties=({},),
    resampling_data=Resampling(),
    resampling_seg=Resampling(is_seg=True, order=1),
    resampling_probabilities=Resampling(order=1),
    channel_names=("MRI",),
    labels={"background": 0, "high": 1, "low": 2},
    regions_class_order=None,
    file_ending=".nii.gz",
    image_reader_writer="SimpleITKIO",
    mirror_axes=None,
    previous_stage=None,
)


@pytest.fixture
def case(tmp_path: Path) -> CaseFiles:
    """An image of 20 x 9 x 8 voxels with zeros around it, and its label map."""
    image = np.zeros((22, 11, 9), dtype=np.float32)
    image[1:21, 1:10, :8] = np.random.default_rng(0).normal(size=(20, 9, 8))
    labels = np.zeros(image.shape, dtype=np.uint8)
    labels[4:9, 3:6, 2:5], labels[12:18, 2:8, 1:7] = 1, 2
    nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / "c_0000.nii.gz")
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "c.nii.gz")
    return CaseFiles(name="c", files=(tmp_path / "c_0000.nii.gz",), output=tmp_path / "out.nii.gz")


def slow_noise(patch: np.ndarray) -> np.ndarray:
    time.sleep(0.02)
    return np.random.default_rng(1).normal(size=(1, 3, *patch.shape[2:])).astype(np.float32)


def test_the_logits_become_those_of_the_label_map_so_that_the_written_mask_is_it(case: CaseFiles) -> None:
    label = case.output.with_name("c.nii.gz")
    predictor = MeasuredPredictor(PLAN, SampledNetwork(slow_noise), label)
    stages, tile_seconds, n_tiles = timed_pass(predictor, case)
    written, wanted = (np.asarray(nib.load(file).dataobj) for file in (case.output, label))
    np.testing.assert_array_equal(written, wanted)
    assert 0.02 <= tile_seconds < 0.2
    assert n_tiles == 2 * 4  # 9 and 20 voxels in tiles of 8, at most 4 apart
    assert set(stages) == {"load", "preprocess", "window", "resample", "write"}
    assert stages["window"] < n_tiles * 0.02  # the network is not in it


def test_of_many_tiles_some_are_computed_and_all_are_counted() -> None:
    calls = []

    def network(patch: np.ndarray) -> np.ndarray:
        calls.append(patch)
        return patch + len(calls)

    sampled = SampledNetwork(network, most=2)
    zeros = np.zeros((1, 1, 2, 2), dtype=np.float32)
    assert [float(sampled(zeros).max()) for _ in range(5)] == [1, 2, 2, 2, 2]
    assert (sampled.n_tiles, len(sampled.seconds), len(calls)) == (5, 2, 2)
    sampled.restart()
    assert float(sampled(zeros).max()) == 3
    assert (sampled.n_tiles, len(sampled.seconds)) == (1, 1)


def test_a_case_is_measured_warm_and_its_memory_over_several(case: CaseFiles) -> None:
    predictor = MeasuredPredictor(PLAN, SampledNetwork(slow_noise), None)
    found = measure_case(predictor, case, 0.0)
    assert found["n_tiles"] == 8
    assert found["tile_seconds"] >= 0.02
    assert found["peak_megabytes"] > 10
    written = {file.name for file in case.output.parent.glob("*out.nii.gz")}
    assert written == {"out.nii.gz", "0_out.nii.gz", "1_out.nii.gz", "2_out.nii.gz"}
    broken = replace(case, files=(case.output.with_name("nowhere.nii.gz"),))
    with pytest.raises(UsageError, match="nowhere"):
        measure_case(predictor, broken, 0.0)


def test_every_label_and_region_is_in_the_logits() -> None:
    labels = example_labels((12, 12, 12), PLAN)
    assert np.unique(labels).tolist() == [0, 1, 2]
    logits = np.zeros((3, 6, 6, 6), dtype=np.float16)
    put_labels(logits, labels, PLAN)
    np.testing.assert_array_equal(logits.argmax(axis=0), labels[1::2, 1::2, 1::2])
    regions = replace(PLAN, labels={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    logits = np.zeros((2, 12, 12, 12), dtype=np.float16)
    put_labels(logits, labels, regions)
    np.testing.assert_array_equal(logits > 0, np.stack([labels > 0, labels == 2]))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal 9; it may have run out of memory"),
        ("raise MemoryError('no room')", "with status 1: MemoryError: no room"),
        (
            "import sys; open(sys.argv[2], 'w').write('{\"error\": \"no such image\"}')",
            "measuring ended: no such image",
        ),
    ],
    ids=["killed", "raises", "refuses"],
)
def test_a_process_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, reason: str
) -> None:
    run = subprocess.run

    def stand_in(command: list[str], **options: Any) -> Any:
        return run([sys.executable, "-c", code, *command[-2:]], **options)

    monkeypatch.setattr(budget_measure.subprocess, "run", stand_in)
    with pytest.raises(UsageError, match=reason):
        budget_measure._run({}, tmp_path, 1)


def test_measuring_loads_neither_pytorch_nor_nnunet() -> None:
    code = (
        "import sys, nnunet_kd.deployment.budget_worker; print([n for n in ('torch', 'nnunetv2') if n in sys.modules])"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"

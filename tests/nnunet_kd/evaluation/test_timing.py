"""Seconds and memory of nnU-Net's predictor, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation import timing
from nnunet_kd.evaluation.timing import STAGES, Job, find_images, measure, prepare_job
from nnunet_kd.planning.model_folder import open_model_folder

WriteModel = Callable[..., Path]


@pytest.fixture
def job(write_model: WriteModel, images: Path) -> Job:
    return prepare_job(write_model(), images)


def test_a_model_is_really_predicted_and_timed(job: Job) -> None:
    found = measure({"kd": job}, n_rounds=1)["kd"]
    assert found.n_cases == 2
    assert found.n_folds == 1
    assert list(found.seconds_per_stage) == list(STAGES)
    assert all(seconds > 0 for seconds in found.seconds_per_stage.values())
    assert found.seconds_per_case == pytest.approx(sum(found.seconds_per_stage.values()), rel=0.5)
    assert 50 < found.megabytes_before <= found.peak_megabytes < 5000


def test_the_child_does_not_inherit_the_memory_of_its_parent() -> None:
    """Linux hands the peak of a process on to what it starts; a large parent must not count."""
    large = np.ones(60_000_000)  # 480 MB, touched
    code = "from nnunet_kd.evaluation.timing import peak_megabytes; print(peak_megabytes())"
    child = float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert timing.peak_megabytes() > large.nbytes / 1e6
    assert child < 0.9 * timing.peak_megabytes()


def test_the_arms_take_turns_and_medians_are_over_all_cases(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    def fake(arm: str, _: Job) -> dict[str, object]:
        turns.append(arm)
        seconds = [[0.0, len(turns), 0.5], [0.0, 10.0, 0.5]]
        return {"seconds": seconds, "peak_megabytes": 10.0 * len(turns), "megabytes_before": 1.0, "threads": 2}

    monkeypatch.setattr(timing, "_in_child", fake)
    found = measure({"a": job, "b": job}, n_rounds=2)
    assert turns == ["a", "b", "b", "a"]
    assert found["a"].seconds_per_case == pytest.approx(np.median([1.5, 10.5, 4.5, 10.5]))
    assert found["b"].peak_megabytes == pytest.approx(25.0)
    assert found["a"].seconds_per_stage["network"] == pytest.approx(np.median([1, 10, 4, 10]))


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for Python")
def test_a_failing_prediction_names_arm_and_reason(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = tmp_path / "python"
    failing.write_text("#!/bin/sh\necho much talk >&2\necho RuntimeError: no memory >&2\nexit 1\n")
    failing.chmod(0o755)
    monkeypatch.setattr(timing.sys, "executable", str(failing))
    with pytest.raises(UsageError, match=r"arm 'kd' \(.*\) failed: RuntimeError: no memory$"):
        measure({"kd": job}, n_rounds=1)


def test_all_folds_are_timed_unless_some_are_chosen(write_model: WriteModel, images: Path) -> None:
    folder = write_model(folds=(0, 2))
    (folder / "fold_all").mkdir()
    assert prepare_job(folder, images).folds == (0, 2)
    assert prepare_job(folder, images, folds=[2]).folds == (2,)
    with pytest.raises(UsageError, match="fold 1"):
        prepare_job(folder, images, folds=[1])


def test_a_checkpoint_that_could_run_code_is_refused_first(write_model: WriteModel, images: Path) -> None:
    folder = write_model()
    torch.save({"network_weights": {}, "odd": Path}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(UsageError, match="refused"):
        prepare_job(folder, images)


def test_models_that_cannot_be_timed_are_refused(write_model: WriteModel, images: Path) -> None:
    folder = write_model(folds=())
    with pytest.raises(UsageError, match="trained fold"):
        prepare_job(folder, images)
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(UsageError, match="cascade"):
        prepare_job(folder, images)


@pytest.mark.parametrize("device", ["abacus", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_here_is_refused(write_model: WriteModel, images: Path, device: str) -> None:
    with pytest.raises(UsageError, match=device):
        prepare_job(write_model(), images, device=device)


def test_images_are_found_with_all_their_channels(write_model: WriteModel, images: Path) -> None:
    folder = write_model()
    found = find_images(images, open_model_folder(folder))
    assert [[Path(file).name for file in files] for files in found] == [["case_0_0000.nii.gz"], ["case_1_0000.nii.gz"]]
    dataset = json.loads((folder / "dataset.json").read_text())
    dataset["channel_names"]["1"] = "CT"
    (folder / "dataset.json").write_text(json.dumps(dataset))
    with pytest.raises(UsageError, match=r"lacks case_0_0001\.nii\.gz"):
        find_images(images, open_model_folder(folder))


@pytest.mark.parametrize("name", ["labels", "nowhere"])
def test_folders_without_images_are_refused(write_model: WriteModel, tmp_path: Path, name: str) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "case_0.nii.gz").touch()
    with pytest.raises(UsageError, match=name):
        find_images(tmp_path / name, open_model_folder(write_model()))

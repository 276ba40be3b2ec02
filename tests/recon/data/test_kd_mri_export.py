"""KD-MRI's tree of results: plus-minus is two standard deviations."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.kd_mri_export import experiment_folder, export_experiment, report_line


def test_the_spread_is_two_standard_deviations_of_the_sample() -> None:
    # of 1, 2, 3: mean 2, standard deviation 1
    assert report_line({"PSNR": [1, 2, 3]}) == "PSNR = 2 +/- 2"


def test_metrics_come_by_name_with_four_digits() -> None:
    line = report_line({"SSIM": [0.912345, 0.912345], "HFN": [0.25, 0.25], "PSNR": [32.0678, 32.0678]})
    assert line == "HFN = 0.25 +/- 0 PSNR = 32.07 +/- 0 SSIM = 0.9123 +/- 0"


def test_one_volume_has_no_spread() -> None:
    assert report_line({"PSNR": [32.0]}) == "PSNR = 32 +/- nan"


def test_the_tree_is_theirs(tmp_path: Path) -> None:
    folder = experiment_folder(tmp_path, "cardiac", "4x", "kd")
    export_experiment(folder, [("0", np.ones((3, 8, 6)))], {"PSNR": [30.0, 31.0]})
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    home = "experiments/cardiac/acc_4x/attention_imitation_kd"
    assert written == [f"{home}/report.txt", f"{home}/results/0.h5"]
    with h5py.File(folder / "results" / "0.h5") as file:
        assert (file["reconstruction"].shape, file["reconstruction"].dtype) == ((3, 8, 6), np.float32)
    assert (folder / "report.txt").read_text() == "PSNR = 30.5 +/- 1.414\n"


def test_another_arm_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="teacher, student, feature, kd"):
        experiment_folder(tmp_path, "cardiac", "4x", "best")

"""Settings of the benchmarks of reconstruction: every arm can be planned, has its own name and the others' budget."""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_kd.recon.planning import plan_command
from nnunet_kd.recon.training.trainers import find_trainer

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = ("kd_mri", "super_resolution", "extreme_acceleration")
REPORTS = ("super_resolution_report", "extreme_acceleration_report")
MODULES = ("study", "recon_study", "study_report", *NAMES, *REPORTS)

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="reads the checkout")


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_arm_can_be_planned_and_has_a_name_of_its_own(name: str, load: Any) -> None:
    benchmark = load(name)
    settings, runs = benchmark.SETTINGS, benchmark.runs()
    assert len({run.plans for run in runs}) == len({run.name for run in runs}) == len(runs)
    parser = argparse.ArgumentParser()
    plan_command.add_arguments(parser)
    for found in settings["arms"].values():
        options = parser.parse_args(["-d", "1", *found["options"], *settings["budget"]])
        assert (options.method is not None) == bool(found.get("taught"))
        assert find_trainer(found["trainer"]).distils == bool(found.get("taught"))
        named = {word for word in found["options"] if word.startswith("--")}
        free = {"--lr", "--lr-schedule", "--channels", "--blocks"} if name == "extreme_acceleration" else set()
        assert named <= {"--method", "--schedule", "--network", "--layers", "--convs", "--random-teacher"} | free


def test_one_subject_is_described_without_interval(load: Any) -> None:
    report = load("super_resolution_report")
    low = {"PSNR of slices": [20.0, 21.0, 22.0], "volume": {"PSNR": 21.0, "SSIM": 0.5}}
    high = {"PSNR of slices": [20.5, 22.0, 21.9], "volume": {"PSNR": 21.5, "SSIM": 0.6}}
    arms = {"student": [{"scores": low}], "teacher": [{"scores": high}, {"scores": high}]}
    np.testing.assert_allclose(report.slices(arms["teacher"]), high["PSNR of slices"])
    text = report.table({"head": arms}, {"teacher": "30.14 / 0.8659"})
    assert "+0.50 (-0.10 to +1.00) | 2 of 3 | 30.14 / 0.8659" in text
    assert "[" not in text.replace("[dB]", "")


def test_a_missed_aim_is_told(load: Any) -> None:
    report = load("extreme_acceleration_report")

    def arm(psnr: float, spectrum: float, *kinds: str) -> Any:
        scores = {"PSNR": psnr, "SSIM": 0.5, "spectrum": spectrum, "fine detail": -1.0}
        cases = {"patient1_a": scores, "patient2_a": scores}
        return [{"seed": 0, "scores": {factor: dict.fromkeys(kinds, cases) for factor in ("8", "16")}}]

    arms = {
        "U-Net": arm(30, 6, "image"),
        "baseline": arm(31, 5, "image"),
        "TextureNet": arm(30.5, 4, "mean", "sample"),
    }
    lines = list(report.aims(arms, ["8", "16"]))
    assert [line.startswith("- met") for line in lines] == [True, True, False, False, True, True]
    assert "at 8x: -0.500 dB" in lines[2]
    assert "4.00 dB off, baseline 5.00 dB" in lines[-1]
    assert "| 8x | TextureNet, one sample |" in report.table(arms, ["8"], list(arms))

"""The three published systems through nnU-Net's own commands, each with its network and its trainer."""

import json
import os
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name

from nnunet_kd.cli import main
from nnunet_kd.planning.recipes import trainer_of

BIN = Path(sysconfig.get_path("scripts"))
BUDGET = ("--epochs", "1", "--iterations", "2", "--val-iterations", "1", "--seed", "5")


def prepared_2d(site: Any) -> Path:
    """Preprocess the slices, and make a UNet++ with first weights as their teacher."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    plans = site.plans("nnUNetPlans")
    plans["configurations"]["2d"]["batch_size"] = 2
    site.write_plans(plans)
    preprocess([900], configurations=["2d"], num_processes=[1])
    options = ["--method", "none", "--student", "unet_plus_plus", "--shrink", "16", *BUDGET]
    assert main(["plan", "-d", "900", "-c", "2d", *options, "-p", "nnUNetKDTeacherPlans"]) == 0
    train(site, "2d", "KDTrainer", "nnUNetKDTeacherPlans")
    folder: Path = site.model("nnUNetKDTeacherPlans", configuration="2d")
    return folder


def train(site: Any, configuration: str, trainer: str, plans: str) -> None:
    run(site, "nnUNetv2_train", "900", configuration, "0", "-tr", trainer, "-p", plans, "-device", "cpu")


def run(site: Any, command: str, *arguments: str) -> None:
    environment = {**os.environ, **site.environment(), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [str(BIN / command), *arguments], env=environment, cwd=site.root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "student", "configuration"),
    [
        ("brats_kd", "res_unet", "3d_fullres"),
        ("hlfd", "resnet18", "2d"),
        ("distill_dsm_kd", "dsm_unet:alpha=0.5", "3d_fullres"),
    ],
)
def test_nnunets_own_commands_train_and_predict(
    method: str, student: str, configuration: str, site: Any, teacher: Path, tmp_path: Path
) -> None:
    if configuration == "2d":
        teacher = prepared_2d(site)
    options = ["--method", method, "--student", student, "--teacher", str(teacher), *BUDGET]
    assert main(["plan", "-d", "900", "-c", configuration, *options, "-p", "nnUNetKDPublishedPlans"]) == 0
    trainer, name = trainer_of(method), "nnUNetKDPublishedPlans"
    train(site, configuration, trainer, name)
    model = ["-d", "900", "-c", configuration, "-f", "0", "-tr", trainer, "-p", name, "-device", "cpu"]
    images, output = site.raw / site.dataset / "imagesTs", tmp_path / "out"
    run(site, "nnUNetv2_predict", *model, "-i", str(images), "-o", str(output), "-npp", "1", "-nps", "1")
    stored = json.loads((site.model(name, configuration, trainer) / "plans.json").read_text())
    assert stored["kd"]["configurations"][configuration]["method"] == method
    references = sorted((site.raw / site.dataset / "labelsTs").glob("*.nii.gz"))
    assert references
    for reference in references:
        ours, theirs = (sitk.ReadImage(str(path)) for path in (output / reference.name, reference))
        assert ours.GetSize() == theirs.GetSize()

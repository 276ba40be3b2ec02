"""Claims about teachers whose images are preprocessed otherwise than the student's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.cli import main
from nnunet_kd.distillation import cache_command, soft_labels
from nnunet_kd.distillation.raw_images import onto_grid, permutation, preprocess_for, raw_files
from nnunet_kd.distillation.teacher_volumes import VolumeTeacher, load_teachers, mirror_axes
from nnunet_kd.planning.model_folder import open_model_folder

Plan = Callable[..., int]
Capture = pytest.CaptureFixture[str]
CACHE = ["cache_teacher", "-d", "900", "-f", "0", "-device", "cpu", "-np", "0"]


def test_positions_in_the_patient_are_kept_through_transposition_and_resampling() -> None:
    """Logits that are linear in the position stay so, away from the border where nothing is beyond it."""
    theirs, ours = [2, 0, 1], [0, 1, 2]
    size = (12, 18, 24)  # millimetres
    axes_mm = [torch.arange(n * 2) / 2 + 0.25 for n in size]  # centres of voxels of 0.5 mm
    position = torch.stack(torch.meshgrid(*axes_mm, indexing="ij"))
    found = onto_grid(position.permute(0, *(a + 1 for a in theirs)), permutation(theirs, ours), size)
    coarse = torch.stack(torch.meshgrid(*(torch.arange(n) + 0.5 for n in size), indexing="ij"))
    expected = coarse.permute(0, *(a + 1 for a in ours))
    torch.testing.assert_close(found[:, 1:-1, 1:-1, 1:-1], expected[:, 1:-1, 1:-1, 1:-1])


@pytest.fixture
def otherwise(teacher: Path) -> Path:
    """Make the teacher one of another spacing, normalisation and order of axes."""
    plans = json.loads((teacher / "plans.json").read_text())
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    plans["configurations"]["3d_fullres"] |= {
        "spacing": [0.8, 1.0, 1.25],
        "normalization_schemes": ["RescaleTo01Normalization"],
    }
    (teacher / "plans.json").write_text(json.dumps(plans))
    return teacher


def test_a_teacher_of_other_preprocessing_gives_what_nnunet_predicts_with_it(
    plan: Plan, site: Any, otherwise: Path, capsys: Capture
) -> None:
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    online = ("--from-plans", "nnUNetPlans")
    cached = (*online, "--teacher-outputs", "cached", "--no-mirroring", "--losses", "logits_kl:temperature=1")
    assert plan(*online) == 2
    assert "--teacher-outputs cached" in capsys.readouterr().err
    assert plan(*cached) == 0
    assert main([*CACHE, "-c", "3d_fullres"]) == 0
    assert "its own way (transposition, spacing, normalisation differ)" in capsys.readouterr().out
    dataset = site.preprocessed / site.dataset
    (cache,) = cache_command.prepare(dataset, "3d_fullres", "nnUNetKDPlans", folds=["0"], device="cpu")
    (folder,) = cache.soft_labels.folders.values()
    case = next(iter(cache.images))
    (member,) = load_teachers(cache.job, torch.device("cpu"))
    model = open_model_folder(otherwise)
    volume = VolumeTeacher(member, model, mirror_axes=None, step_size=0.5, device=torch.device("cpu"))
    image, properties = preprocess_for(model, raw_files(site.raw / site.dataset)[case])
    predictor = volume.predictor
    # the toy's raw voxels are the student's: same spacing, same order of axes, nothing cropped
    _, expected = convert_predicted_logits_to_segmentation_with_correct_shape(
        volume.logits(image), predictor.plans_manager, predictor.configuration_manager, predictor.label_manager,
        properties, return_probabilities=True,
    )  # fmt: skip
    found = soft_labels.open_case(folder, case)[:] / 255
    assert found.std() > 0.05  # the teacher still says something
    assert np.abs(found - expected[1:]).mean() < 0.005
    assert ((found > 0.5) == (expected[1:] > 0.5)).mean() > 0.995


def test_a_3d_teacher_teaches_a_2d_student(
    site: Any, teacher: Path, make_trainer: Callable[..., Any], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    preprocess([900], configurations=["2d"], num_processes=[1])
    budget = ["--epochs", "1", "--iterations", "2", "--val-iterations", "1"]
    student = [
        "plan",
        "-d",
        "900",
        "-c",
        "2d",
        "-p",
        "nnUNetKDPlans",
        "--teacher",
        str(teacher),
        "--shrink",
        "8",
        *budget,
    ]
    assert main(student) == 2
    assert "--teacher-outputs cached" in capsys.readouterr().err
    assert main([*student, "--teacher-outputs", "cached", "--no-mirroring"]) == 0
    assert main([*CACHE, "-c", "2d"]) == 0
    trainer = make_trainer(configuration="2d")
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("kd_logits_kl", -1))
    (cache,) = cache_command.prepare(site.preprocessed / site.dataset, "2d", "nnUNetKDPlans", folds=["0"], device="cpu")
    (folder,) = cache.soft_labels.folders.values()
    case = next(iter(cache.images))
    (member,) = load_teachers(cache.job, torch.device("cpu"))
    image, _ = preprocess_for(open_model_folder(teacher), raw_files(site.raw / site.dataset)[case])
    with torch.no_grad():
        expected = torch.softmax(member.network(image[None])[0] / 2, dim=1)[0, 1:]
    found = torch.from_numpy(soft_labels.open_case(folder, case)[:]) / 255
    assert float((found - expected).abs().max()) < 0.5 / 255 + 1e-5  # the toy's grids are the same


def test_mirroring_follows_what_the_teacher_was_trained_for(site: Any, teacher: Path, plan: Plan) -> None:
    path = teacher / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    content["inference_allowed_mirroring_axes"] = (1, 2)
    torch.save(content, path)
    assert plan("--teacher-outputs", "cached") == 0
    dataset = site.preprocessed / site.dataset
    (cache,) = cache_command.prepare(dataset, "3d_fullres", "nnUNetKDPlans", folds=["0"], device="cpu")
    assert mirror_axes(open_model_folder(teacher), cache.job.settings.teachers[0], 0) == (1, 2)

"""Whole trainings of a few seconds through the command line."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.recon.training.models import load_network
from nnunet_kd.recon.training.run import find_run
from nnunet_kd.recon.training.trainers import DCCNNTrainer
from nnunet_kd.recon.training.validation import mean_scores, validate

Planned = Callable[..., dict[str, Any]]


def checkpoint(folder: Any, name: str = "checkpoint_final.pth") -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return found


def test_training_beats_zero_filling_and_leaves_nnunet_s_files(site: Any, planned: Planned) -> None:  # noqa: ANN401
    assert site.train("DCCNNTrainer", planned("nnUNetReconPlans", num_epochs=6)) == 0
    folder = site.fold("DCCNNTrainer", "nnUNetReconPlans")
    names = {path.name for path in folder.iterdir()}
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "debug.json", "validation"} <= names
    assert "checkpoint_latest.pth" not in names
    assert {"plans.json", "dataset.json", "dataset_fingerprint.json"} <= {p.name for p in folder.parent.iterdir()}
    log = checkpoint(folder)["logging"]
    assert log["train_loss"][-1] < log["train_loss"][0]
    run = find_run("950", "2d", "0", "DCCNNTrainer", "nnUNetReconPlans")
    trainer = DCCNNTrainer(run, torch.device("cpu"))
    for weights in trainer.network.parameters():
        weights.data.zero_()  # what is left is zero-filling
    zero_filled = mean_scores(validate(trainer))["PSNR"]
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert summary["foreground_mean"]["PSNR"] == pytest.approx(log["val_PSNR"][-1], abs=1e-6)
    assert summary["foreground_mean"]["PSNR"] > zero_filled + 0.5
    network, plans, configuration = load_network(folder.parent, 0)
    assert not network.training
    assert plans.configuration("2d") == configuration

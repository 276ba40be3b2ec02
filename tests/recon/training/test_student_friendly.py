"""The teacher that is trained with its student's cascades branching off."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunet_kd.recon.training.models import load_network

Planned = Callable[..., dict[str, Any]]
BRANCHES = {
    "network_class_name": "nnunet_kd.recon.networks.DCCNN",
    "arch_kwargs": {"cascades": 2, "convs": 2, "channels": 4},
}


def test_the_teacher_is_saved_without_its_branches(site: Any, planned: Planned) -> None:
    assert site.train("SFTTrainer", planned("nnUNetReconPlans", student_branches=BRANCHES)) == 0
    folder = site.fold("SFTTrainer", "nnUNetReconPlans")
    network, _, _ = load_network(folder.parent, 0)
    assert sum(weights.numel() for weights in network.parameters()) == 1764
    found = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    assert found["kd"]["student"]
    assert found["logging"]["val_PSNR"][-1] > found["logging"]["val_PSNR"][0]
    assert found["logging"]["part_supervision"][-1] < found["logging"]["train_loss"][-1]


def test_plans_without_a_student_are_refused(site: Any, planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    assert site.train("SFTTrainer", planned("nnUNetReconPlans")) == 2
    assert "no 'student_branches'" in capsys.readouterr().err

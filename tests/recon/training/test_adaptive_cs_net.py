"""Adaptive-CS-Net through the trainers that every network has: it learns, and a wide one teaches a thin one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.training.run import find_run
from nnunet_kd.recon.training.trainer import ReconTrainer
from nnunet_kd.recon.training.validation import validate_epoch

Planned = Callable[..., dict[str, Any]]
LOSS = {"name": "ms_ssim_l1"}
WIDE = "Dataset950_Discs/AdaptiveCSNetTrainer__nnUNetReconWidePlans__2d"


def architecture(channels: int) -> dict[str, Any]:
    return {
        "network_class_name": "nnunet_kd.recon.networks.AdaptiveCSNet",
        "arch_kwargs": {"blocks": 2, "channels": channels, "scales": 2, "priors": ["consistency", "phase"]},
    }


class ZeroFilled(nn.Module):
    """What no network does."""

    def forward(self, acquisition: Acquisition) -> torch.Tensor:
        return acquisition.image


def zero_filled_psnr(plans_name: str) -> float:
    trainer = ReconTrainer(find_run("950", "2d", "0", "ReconTrainer", plans_name), torch.device("cpu"))
    trainer.network = ZeroFilled()
    return validate_epoch(trainer)["PSNR"]


def logged(site: Any, trainer: str, plans_name: str) -> dict[str, list[float]]:
    found: dict[str, Any] = torch.load(site.fold(trainer, plans_name) / "checkpoint_final.pth", weights_only=True)
    return found["logging"]  # type: ignore[no-any-return]


def test_a_wide_one_learns_and_teaches_a_thin_one(site: Any, planned: Planned) -> None:
    wide = planned("nnUNetReconWidePlans", architecture=architecture(8), loss=LOSS, num_epochs=15)
    wide["sampling"] = {"mask": "random", "acceleration": [4, 8]}
    assert site.train("AdaptiveCSNetTrainer", wide) == 0
    log = logged(site, "AdaptiveCSNetTrainer", "nnUNetReconWidePlans")
    assert log["train_loss"][-1] < 0.8 * log["train_loss"][0]
    assert log["val_PSNR"][-1] > zero_filled_psnr("nnUNetReconWidePlans") + 1

    losses = [{"name": "attention_transfer"}, {"name": "imitation"}]
    kd = {"teachers": [{"model_folder": WIDE}], "losses": losses}
    thin = planned(
        "nnUNetReconKDPlans", architecture=architecture(4), loss=LOSS, num_epochs=6, schedule="staged", kd=kd
    )
    thin["sampling"] = wide["sampling"]
    assert site.train("AdaptiveCSNetKDTrainer", thin) == 0
    log = logged(site, "AdaptiveCSNetKDTrainer", "nnUNetReconKDPlans")
    attention, imitation = (np.array(log[f"part_{term['name']}"]) for term in losses)
    assert np.isfinite(attention).tolist() == [True] * 3 + [False] * 3
    assert attention[2] < attention[0]
    assert imitation[-1] < imitation[3]


def test_the_attention_of_unlike_numbers_of_blocks_is_not_paired(
    site: Any, planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = planned("nnUNetReconWidePlans", architecture=architecture(4), loss=LOSS, num_epochs=1)
    assert site.train("AdaptiveCSNetTrainer", wide) == 0
    kd = {"teachers": [{"model_folder": WIDE}], "losses": [{"name": "attention_transfer"}]}
    thin = planned("nnUNetReconKDPlans", architecture=architecture(4), loss=LOSS, num_epochs=1, kd=kd)
    thin["configurations"]["2d"]["architecture"]["arch_kwargs"]["blocks"] = 1
    assert site.train("AdaptiveCSNetKDTrainer", thin) != 0
    assert "1 middle layers, the teacher 2" in capsys.readouterr().err

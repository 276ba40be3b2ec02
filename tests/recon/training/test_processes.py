"""Two processes that train one network."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch


@pytest.mark.slow
def test_two_processes_make_one_student(taught: Any, planned: Callable[..., dict[str, Any]]) -> None:
    kd = {
        "teachers": [{"model_folder": "Dataset950_Discs/DCCNNTrainer__nnUNetReconPlans__2d"}],
        "losses": [{"name": "fitnet"}, {"name": "imitation"}],
    }
    student = {
        "network_class_name": "nnunet_kd.recon.networks.DCCNN",
        "arch_kwargs": {"cascades": 2, "convs": 2, "channels": 4},
    }
    taught.write(planned("nnUNetReconKDPlans", kd=kd, architecture=student, schedule="staged"))
    words = ["recon", "train", "950", "2d", "0", "-tr", "DCCNNKDTrainer", "-device", "cpu", "-num_gpus", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_kd", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = taught.fold("DCCNNKDTrainer", "nnUNetReconKDPlans")
    found = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    assert found["epoch"] == 2
    assert len(found["kd"]["random"]) == 2
    assert len(list(folder.glob("training_log_*.txt"))) == 1
    assert done.stdout.count("Validation complete") == 1

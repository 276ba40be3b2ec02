"""Two processes that train one generative network."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

AVERAGE = """
import torch, torch.distributed as dist
from nnunet_kd.recon.training.opponent import average_gradients
dist.init_process_group("gloo")
network = torch.nn.Linear(1, 1)
network.weight.grad = torch.full((1, 1), 1.0 + 2 * dist.get_rank())  # 1 and 3; the bias has none
average_gradients(network)
assert (float(network.weight.grad), float(network.bias.grad)) == (2, 0)
dist.destroy_process_group()
"""
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_gradients_are_averaged(tmp_path: Any) -> None:
    (tmp_path / "average.py").write_text(AVERAGE)
    done = subprocess.run([*TORCHRUN, str(tmp_path / "average.py")], env=ENVIRONMENT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_make_one_generator(site: Any, planned: Callable[..., dict[str, Any]]) -> None:
    sizes = {"blocks": 1, "channels": 4, "scales": 2, "tokens": 2, "token_channels": 4, "texture_channels": 4}
    network = {"network_class_name": "nnunet_kd.recon.networks.TextureNet", "arch_kwargs": sizes}
    content = planned("nnUNetReconPlans", architecture=network)
    content["configurations"]["2d"]["generative"] = {
        "warm_up": 0,
        "discriminator": {"channels": 4, "layers": 2},
        "proxy": {"features": 4, "channels": 2, "steps": 3},
    }
    content["sampling"] = {"mask": "random", "acceleration": [8, 16]}
    site.write(content)
    words = ["recon", "train", "950", "2d", "0", "-tr", "TextureNetTrainer", "-device", "cpu", "-num_gpus", "2"]
    environment = {**ENVIRONMENT, "nnUNet_preprocessed": str(site.preprocessed), "nnUNet_results": str(site.results)}
    done = subprocess.run(
        [sys.executable, "-m", "nnunet_kd", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    folder = site.fold("TextureNetTrainer", "nnUNetReconPlans")
    found = torch.load(folder / "checkpoint_final.pth", weights_only=True)
    assert (found["epoch"], len(found["kd"]["random"])) == (2, 2)
    assert "part_discriminator" in found["logging"]
    assert (folder / "samples_latest.png").is_file()
    assert len(list(folder.glob("training_log_*.txt"))) == 1

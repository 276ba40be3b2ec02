"""Claims about frozen networks compiled for CPUs."""

import shutil

import pytest
import torch
from torch import nn

from nnunet_kd.distillation.frozen import FrozenOnCPU, compile_is_asked_for


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_agree_with_eager_ones() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(8, 2, 1)).eval()
    data = torch.randn(2, 1, 8, 8)
    frozen = FrozenOnCPU(network, torch.float32)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = frozen(data)
    with torch.no_grad():
        torch.testing.assert_close(output, network(data))
    assert not output.requires_grad


@pytest.mark.parametrize(("value", "asked"), [("true", True), ("1", True), ("f", False), (None, False)])
def test_only_nnunets_own_variable_asks(value: str | None, asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_compile", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_compile", value)
    assert compile_is_asked_for() is asked

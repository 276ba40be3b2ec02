"""Networks in OpenVINO and ONNX Runtime: the same function, without torch, and one line where they cannot run."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunet_kd.deployment import runtimes
from nnunet_kd.deployment.conversion import save_onnx, save_openvino, to_openvino
from nnunet_kd.deployment.export import ExportSettings, export_model
from nnunet_kd.deployment.parity import Tolerance
from nnunet_kd.deployment.runtimes import computes_bf16, network_from_file
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import open_model_folder

SHAPE = (1, 2, 6, 8)
RUNTIMES = ("openvino", "onnx")

WITHOUT_TORCH = """
import sys
import numpy as np
from nnunet_kd.deployment.bundle import open_bundle
from nnunet_kd.deployment.parity import Tolerance
from nnunet_kd.deployment.runtimes import open_network
bundle = open_bundle(sys.argv[1])
logits = open_network(bundle, threads=1)(np.ones(bundle.input_shape, dtype=np.float32))
assert logits.shape == (1, 3, 16, 16, 16)
heavy = {"torch", "nnunetv2", "batchgenerators", "monai", "acvl_utils", "nncf"}
assert not heavy & {name.partition(".")[0] for name in sys.modules}
"""


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(4, 3, 1)).eval()


@pytest.fixture
def save(network: nn.Module, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes the network for a runtime."""
    for name in (*runtimes.LIBRARIES.values(), "onnx"):
        pytest.importorskip(name)

    def save_for(runtime: str) -> Path:
        if runtime == "onnx":
            return save_onnx(network, SHAPE, tmp_path)
        return save_openvino(to_openvino(network, SHAPE), tmp_path)

    return save_for


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_patches_are_computed_as_pytorch_does(
    network: nn.Module, save: Callable[[str], Path], runtime: str
) -> None:
    patches = torch.randn(3, *SHAPE[1:])
    found = network_from_file(save(runtime), runtime, "f32", threads=1)(patches.numpy())
    np.testing.assert_allclose(found, network(patches).detach().numpy(), atol=1e-6)
    assert found.dtype == np.float32


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_results_are_kept_when_the_network_runs_again(save: Callable[[str], Path], runtime: str) -> None:
    run = network_from_file(save(runtime), runtime, "f32", threads=1)
    first = run(np.zeros(SHAPE, dtype=np.float32))
    before = first.copy()
    run(np.ones(SHAPE, dtype=np.float32))
    np.testing.assert_array_equal(first, before)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_patches_of_another_shape_are_named(save: Callable[[str], Path], runtime: str) -> None:
    with pytest.raises(ValueError, match=r"expected patches \(B, 2, 6, 8\), got \(1, 2, 8, 6\)"):
        network_from_file(save(runtime), runtime, "f32", threads=1)(np.zeros((1, 2, 8, 6), dtype=np.float32))


def test_bf16_is_used_when_it_is_asked_for_and_only_then(network: nn.Module, save: Callable[[str], Path]) -> None:
    file = save("openvino")
    if not computes_bf16():
        pytest.skip("this processor has no bfloat16")
    patch = torch.randn(SHAPE)
    expected = network(patch).detach().numpy()
    errors = {
        precision: np.abs(network_from_file(file, "openvino", precision, 1)(patch.numpy()) - expected).max()
        for precision in ("f32", "int8", "bf16")
    }
    assert max(errors["f32"], errors["int8"]) < 1e-6
    assert errors["bf16"] > 1e-4


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_file_is_one_line(save: Callable[[str], Path], runtime: str) -> None:
    file = save(runtime)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=f"cannot open {file} .*export it again here"):
        network_from_file(file, runtime, "f32")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_missing_library_is_named_with_its_extra(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, runtimes.LIBRARIES[runtime], None)
    with pytest.raises(UsageError, match=rf"pip install 'nnunet-kd\[{runtime}\]'"):
        network_from_file(tmp_path / "model", runtime, "f32")


def test_no_threads_and_bf16_in_onnx_are_refused(save: Callable[[str], Path]) -> None:
    with pytest.raises(UsageError, match="at least 1 thread, got 0"):
        network_from_file(Path("x"), "onnx", "f32", threads=0)
    with pytest.raises(UsageError, match="f32 only, got bf16"):
        network_from_file(save("onnx"), "onnx", "bf16")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_bundle_runs_without_torch_and_nnunet(make_model: Callable[..., Path], tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtimes.LIBRARIES[runtime])
    settings = ExportSettings(runtime=runtime, n_patches=1, threads=1, tolerance=Tolerance(voxels=0))
    export_model(open_model_folder(make_model()), tmp_path / "bundle", settings)
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, tmp_path / "bundle"], check=False, capture_output=True, text=True
    )
    assert finished.returncode == 0, finished.stderr

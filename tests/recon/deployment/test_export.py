"""Exported networks give PyTorch's images, on any matrix; what is damaged or differs is refused in one line."""

import json
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from nnunet_kd.cli import main
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset
from nnunet_kd.recon.deployment import export
from nnunet_kd.recon.deployment.parts import part_names, recorded_shapes, save_parts, use_parts
from nnunet_kd.recon.networks import DCCNN, VDSR, UNet, VarNet
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.operators import acquire
from nnunet_kd.recon.planning.plans import build_network, read_plans

pytest.importorskip("openvino")

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "VarNet": lambda: VarNet(2, 2, 2, sensitivities="given"),
    "VarNet, coils": lambda: VarNet(1, 2, 2, sensitivity_channels=2, sensitivity_pools=2),
    "DCCNN": lambda: DCCNN(2, 3, 6, data_consistency="learnable"),
    "DCCNN, magnitudes": lambda: DCCNN(2, 3, 6, complex_data=False),
    "VDSR": lambda: VDSR(3, 6),
    "UNet": lambda: UNet(2, 2),
}
MODEL = "Dataset951_Heads/DCCNNTrainer__nnUNetReconPlans__2d"


def acquisition(height: int, width: int, coils: int = 1) -> Acquisition:
    generator = torch.Generator().manual_seed(height)
    kspace = torch.randn(2, coils, height, width, dtype=torch.complex64, generator=generator)
    mask = ((torch.arange(width) % 2 == 0) | ((torch.arange(width) - width // 2).abs() < 3)).float()[None]
    return acquire(kspace, mask, torch.full_like(kspace, coils**-0.5))


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_parts_give_pytorchs_images_on_any_matrix(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, coils = NETWORKS[name]().eval(), 2 if "coils" in name else 1
    with recorded_shapes(network) as shapes:
        network(acquisition(24, 20, coils))
    assert list(shapes) == part_names(network)
    save_parts(network, shapes, tmp_path)
    other = deepcopy(network)
    for part in shapes:
        other.get_submodule(part).apply(lambda each: [p.zero_() for p in each.parameters()])
    exported = use_parts(other, list(shapes), tmp_path, threads=1)
    for shape in ((24, 20), (21, 30)):
        expected = network(acquisition(*shape, coils))
        torch.testing.assert_close(exported(acquisition(*shape, coils)), expected, rtol=1e-4, atol=1e-5)
    assert set(exported.state_dict()) == {key for key in network.state_dict() if not key.startswith(tuple(shapes))}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with phantoms of two matrices and a model folder of random weights."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    for name, width in (("Dataset951_Heads", 24), ("Dataset952_Wide", 30)):
        make_phantom_dataset(tmp_path / name, 1, n_test=1, settings=PhantomSettings(n_slices=2, matrix=(32, width)))
    arguments = {"cascades": 2, "convs": 3, "channels": 4, "data_consistency": "learnable"}
    plans = {
        "dataset_name": "Dataset951_Heads",
        "plans_name": "nnUNetReconPlans",
        "task": "reconstruction",
        "acquisition": "single_coil",
        "matrices": [[32, 24]],
        "sampling": {"mask": "random", "acceleration": 4, "center_fraction": 0.1},
        "configurations": {
            "2d": {
                "data_identifier": "x",
                "batch_size": 2,
                "architecture": {"network_class_name": "nnunet_kd.recon.networks.DCCNN", "arch_kwargs": arguments},
            }
        },
    }
    fold = tmp_path / MODEL / "fold_0"
    fold.mkdir(parents=True)
    (fold.parent / "plans.json").write_text(json.dumps(plans))
    torch.manual_seed(1)
    network = build_network(read_plans(fold.parent / "plans.json").configuration("2d"))
    torch.save({"network_weights": network.state_dict()}, fold / "checkpoint_final.pth")
    return tmp_path


def recon(*words: str) -> int:
    return main(["recon", *words])


def test_a_bundle_predicts_what_its_model_does_without_it(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recon("export", "-m", MODEL, "-f", "0", "-o", "bundle") == 0, capsys.readouterr().err
    report = json.loads((site / "bundle" / "parity.json").read_text())
    assert 0 <= report["precisions"]["f32"]["max_difference"] < report["tolerance"] == 1e-4
    assert recon("predict", "-i", "Dataset952_Wide/kspaceTs", "-o", "torch", "-m", MODEL) == 0
    shutil.rmtree(site / MODEL)
    assert recon("predict", "-i", "Dataset952_Wide/kspaceTs", "-o", "exported", "-m", "bundle") == 0
    (file,) = (site / "torch").glob("*.h5")
    with h5py.File(file) as ours, h5py.File(site / "exported" / file.name) as theirs:
        expected = ours["reconstruction"][()]
        assert expected.shape == (2, 32, 30)
        np.testing.assert_allclose(theirs["reconstruction"], expected, rtol=1e-4, atol=1e-5 * expected.max())
    assert "type --overwrite" in failure(capsys, "export", "-m", "bundle", "-f", "0", "-o", "bundle")
    for option in (["-f", "1"], ["--precision", "bfloat16"]):
        assert f"leave {option[0]} out" in failure(
            capsys, "predict", "-i", "Dataset952_Wide/kspaceTs", "-o", "again", "-m", "bundle", *option
        )


def failure(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert recon(*words) == 2
    return capsys.readouterr().err


def test_an_export_that_differs_is_not_written(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = export.bundle_network

    def wrong(*arguments: object) -> nn.Module:
        network = convert(*arguments)
        network.consistency[0].raw_lambda.data.fill_(-5)
        return network

    monkeypatch.setattr(export, "bundle_network", wrong)
    assert "images differ from PyTorch's by" in failure(capsys, "export", "-m", MODEL, "-f", "0", "-o", "bundle")
    assert not [path for path in site.iterdir() if "bundle" in path.name]
    assert recon("export", "-m", MODEL, "-f", "0", "-o", "bundle", "--tolerance", "9") == 0


def test_a_changed_bundle_is_refused(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recon("export", "-m", MODEL, "-f", "0", "-o", "bundle") == 0
    predict = ("predict", "-i", "Dataset951_Heads/kspaceTs", "-o", "out", "-m", "bundle")
    file = site / "bundle" / "cascades.1" / "model.bin"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    assert "cascades.1/model.bin was changed since it was exported" in failure(capsys, *predict)
    file.unlink()
    assert "expected the file" in failure(capsys, *predict)
    assert not (site / "out").exists()

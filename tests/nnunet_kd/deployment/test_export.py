"""Exports as a whole: the bundle holds the mean of the folds, and nothing is written where anything is wrong."""

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from nnunet_kd import cli
from nnunet_kd.deployment import export
from nnunet_kd.deployment.bundle import open_bundle
from nnunet_kd.deployment.runtimes import open_network
from nnunet_kd.networks.build import build_network
from nnunet_kd.planning.model_folder import open_model_folder

MakeModel = Callable[..., Path]
pytest.importorskip("openvino")
FILES = {"openvino": {"model.xml", "model.bin"}, "onnx": {"model.onnx"}}


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs an export which must be refused and leave nothing, and returns its line."""

    def run(model: Path, *arguments: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        assert cli.main(["export", "-m", str(model), "-o", str(tmp_path / "bundle"), *map(str, arguments)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("nnunet_kd export: ")
        return line

    return run


def run(model: Path, bundle: Path, *arguments: str | Path) -> dict[str, Any]:
    """Export and return the parity report."""
    places = ["export", "-m", str(model), "-o", str(bundle), "--threads", "1", "--patches", "2"]
    assert cli.main([*places, *map(str, arguments)]) == 0
    report: dict[str, Any] = json.loads((bundle / "parity.json").read_text())
    return report


def mean_of_folds(model: Path, folds: tuple[str, ...], patch: torch.Tensor) -> np.ndarray:
    total = torch.zeros(())
    for fold in folds:
        network = build_network(open_model_folder(model), deep_supervision=False).eval()
        checkpoint = torch.load(model / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)
        network.load_state_dict(checkpoint["network_weights"])
        with torch.no_grad():
            total = total + network(patch)
    return (total / len(folds)).numpy()


def change_checkpoint(model: Path, **values: Any) -> None:
    file = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), **values}, file)


def write_cases(folder: Path, n: int = 4) -> Path:
    (folder / "labels").mkdir(parents=True)
    for index in range(n):
        labels = np.zeros((18, 20, 16), dtype=np.uint8)
        labels[4:9, 4:9, 4:9], labels[10:15, 10:15, 10:15] = 1, 2
        image = 3.0 * labels + np.random.default_rng(index).normal(size=labels.shape)
        nib.save(nib.Nifti1Image(image, np.eye(4)), folder / f"case_{index}_0000.nii.gz")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "labels" / f"case_{index}.nii.gz")
    return folder


@pytest.mark.parametrize("runtime", FILES)
def test_the_bundle_computes_the_mean_of_the_folds(make_model: MakeModel, tmp_path: Path, runtime: str) -> None:
    if runtime == "onnx":
        pytest.importorskip("onnxruntime")
    model = make_model(folds=("0", "1"))
    report = run(model, tmp_path / "bundle", "--format", runtime)
    bundle = open_bundle(tmp_path / "bundle")
    assert {file.name for file in bundle.path.iterdir()} == FILES[runtime] | {
        "bundle.json",
        "parity.json",
        "MODEL_CARD.md",
    }
    patch = torch.randn(bundle.input_shape)
    np.testing.assert_allclose(
        open_network(bundle, 1)(patch.numpy()), mean_of_folds(model, ("0", "1"), patch), atol=1e-4
    )
    assert bundle.folds == (0, 1)
    assert bundle.plan.mirror_axes == (0, 1, 2)
    assert set(bundle.source["checkpoints"]) == {"0", "1"}
    assert report["precisions"]["f32"]["max_logit_difference"] < 1e-4
    assert report["precisions"]["f32"]["voxel_agreement"] == 1
    assert "noise" in report["patches_from"]
    assert not list(tmp_path.glob(".*"))


def test_no_path_of_the_author_is_in_the_bundle(make_model: MakeModel, tmp_path: Path) -> None:
    run(make_model(), tmp_path / "bundle")
    for file in (tmp_path / "bundle").iterdir():
        assert not [path for path in (b"/home/ada", str(tmp_path).encode()) if path in file.read_bytes()]


def test_given_cases_are_compared_with_their_labels(make_model: MakeModel, tmp_path: Path) -> None:
    cases = write_cases(tmp_path / "cases")
    report = run(make_model(), tmp_path / "bundle", "--cases", cases, "--labels", cases / "labels")
    assert (report["n_cases"], report["dice_against"]) == (2, "reference labels")
    assert 0 <= report["precisions"]["f32"]["dice_reference"] <= 1
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    for expected in ("Dataset999_Toy", "fold 0", "inner = 1", "16 x 16 x 16", "folder cases", "-m bundle", "MRI"):
        assert expected in card


def test_preprocessed_cases_are_found(make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    folder = tmp_path / "preprocessed" / "Dataset999_Toy" / "nnUNetPlans_3d_fullres"
    folder.mkdir(parents=True)
    image, labels = np.zeros((1, 20, 20, 20), dtype=np.float32), np.ones((1, 20, 20, 20), dtype=np.int8)
    nnUNetDatasetBlosc2.save_case(image, labels, {}, str(folder / "case_0"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    report = run(make_model(), tmp_path / "bundle")
    assert "preprocessed cases of Dataset999_Toy" in report["patches_from"]
    assert report["n_cases"] == 1


def test_int8_is_calibrated_and_reported_beside_f32(make_model: MakeModel, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    cases = write_cases(tmp_path / "cases")
    options = ["--precision", "int8", "--cases", cases, "--labels", cases / "labels", "--tolerance", "1"]
    report = run(make_model(), tmp_path / "bundle", *options)
    assert report["n_calibration_patches"] == export.N_CALIBRATION
    figures = report["precisions"]
    assert list(figures) == ["f32", "int8"]
    assert figures["f32"]["max_logit_difference"] < 1e-4 < figures["int8"]["max_logit_difference"]
    bundle = open_bundle(tmp_path / "bundle")
    assert (bundle.precision, bundle.runtime) == ("int8", "openvino")
    assert b"FakeQuantize" in bundle.network.read_bytes()


def test_int8_with_nothing_to_calibrate_with_is_refused(make_model: MakeModel, refusal: Callable[..., str]) -> None:
    pytest.importorskip("nncf")
    assert "calibrated with real patches" in refusal(make_model(), "--precision", "int8")


def test_a_deviation_above_the_tolerance_writes_nothing(make_model: MakeModel, refusal: Callable[..., str]) -> None:
    line = refusal(make_model(), "--logit-tolerance", "0", "--patches", "1")
    assert "logit difference of" in line
    assert "more than 0; nothing was written" in line


def test_a_wrong_network_is_caught_by_the_comparison(
    make_model: MakeModel, refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file, not the network it was made from, is compared."""
    from nnunet_kd.deployment import conversion

    to_openvino = conversion.to_openvino

    def with_a_fault(network: torch.nn.Module, shape: tuple[int, ...]) -> Any:
        other = deepcopy(network)
        list(other.parameters())[-1].data += 1
        return to_openvino(other, shape)

    monkeypatch.setattr(conversion, "to_openvino", with_a_fault)
    assert "differs from PyTorch" in refusal(make_model(), "--patches", "1")


def test_an_earlier_bundle_is_replaced_only_when_asked(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path
) -> None:
    model = make_model()
    run(model, tmp_path / "bundle")
    assert "--overwrite" in refusal(model)
    (tmp_path / "bundle" / "mine.txt").touch()
    run(model, tmp_path / "bundle", "--overwrite")
    assert not (tmp_path / "bundle" / "mine.txt").exists()
    (tmp_path / "bundle" / "bundle.json").unlink()
    assert "other things than a bundle" in refusal(model, "--overwrite")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx", "--precision", "bf16"], "--precision bf16 needs --format openvino"),
        (["--format", "onnx", "--precision", "int8"], "--precision int8 needs --format openvino"),
        (["--format", "onnx", "--half-weights"], "--half-weights needs --format openvino"),
        (["--labels", "."], "--labels belongs to --cases"),
        (["--cases", "/absent"], "--cases: expected a folder, found none at /absent"),
        (["-f", "3"], "expected fold 3 in .*found folds: 0"),
        (["-chk", "checkpoint_best.pth"], "found no fold with checkpoint_best.pth"),
    ],
    ids=["onnx_bf16", "onnx_int8", "onnx_half", "labels_alone", "no_cases", "no_fold", "no_checkpoint"],
)
def test_options_that_do_not_fit_are_refused(
    make_model: MakeModel, refusal: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert re.search(message, refusal(make_model(), *arguments))


def test_a_normalisation_that_is_not_known_is_refused(make_model: MakeModel, refusal: Callable[..., str]) -> None:
    model = make_model(normalization_schemes=["MyNormalization"])
    assert "normalization_schemes" in refusal(model)


def test_regions_and_a_cascade_keep_their_facts(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    dataset = json.loads((model / "dataset.json").read_text())
    dataset |= {"labels": {"background": 0, "a": [1, 2], "b": 2, "c": 3}, "regions_class_order": [1, 2, 3]}
    (model / "dataset.json").write_text(json.dumps(dataset))
    report = run(model, tmp_path / "bundle")
    assert set(report["precisions"]["f32"]["dice_of_predictions"]) == {"a", "b", "c"}
    assert open_bundle(tmp_path / "bundle").plan.regions_class_order == (1, 2, 3)
    assert "a = 1 + 2" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()


def test_a_cascade_takes_the_previous_stages_labels(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    (model / "plans.json").write_text(json.dumps(plans))
    network = build_network(open_model_folder(model), deep_supervision=True)
    change_checkpoint(model, network_weights=network.state_dict())
    run(model, tmp_path / "bundle")
    bundle = open_bundle(tmp_path / "bundle")
    assert (bundle.input_shape, bundle.plan.previous_stage) == ((1, 3, 16, 16, 16), "3d_lowres")
    assert "| previous stage | 3d_lowres" in (bundle.path / "MODEL_CARD.md").read_text()


def test_a_2d_model_takes_slices(make_model: MakeModel, tmp_path: Path) -> None:
    plans = json.loads((make_model("nnUNetTrainer_5epochs") / "plans.json").read_text())
    block = plans["configurations"]["3d_fullres"]["architecture"]
    planar = {"kernel_sizes": [[3, 3], [3, 3]], "strides": [[1, 1], [2, 2]], "conv_op": "torch.nn.Conv2d"}
    block["arch_kwargs"] |= {**planar, "norm_op": "torch.nn.InstanceNorm2d"}
    model = make_model(architecture=block, patch_size=[16, 12], spacing=[1.0, 1.0])
    change_checkpoint(model, inference_allowed_mirroring_axes=(0, 1))
    cases = write_cases(tmp_path / "cases", n=2)
    report = run(model, tmp_path / "bundle", "--cases", cases, "--labels", cases / "labels")
    assert open_bundle(tmp_path / "bundle").input_shape == (1, 1, 16, 12)
    assert report["precisions"]["f32"]["max_logit_difference"] < 1e-4

"""Releases: what they hold, what they refuse, and that stock nnU-Net predicts them unchanged."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import nnUNetTrainerBN

import nnunet_kd.trainers
from nnunet_kd import cli

MakeModel = Callable[..., Path]
RELEASED = "Dataset999_Toy/nnUNetTrainer__nnUNetKDPlans__3d_fullres"

# stock nnU-Net in a process that cannot import us, however we are installed
WITHOUT_US = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nnunet_kd":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
if __name__ == "__main__":
    sys.meta_path.insert(0, Absent())
    from nnunetv2.inference.predict_from_raw_data import predict_entry_point
    from nnunetv2.model_sharing.entry_points import install_from_zip_entry_point
    archive, images, predictions = sys.argv[1:]
    sys.argv = ["install", archive]
    install_from_zip_entry_point()
    sys.argv = ["predict", "-d", "999", "-p", "nnUNetKDPlans", "-c", "3d_fullres", "-f", "0", "1",
                "-i", images, "-o", predictions, "-device", "cpu", "-npp", "0", "-nps", "0"]
    predict_entry_point()
    assert not any(name.partition(".")[0] == "nnunet_kd" for name in sys.modules)
"""


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a release which must be refused, and returns the one line it prints."""

    def run(*arguments: str | Path) -> str:
        assert cli.main(["release", *map(str, arguments)]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert line.startswith("nnunet_kd release: ")
        return line

    return run


@pytest.fixture
def shipped_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A network class that only another package has; its dotted path."""
    lines = [
        "from dynamic_network_architectures.architectures.unet import PlainConvUNet",
        "class ToyNet(PlainConvUNet): ...",
    ]
    (tmp_path / "toy_networks.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    yield "toy_networks.ToyNet"
    sys.modules.pop("toy_networks", None)


@pytest.fixture
def foreign_trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a trainer from somebody else's folder, whose network has another non-linearity."""
    lines = [
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer",
        "class ToyTrainer(nnUNetTrainer):",
        "    @staticmethod",
        "    def build_network_architecture(plans_manager, configuration_manager, *rest, **more):",
        "        configuration_manager.network_arch_init_kwargs['nonlin'] = 'torch.nn.SiLU'",
        "        return nnUNetTrainer.build_network_architecture(plans_manager, configuration_manager, *rest, **more)",
    ]
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "toy_trainers.py").write_text("\n".join(lines))
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path / "theirs"))
    return "ToyTrainer"


def _release(model: Path, output: Path, *more: str) -> None:
    assert cli.main(["release", "-m", str(model), "-o", str(output), *more]) == 0


def _predict_in_process(model: Path, images: Path, predictions: Path) -> np.ndarray:
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0, 1))
    predictions.mkdir()
    predictor.predict_from_files_sequential(str(images), str(predictions))
    return _segmentation(predictions)


def _run_elsewhere(command: list[str | Path], folder: Path, **variables: str) -> None:
    """Run a command that has its results in ``folder`` and no trace of this process's variables for nnU-Net."""
    (folder / "elsewhere").mkdir(exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    environment = {**inherited, "nnUNet_results": str(folder / "elsewhere"), **variables}
    finished = subprocess.run(
        command, env=environment, cwd=folder, check=False, capture_output=True, text=True, timeout=300
    )
    assert finished.returncode == 0, finished.stderr


def _segmentation(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(folder / "case_9.nii.gz").dataobj)


def test_stock_nnunet_predicts_the_zip_voxel_for_voxel(
    make_model: MakeModel, image_folder: Path, tmp_path: Path
) -> None:
    model = make_model(folds=("0", "1"))
    _release(model, tmp_path / "student.zip", "-f", "0", "1")
    command = [sys.executable, "-c", WITHOUT_US, tmp_path / "student.zip", image_folder, tmp_path / "predicted"]
    _run_elsewhere(command, tmp_path, NNUNET_KD_AUTOLOAD="0", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    expected = _predict_in_process(model, image_folder, tmp_path / "expected")
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(_segmentation(tmp_path / "predicted"), expected)


@pytest.mark.slow
def test_the_zip_predicts_in_another_environment(
    make_model: MakeModel, image_folder: Path, other_environment: Path, tmp_path: Path
) -> None:
    """The commands themselves, in an environment in which this package never was, with their worker processes."""
    model = make_model(folds=("0", "1"))
    _release(model, tmp_path / "student.zip")
    programs = Path(sys.executable).parent
    absent = "import importlib.util, torch; assert importlib.util.find_spec('nnunet_kd') is None"
    _run_elsewhere([other_environment, "-c", absent], tmp_path)
    install = programs / "nnUNetv2_install_pretrained_model_from_zip"
    _run_elsewhere([other_environment, install, tmp_path / "student.zip"], tmp_path)
    model_flags = ["-d", "999", "-p", "nnUNetKDPlans", "-c", "3d_fullres", "-f", "0", "1"]
    flags = [*model_flags, "-device", "cpu", "-npp", "1", "-nps", "1"]
    places = ["-i", image_folder, "-o", tmp_path / "predicted"]
    _run_elsewhere([other_environment, programs / "nnUNetv2_predict", *flags, *places], tmp_path)
    expected = _predict_in_process(model, image_folder, tmp_path / "expected")
    np.testing.assert_array_equal(_segmentation(tmp_path / "predicted"), expected)


@pytest.mark.parametrize("name", nnunet_kd.trainers.__all__)
def test_a_student_of_our_trainers_is_filed_under_nnunets(make_model: MakeModel, tmp_path: Path, name: str) -> None:
    _release(make_model(name, builder=getattr(nnunet_kd.trainers, name)), tmp_path)
    assert (tmp_path / RELEASED / "fold_0" / "checkpoint_final.pth").is_file()


def test_the_folder_has_the_layout_of_the_zip(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    _release(model, tmp_path / "out")
    _release(model, tmp_path / "student.zip")
    files = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*") if file.is_file()}
    assert files == set(zipfile.ZipFile(tmp_path / "student.zip").namelist())
    names = ("dataset.json", "dataset_fingerprint.json", "fold_0/checkpoint_final.pth", "plans.json", "release.json")
    assert files == {f"{RELEASED}/{name}" for name in names}


def test_a_checkpoint_holds_weights_and_plain_values_only(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model(folds=("all",))
    _release(model, tmp_path, "-f", "all")
    file = tmp_path / RELEASED / "fold_all" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=True)
    assert set(checkpoint) == {"network_weights", "init_args", "trainer_name", "inference_allowed_mirroring_axes"}
    assert set(checkpoint["init_args"]) == {"plans", "configuration", "fold", "dataset_json"}
    assert (checkpoint["trainer_name"], checkpoint["init_args"]["fold"]) == ("nnUNetTrainer", "all")
    assert json.loads(json.dumps(checkpoint["init_args"])) == checkpoint["init_args"]
    assert file.stat().st_size < (model / "fold_all" / "checkpoint_final.pth").stat().st_size / 2


def test_no_path_of_the_author_is_left(make_model: MakeModel, tmp_path: Path) -> None:
    _release(make_model(), tmp_path)
    released = tmp_path / RELEASED
    assert not [file for file in released.rglob("*") if file.is_file() and b"/home/ada" in file.read_bytes()]
    plans = json.loads((released / "plans.json").read_text())
    assert plans == torch.load(released / "fold_0" / "checkpoint_final.pth", weights_only=True)["init_args"]["plans"]
    settings = plans["kd"]["configurations"]["3d_fullres"]
    assert settings["teachers"][0]["model_folder"] == "Dataset999_Toy/nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert settings["seed"] == 3


def test_the_provenance_names_versions_source_and_method(make_model: MakeModel, tmp_path: Path) -> None:
    _release(make_model(), tmp_path)
    provenance = json.loads((tmp_path / RELEASED / "release.json").read_text())
    assert set(provenance["versions"]) == {"nnunet_kd", "nnunetv2", "torch"}
    assert provenance["method"] == "kd"
    assert provenance["source"]["model"] == "nnUNetTrainer_1epoch__nnUNetKDPlans__3d_fullres"
    assert len(provenance["source"]["checkpoints"]["0"]["sha256"]) == 64
    assert provenance["needs"] == []


def test_another_checkpoint_is_released_under_the_name_predict_expects(make_model: MakeModel, tmp_path: Path) -> None:
    model = make_model()
    (model / "fold_0" / "checkpoint_final.pth").rename(model / "fold_0" / "checkpoint_best.pth")
    _release(model, tmp_path, "-chk", "checkpoint_best.pth")
    assert (tmp_path / RELEASED / "fold_0" / "checkpoint_final.pth").is_file()


def test_a_trainer_of_nnunet_with_another_network_keeps_its_name(make_model: MakeModel, tmp_path: Path) -> None:
    _release(make_model("nnUNetTrainerBN", builder=nnUNetTrainerBN), tmp_path)
    released = tmp_path / "Dataset999_Toy" / "nnUNetTrainerBN__nnUNetKDPlans__3d_fullres"
    checkpoint = torch.load(released / "fold_0" / "checkpoint_final.pth", weights_only=True)
    assert checkpoint["trainer_name"] == "nnUNetTrainerBN"
    assert json.loads((released / "release.json").read_text())["needs"] == []


def test_a_trainer_with_another_non_linearity_is_not_taken_for_nnunets(
    make_model: MakeModel, foreign_trainer: str, tmp_path: Path
) -> None:
    """Its weights have the same names and shapes as those of the stock network."""
    _release(make_model(foreign_trainer), tmp_path)
    released = tmp_path / "Dataset999_Toy" / f"{foreign_trainer}__nnUNetKDPlans__3d_fullres"
    assert json.loads((released / "release.json").read_text())["needs"] == ["toy_trainers"]


def test_a_network_of_another_package_is_released_with_a_notice(
    make_model: MakeModel, shipped_network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model()
    plans = (model / "plans.json").read_text()
    standard = f"{PlainConvUNet.__module__}.{PlainConvUNet.__name__}"
    (model / "plans.json").write_text(plans.replace(standard, shipped_network))
    _release(model, tmp_path)
    assert "needs the package toy_networks" in capsys.readouterr().out
    assert json.loads((tmp_path / RELEASED / "release.json").read_text())["needs"] == ["toy_networks"]


def test_an_earlier_release_is_kept_without_overwrite(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path
) -> None:
    model = make_model()
    _release(model, tmp_path)
    (tmp_path / RELEASED / "mine.txt").write_text("precious")
    assert "--overwrite" in refusal("-m", model, "-o", tmp_path)
    assert (tmp_path / RELEASED / "mine.txt").is_file()
    _release(model, tmp_path, "--overwrite")
    assert not (tmp_path / RELEASED / "mine.txt").exists()


def test_a_training_is_never_replaced(make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path) -> None:
    training = tmp_path / RELEASED / "fold_0" / "checkpoint_latest.pth"
    training.parent.mkdir(parents=True)
    training.touch()
    assert "other things than a release" in refusal("-m", make_model(), "-o", tmp_path, "--overwrite")
    assert training.is_file()


def test_a_folder_that_looks_temporary_is_left_alone(make_model: MakeModel, tmp_path: Path) -> None:
    (tmp_path / "student.zip.tmp").mkdir()
    _release(make_model(), tmp_path / "student.zip")
    assert {"student.zip", "student.zip.tmp"} <= {path.name for path in tmp_path.iterdir()}


def test_a_model_never_replaces_itself(make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path) -> None:
    model = make_model("nnUNetTrainer")
    line = refusal("-m", model, "-o", tmp_path / "results", "--overwrite")
    assert "itself" in line
    assert "optimizer_state" in torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)


def test_what_is_missing_is_named_with_what_to_type(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path
) -> None:
    model, out = make_model(folds=("0", "1")), tmp_path / "out.zip"
    assert "found folds: 0, 1; train it with: nnUNetv2_train" in refusal("-m", model, "-f", "0", "3", "-o", out)
    assert "-chk" in refusal("-m", model, "-chk", "checkpoint_best.pth", "-o", out)
    assert "no model folder" in refusal("-m", tmp_path / "nowhere", "-o", out)
    assert "TRAINER__PLANS__CONFIGURATION" in refusal("-m", model / "fold_0", "-o", out)
    assert not out.exists()


def test_a_truncated_checkpoint_is_refused(make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path) -> None:
    model = make_model()
    file = model / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:2000])
    assert "truncated" in refusal("-m", model, "-o", tmp_path / "out.zip")


class _Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


def test_a_malicious_checkpoint_is_refused_and_executes_nothing(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path
) -> None:
    model = make_model()
    torch.save(
        {"network_weights": {}, "logging": _Malicious(tmp_path / "owned")}, model / "fold_0" / "checkpoint_final.pth"
    )
    assert "execute code" in refusal("-m", model, "-o", tmp_path / "out.zip")
    assert not (tmp_path / "owned").exists()
    assert not (tmp_path / "out.zip").exists()


def _make_complex(checkpoint: dict[str, Any]) -> None:
    weights = checkpoint["network_weights"]
    weights.update({name: value.to(torch.complex64) for name, value in weights.items()})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda checkpoint: checkpoint.update(trainer_name="OtherTrainer"), "OtherTrainer"),
        (lambda checkpoint: checkpoint["init_args"].update(configuration="2d"), "2d"),
        (lambda checkpoint: checkpoint.update(init_args=None), "got one of"),
        (lambda checkpoint: checkpoint.update(inference_allowed_mirroring_axes=[9]), "axes of the patch"),
        (lambda checkpoint: checkpoint.update(inference_allowed_mirroring_axes="xyz"), "axes of the patch"),
        (lambda checkpoint: checkpoint.update(inference_allowed_mirroring_axes=[[1]]), "axes of the patch"),
        (_make_complex, "no finite numbers"),
        (lambda checkpoint: checkpoint["network_weights"].popitem(), "do not fit"),
        (
            lambda checkpoint: next(iter(checkpoint["network_weights"].values())).fill_(float("nan")),
            "no finite numbers",
        ),
    ],
    ids=["trainer", "configuration", "arguments", "axis", "text", "nested axis", "complex", "missing weights", "NaN"],
)
def test_a_checkpoint_that_is_not_this_models_is_refused(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path, change: Callable[..., object], reason: str
) -> None:
    model = make_model()
    file = model / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    change(checkpoint)
    torch.save(checkpoint, file)
    assert reason in refusal("-m", model, "-o", tmp_path / "out.zip")


def test_a_data_set_name_cannot_lead_out_of_the_target(
    make_model: MakeModel, refusal: Callable[..., str], tmp_path: Path
) -> None:
    model = make_model()
    plans = json.loads((model / "plans.json").read_text()) | {"dataset_name": "Dataset001_A/../../../escaped"}
    (model / "plans.json").write_text(json.dumps(plans))
    assert "dataset_name" in refusal("-m", model, "-o", tmp_path / "out")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("No space left")], ids=type)
def test_a_full_disk_leaves_no_half_release(
    make_model: MakeModel,
    refusal: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("nnunet_kd.deployment.release.save_atomically", fail)
    out = tmp_path / "out"
    assert "No space left" in refusal("-m", make_model(), "-o", out / "student.zip")
    assert not list(out.iterdir())

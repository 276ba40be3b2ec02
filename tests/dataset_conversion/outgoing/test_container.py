"""Containers: the entry point predicts the organisers' folders outside Docker, as stock nnU-Net does."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge
from nnunet_kd.dataset_conversion.outgoing import run_inference

MODEL = "nnUNetTrainer__nnUNetKDPlans__3d_fullres"
SHAPE = (20, 18, 16)
AFFINE = np.array([[-0.9, 0.1, 0, 31.5], [0.1, 0.9, 0, -12.25], [0, 0, 2.0, 104.0], [0, 0, 0, 1]])
KIDNEY = {"background": 0, "kidney and masses": [1, 2, 3], "masses": [2, 3], "tumor": 2}
TUMOUR = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": 3}

# the entry point in a process that cannot import us, however we are installed
WITHOUT_US = """
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "nnunet_kd":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _toy_plans() -> dict[str, Any]:
    """The plans of the toy student that the tests of releases have."""
    file = Path(__file__).parents[2] / "nnunet_kd" / "deployment" / "conftest.py"
    spec = importlib.util.spec_from_file_location("toy_students", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.toy_plans()


@dataclass(frozen=True)
class Student:
    """A challenge, the labels of its student, and one case as its organisers give it to a container."""

    challenge: str
    labels: dict[str, Any]
    order: list[int]
    inputs: tuple[str, ...]
    output: str


STUDENTS = {
    # https://github.com/neheller/kits21/blob/master/examples/submission/README.md
    "kits21": Student("kits21", KIDNEY, [1, 3, 2], ("case_00300.nii.gz",), "case_00300.nii.gz"),
    # https://www.synapse.org/#!Synapse:syn51156910/wiki/622343
    "brats2023": Student(
        "brats2023",
        TUMOUR,
        [1, 2, 3],
        tuple(f"BraTS-GLI-00001-000/BraTS-GLI-00001-000-{kind}.nii.gz" for kind in ("t1n", "t1c", "t2w", "t2f")),
        "BraTS-GLI-00001-000.nii.gz",
    ),
}


def _write_model(student: Student, folder: Path, **dataset: Any) -> Path:
    n_channels = len(student.inputs)
    plans = _toy_plans()
    settings = plans["configurations"]["3d_fullres"]
    settings |= {key: settings[key] * n_channels for key in ("normalization_schemes", "use_mask_for_norm")}
    plans["foreground_intensity_properties_per_channel"] = {str(number): {} for number in range(n_channels)}
    description = {
        "channel_names": {str(number): f"channel {number}" for number in range(n_channels)},
        "labels": student.labels,
        "regions_class_order": student.order,
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **dataset,
    }
    manager = PlansManager(json.loads(json.dumps(plans)))
    torch.manual_seed(0)
    network = nnUNetTrainer.build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), n_channels, 3, True
    )
    arguments = {"plans": plans, "configuration": "3d_fullres", "fold": 0, "dataset_json": description}
    checkpoint = {
        "network_weights": network.state_dict(),
        "init_args": arguments,
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
    (folder / MODEL / "fold_0").mkdir(parents=True)
    torch.save(checkpoint, folder / MODEL / "fold_0" / "checkpoint_final.pth")
    (folder / MODEL / "plans.json").write_text(json.dumps(plans))
    (folder / MODEL / "dataset.json").write_text(json.dumps(description))
    return folder / MODEL


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains nothing, writes a student and releases it as a zip."""

    def make(student: Student, **dataset: Any) -> Path:
        model = _write_model(student, tmp_path / "results", **dataset)
        assert cli.main(["release", "-m", str(model), "-o", str(tmp_path / "student.zip")]) == 0
        return tmp_path / "student.zip"

    return make


def _run(*words: str | Path) -> int:
    return cli.main(["submit", *map(str, words)])


def _images(student: Student, folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for name in student.inputs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(rng.normal(size=SHAPE).astype(np.float32), AFFINE)
        image.set_sform(AFFINE, code=2)
        nibabel.save(image, folder / name)
    return [folder / name for name in student.inputs]


def _expected(student: Student, folder: Path, images: list[Path]) -> np.ndarray:
    """What stock nnU-Net predicts in this process, in the organisers' values."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder / "model"), (0,))
    (folder / "expected").mkdir()
    predictor.predict_from_files_sequential([[str(image) for image in images]], [str(folder / "expected" / "x")])
    labels = np.asarray(nibabel.load(folder / "expected" / "x.nii.gz").dataobj).astype(int)
    values = challenge(student.challenge).submission.label_values
    return np.array([values[value] for value in sorted(values)])[labels]


def _predict_here(target: Path, folder: Path) -> None:
    spec = importlib.util.spec_from_file_location("copied_entry_point", target / "run_inference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(["--input", str(folder / "in"), "--output", str(folder / "out")]) == 0


def _predict_without_us(target: Path, folder: Path) -> None:
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("nnUNet_")}
    finished = subprocess.run(
        [sys.executable, "-c", WITHOUT_US, target / "run_inference.py"],
        env={
            **inherited,
            "CONTAINER_INPUT": str(folder / "in"),
            "CONTAINER_OUTPUT": str(folder / "out"),
            "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
        },
        check=False,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(
    ("name", "predict"),
    [
        pytest.param("brats2023", _predict_here, id="brats2023-here"),
        *(pytest.param(name, _predict_without_us, id=f"{name}-apart", marks=pytest.mark.slow) for name in STUDENTS),
    ],
)
def test_the_entry_point_predicts_the_organisers_folder(
    release: Callable[..., Path],
    tmp_path: Path,
    name: str,
    predict: Callable[[Path, Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    student, target = STUDENTS[name], tmp_path / "box"
    assert _run(name, "--container", target, "-m", release(student)) == 0
    assert f"docker build -t {name} {target}" in capsys.readouterr().out
    images = _images(student, tmp_path / "in")
    predict(target, tmp_path)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [student.output]
    found, scan = nibabel.load(tmp_path / "out" / student.output), nibabel.load(images[0])
    expected = _expected(student, target, images)
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)
    assert found.get_data_dtype() == np.uint8
    for field in ("pixdim", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x"):
        assert found.header[field].tobytes() == scan.header[field].tobytes(), field


def test_the_folder_is_complete(release: Callable[..., Path], tmp_path: Path) -> None:
    target = tmp_path / "box"
    student = release(STUDENTS["kits21"])
    assert _run("kits21", "--container", target, "-m", student) == 0
    files = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    named = {"Dockerfile", "README.md", "requirements.txt", "run_inference.py", "container.json"}
    assert named | {"model/plans.json", "model/fold_0/checkpoint_final.pth"} <= files
    dockerfile = (target / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (.+) \S+$", dockerfile, re.MULTILINE)
    assert all((target / name).exists() for names in copied for name in names.split())
    assert dockerfile.index("USER runner") < dockerfile.index("ENTRYPOINT")
    pinned = (target / "requirements.txt").read_text().splitlines()[1:]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", line) for line in pinned)
    assert {"torch", "nnunetv2", "nibabel"} <= {line.partition("==")[0] for line in pinned}
    assert not [line for line in pinned if line.startswith(("nvidia", "nnunet-kd"))]
    assert _run("kits21", "--container", target, "-m", student) == 2
    assert _run("kits21", "--container", target, "-m", student, "--overwrite") == 0
    (target / "output").mkdir()
    (target / "output" / "mine.nii.gz").touch()
    assert _run("kits21", "--container", target, "-m", student, "--overwrite") == 2
    (target / "output" / "mine.nii.gz").unlink()
    (target / "container.json").unlink()
    assert _run("kits21", "--container", target, "-m", student, "--overwrite") == 2


def _needs_us(model: Path) -> None:
    record = next(model.parent.rglob("release.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"needs": ["nnunet_kd"]}))


def _leave(_: Path) -> None:
    """The model fits another challenge."""


def _truncate(model: Path) -> None:
    file = next(model.parent.rglob("checkpoint_final.pth"))
    file.write_bytes(file.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("name", "damage", "text"),
    [
        ("kits21", _needs_us, "needs the package nnunet_kd"),
        ("kits21", _truncate, "truncated"),
        ("kits21", lambda model: (model / "release.json").unlink(), "nnunet_kd release first"),
        ("brats2023", _leave, "4 channels for brats2023, got 1"),
        ("brats2024", _leave, "labels [0, 1, 2, 3, 4] for brats2024"),
        ("lits17", _leave, "take no containers"),
    ],
    ids=["package", "weights", "no release", "channels", "labels", "challenge"],
)
def test_a_model_that_does_not_fit_is_refused(
    tmp_path: Path, name: str, damage: Callable[[Path], object], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = _write_model(STUDENTS["kits21"], tmp_path / "released")
    (model / "release.json").write_text("{}")
    damage(model)
    assert _run(name, "--container", tmp_path / "box", "-m", tmp_path / "released") == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--container", "box"], "-m STUDENT"),
        (["--container", "box", "-m", "student.zip"], "found none; check -m"),
        (["predictions", "--container", "box", "-m", "student.zip"], "leave PREDICTIONS"),
        (["predictions", "-o", "out", "-m", "student.zip"], "--container FOLDER"),
    ],
    ids=["no model", "no file", "predictions", "no container"],
)
def test_options_that_do_not_go_together_are_refused(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _run("kits21", *words) == 2
    assert text in capsys.readouterr().err


class _Predictor:
    """Predicts zeros, and fails for what is called bad."""

    def predict_from_files_sequential(self, images: list[list[str]], targets: list[str]) -> None:
        if "bad" in images[0][0]:
            raise RuntimeError("bad image")
        scan = nibabel.load(images[0][0])
        nibabel.save(nibabel.Nifti1Image(np.ones(scan.shape, np.uint8), scan.affine), f"{targets[0]}.nii.gz")


def test_one_case_that_fails_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case without one of its channels, too."""
    (tmp_path / "container.json").write_text(
        json.dumps({"channels": ["a", "b"], "label_values": {"0": 0, "1": 7}, "folds": [0]})
    )
    for case, channels in (("bad", "ab"), ("good", "ab"), ("lacking", "a"), ("twice", "aab")):
        for number, channel in enumerate(channels):
            (tmp_path / "in" / case).mkdir(parents=True, exist_ok=True)
            image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.int16), AFFINE)
            nibabel.save(image, tmp_path / "in" / case / f"{case}{number}-{channel}.nii.gz")
    monkeypatch.setattr(run_inference, "HERE", tmp_path)
    monkeypatch.setattr(run_inference, "load_predictor", lambda *_, **__: _Predictor())
    assert run_inference.main(["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.nii.gz"]
    assert np.asarray(nibabel.load(tmp_path / "out" / "good.nii.gz").dataobj).max() == 7
    assert "1 of 4 cases written" in capsys.readouterr().err
    assert run_inference.main(["--input", str(tmp_path / "out"), "--output", str(tmp_path / "out")]) == 2


@pytest.mark.parametrize("name", [name for name in MODULES if challenge(name).submission])
def test_channels_are_named_where_a_container_gets_several(name: str) -> None:
    submission = challenge(name).submission
    assert submission.container or not submission.container_channels
    assert len(set(submission.container_channels)) == len(submission.container_channels) != 1

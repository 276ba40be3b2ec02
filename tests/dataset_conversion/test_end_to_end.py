"""The Decathlon's hippocampus task from the organisers' layout to the organisers' layout, by real commands."""

import json
import os
import shutil
import subprocess
import sysconfig
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest

BIN = Path(sysconfig.get_path("scripts"))
N_TRAIN = 8
TASK = "Task04_Hippocampus"


@pytest.fixture
def download(realdata: Path, tmp_path: Path) -> Path:
    """The task with a few training cases, and the cases that no teacher saw as test cases."""
    source, target = realdata / TASK, tmp_path / "download" / TASK
    listing = json.loads((source / "dataset.json").read_text())
    unseen = [f"{case}.nii.gz" for case in (source / "test_cases.txt").read_text().split()]
    names = [Path(entry["image"]).name for entry in listing["training"]]
    training = [name for name in names if name not in unseen][:N_TRAIN]
    for folder, origin, files in (
        ("imagesTr", "imagesTr", training),
        ("labelsTr", "labelsTr", training),
        ("imagesTs", "imagesTr", unseen),
    ):
        (target / folder).mkdir(parents=True)
        for name in files:
            shutil.copyfile(source / origin / name, target / folder / name)
    listing |= {
        "numTraining": N_TRAIN,
        "numTest": len(unseen),
        "training": [{"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training],
        "test": [f"./imagesTs/{name}" for name in unseen],
    }
    (target / "dataset.json").write_text(json.dumps(listing))
    return target


@pytest.mark.slow
@pytest.mark.realdata
def test_a_download_becomes_a_submission_by_commands_alone(download: Path, tmp_path: Path) -> None:
    folders = {f"nnUNet_{name}": tmp_path / name for name in ("raw", "preprocessed", "results")}
    for folder in folders.values():
        folder.mkdir()
    environment = {
        **os.environ,
        **{name: str(folder) for name, folder in folders.items()},
        "nnUNet_n_proc_DA": "1",  # nnU-Net cannot plan with 0
        "OMP_NUM_THREADS": "1",
    }

    def run(*words: str | Path) -> str:
        command, *arguments = map(str, words)
        finished = subprocess.run(
            [BIN / command, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stderr[-2000:]
        return finished.stdout

    predictions, archive = tmp_path / "predictions", tmp_path / "decathlon.zip"
    model = ("-c", "3d_fullres", "-p", "nnUNetKDPlans", "-tr", "KDTrainer")
    run("nnunet_kd", "convert", "decathlon", download)
    run("nnUNetv2_plan_and_preprocess", "-d", "4", "-c", "3d_fullres", "--verify_dataset_integrity", "-np", "2")
    budget = ("--epochs", "1", "--iterations", "2", "--val-iterations", "1", "--seed", "1")
    run(
        "nnunet_kd", "plan", "-d", "4", "-c", "3d_fullres", "--method", "none", "--shrink", "8", "-p", model[3], *budget
    )
    run("nnUNetv2_train", "4", "3d_fullres", "all", "-tr", "KDTrainer", "-p", model[3], "-device", "cpu")
    images = folders["nnUNet_raw"] / "Dataset004_Hippocampus" / "imagesTs"
    where = ("-i", images, "-o", predictions / TASK, "-d", "4", "-f", "all", "-device", "cpu", "--disable_tta")
    run("nnUNetv2_predict", *where, *model)
    given = (predictions, "--partial", "--images", folders["nnUNet_raw"])
    run("nnunet_kd", "submit", "decathlon", *given, "-o", archive)
    assert "40 cases without fault" in run(
        "nnunet_kd", "submit", "decathlon", archive, "--check", "--partial", "--images", folders["nnUNet_raw"]
    )
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    for image in sorted((download / "imagesTs").iterdir()):
        sent, predicted, scan = (
            nibabel.load(path / image.name)
            for path in (tmp_path / "unpacked" / TASK, predictions / TASK, download / "imagesTs")
        )
        assert np.array_equal(np.asanyarray(sent.dataobj), np.asanyarray(predicted.dataobj))
        assert np.array_equal(sent.affine, scan.affine)
        assert sent.header["qform_code"] == scan.header["qform_code"]

"""KD-MRI's setting to the letter: planned by its preset, then an epoch of the teacher and of each student stage."""

from pathlib import Path

import pytest
import torch

from nnunet_kd.cli import main
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset
from nnunet_kd.recon.planning.plans import read_plans

TEACHER, STUDENT = "nnUNetReconPublishedPlans", "nnUNetReconKDPublishedPlans"


def recon(*words: str) -> None:
    assert main(["recon", *words]) == 0


def test_an_epoch_of_the_published_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    settings = PhantomSettings(n_slices=2, matrix=(150, 150), phase=0, noise=0)
    make_phantom_dataset(tmp_path / "raw" / "Dataset001_Phantom", 3, n_test=0, settings=settings)
    recon("extract_fingerprint", "-d", "1", "-np", "0")
    masks = ("--acceleration", "5", "--axis", "rows")
    recon("plan", "-d", "1", "-p", TEACHER, "--published", "--epochs", "1", *masks)
    recon("preprocess", "-d", "1", "-p", TEACHER, "--folds", "3", "-np", "0")
    recon("train", "1", "2d", "0", "-tr", "DCCNNTrainer", "-p", TEACHER, "-device", "cpu")
    models = tmp_path / "results" / "Dataset001_Phantom"
    teacher, student = models / f"DCCNNTrainer__{TEACHER}__2d", models / f"DCCNNKDTrainer__{STUDENT}__2d"
    recon("plan", "-d", "1", "-p", STUDENT, "--published", "--epochs", "2", "--teacher", str(teacher))
    recon("train", "1", "2d", "0", "-tr", "DCCNNKDTrainer", "-p", STUDENT, "-device", "cpu")

    sizes = []
    for folder in (teacher, student):
        checkpoint = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
        sizes.append(sum(weights.numel() for weights in checkpoint["network_weights"].values()))
        plans = read_plans(folder / "plans.json")
        assert (plans.configuration("2d").training.seed, plans.configuration("2d").batch_size) == (42, 4)
    assert sizes == [141_765, 49_285]
    (log,) = (student / "fold_0").glob("training_log_*.txt")
    first, second = log.read_text().split("Epoch 1,")
    assert "attention_transfer" in first
    assert "imitation" in second
    assert "learning rate 0.001" in second

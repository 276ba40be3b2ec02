"""Whole trainings of a few seconds through the command line."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from nnunet_kd.recon.training.models import load_network
from nnunet_kd.recon.training.run import find_run
from nnunet_kd.recon.training.trainers import DCCNNTrainer
from nnunet_kd.recon.training.validation import mean_scores, validate

Planned = Callable[..., dict[str, Any]]


def checkpoint(folder: Any, name: str = "checkpoint_final.pth") -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / name, weights_only=True)
    return found


@pytest.mark.usefixtures("pictures")
def test_training_beats_zero_filling_and_leaves_nnunet_s_files(site: Any, planned: Planned) -> None:
    assert site.train("DCCNNTrainer", planned("nnUNetReconPlans", num_epochs=6)) == 0
    folder = site.fold("DCCNNTrainer", "nnUNetReconPlans")
    names = {path.name for path in folder.iterdir()}
    assert {"checkpoint_final.pth", "checkpoint_best.pth", "progress.png", "debug.json", "validation"} <= names
    assert "checkpoint_latest.pth" not in names
    assert {"plans.json", "dataset.json", "dataset_fingerprint.json"} <= {p.name for p in folder.parent.iterdir()}
    log = checkpoint(folder)["logging"]
    assert log["train_loss"][-1] < log["train_loss"][0]
    run = find_run("950", "2d", "0", "DCCNNTrainer", "nnUNetReconPlans")
    trainer = DCCNNTrainer(run, torch.device("cpu"))
    for weights in trainer.network.parameters():
        weights.data.zero_()  # what is left is zero-filling
    zero_filled = mean_scores(validate(trainer))["PSNR"]
    summary = json.loads((folder / "validation" / "summary.json").read_text())
    assert summary["foreground_mean"]["PSNR"] == pytest.approx(log["val_PSNR"][-1], abs=1e-6)
    assert summary["foreground_mean"]["PSNR"] > zero_filled + 0.5
    network, plans, configuration = load_network(folder.parent, 0)
    assert not network.training
    assert plans.configuration("2d") == configuration


def test_continuing_is_bit_exact(site: Any, planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    content = planned("nnUNetReconPlans", num_epochs=4)
    assert site.train("DCCNNTrainer", content) == 0
    whole = checkpoint(site.fold("DCCNNTrainer", "nnUNetReconPlans"))
    name = "nnUNetReconAgainPlans"
    interrupted = {**content, "plans_name": name}
    with monkeypatch.context() as context:
        context.setattr("nnunet_kd.recon.training.loop.Loop._plot", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            site.train("DCCNNTrainer", interrupted)
    assert checkpoint(site.fold("DCCNNTrainer", name), "checkpoint_latest.pth")["epoch"] == 2
    assert site.train("DCCNNTrainer", interrupted, "--c") == 0
    resumed = checkpoint(site.fold("DCCNNTrainer", name))
    assert resumed["epoch"] == 4
    assert resumed["logging"]["train_loss"] == whole["logging"]["train_loss"]
    for key, weights in whole["network_weights"].items():
        assert torch.equal(weights, resumed["network_weights"][key]), key


def stop_after(epochs: int) -> Callable[[Any], None]:
    def stop(loop: Any) -> None:
        if loop.epoch == epochs:
            raise KeyboardInterrupt

    return stop


def test_a_damaged_checkpoint_is_passed_over(site: Any, planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    content = planned("nnUNetReconPlans")
    site.train("DCCNNTrainer", content)
    folder = site.fold("DCCNNTrainer", "nnUNetReconPlans")
    final = folder / "checkpoint_final.pth"
    final.write_bytes(final.read_bytes()[:-200])
    assert site.train("DCCNNTrainer", content, "--c") == 0
    assert "Continuing from checkpoint_best.pth" in capsys.readouterr().out
    assert checkpoint(folder)["epoch"] == 2
    for path in folder.glob("*.pth"):
        path.write_bytes(b"nothing")
    assert site.train("DCCNNTrainer", content, "--c") == 2
    assert "no whole checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize(("key", "value"), [("epoch", -5), ("seed", -1), ("best", "high")])
def test_a_checkpoint_of_odd_numbers_is_refused(
    taught: Any, planned: Planned, capsys: pytest.CaptureFixture[str], key: str, value: Any
) -> None:
    final = taught.fold("DCCNNTrainer", "nnUNetReconPlans") / "checkpoint_final.pth"
    torch.save({**torch.load(final, weights_only=True), key: value}, final)
    assert taught.train("DCCNNTrainer", planned("nnUNetReconPlans"), "--c") == 2
    assert "does not suit the plans 'nnUNetReconPlans' (ValueError" in capsys.readouterr().err


def test_images_that_are_not_finite_are_one_line(
    taught: Any, planned: Planned, capsys: pytest.CaptureFixture[str]
) -> None:
    final = taught.fold("DCCNNTrainer", "nnUNetReconPlans") / "checkpoint_final.pth"
    saved = torch.load(final, weights_only=True)
    for weight in saved["network_weights"].values():
        weight.fill_(float("nan"))
    torch.save(saved, final)
    assert taught.train("DCCNNTrainer", planned("nnUNetReconPlans"), "--val") == 2
    assert "disc4: expected finite values" in capsys.readouterr().err


def test_val_needs_a_trained_network_and_repeats_the_scores(site: Any, planned: Planned) -> None:
    content = planned("nnUNetReconPlans", num_epochs=1)
    assert site.train("DCCNNTrainer", content, "--val") == 2
    assert not site.fold("DCCNNTrainer", "nnUNetReconPlans").exists()
    site.train("DCCNNTrainer", content)
    summary = site.fold("DCCNNTrainer", "nnUNetReconPlans") / "validation" / "summary.json"
    before = summary.read_text()
    summary.unlink()
    assert site.train("DCCNNTrainer", content, "--val") == 0
    assert summary.read_text() == before

"""Claims about interrupted, resumed and damaged trainings."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.distillation.base_trainer import BaseTrainer

Make = Callable[..., Any]
Plan = Callable[..., int]


def test_resumed_equals_uninterrupted(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan("--seed", "5", "--epochs", "3")
    whole = make_trainer()
    whole.run_training()
    expected = of.weights(whole)
    shutil.rmtree(whole.output_folder)

    of.interrupted(make_trainer())
    second = make_trainer(continue_training=True)
    second.load_checkpoint(str(Path(second.output_folder) / "checkpoint_latest.pth"))
    assert second.current_epoch == 1
    torch.manual_seed(999)  # the stored state must win
    second.run_training()
    assert of.largest_difference(expected, of.weights(second)) < 1e-6
    ours, theirs = (t.logger.local_logger.my_fantastic_logging for t in (second, whole))
    assert {key: len(v) for key, v in ours.items()} == {key: len(v) for key, v in theirs.items()}
    assert ours["kd_logits_kl"] == pytest.approx(theirs["kd_logits_kl"], abs=1e-6)
    assert ours["lrs"] == theirs["lrs"]


def test_a_damaged_checkpoint_is_passed_over_for_the_next(
    plan: Plan, make_trainer: Make, of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan("--seed", "5")
    trainer = make_trainer()
    trainer.run_training()
    folder = Path(trainer.output_folder)
    final, best = folder / "checkpoint_final.pth", folder / "checkpoint_best.pth"
    final.write_bytes(final.read_bytes()[:1000])
    resumed = make_trainer(continue_training=True)
    resumed.load_checkpoint(str(final))
    assert "Passed over" in of.log(resumed)
    assert "Continuing from checkpoint_best.pth" in of.log(resumed)
    best.write_bytes(b"")
    with pytest.raises(SystemExit):  # training afresh would write over both
        make_trainer(continue_training=True).load_checkpoint(str(final))
    assert "no whole checkpoint" in capsys.readouterr().err


class Unknown:
    """An object that is no data, in a checkpoint that is whole."""


def _change(checkpoint: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        del checkpoint[key]
    else:
        checkpoint[key] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("extra", Unknown(), "could execute code"),
        ("init_args", None, "does not suit the plans"),
        ("optimizer_state", {}, "does not suit the plans"),
        ("network_weights", {}, "does not suit the plans"),
        ("current_epoch", "x", "does not suit the plans"),
        ("kd", [1], "does not suit the plans"),
        ("kd", {"random": "x"}, "random states"),
    ],
)
def test_a_checkpoint_that_cannot_be_continued_stays_and_costs_a_line(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str], key: str, value: Any, message: str
) -> None:
    plan()
    trainer = make_trainer()
    trainer.initialize()
    latest = Path(trainer.output_folder) / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(latest))
    checkpoint = torch.load(latest, weights_only=False)
    _change(checkpoint, key, value)
    torch.save(checkpoint, latest)
    before, resumed = latest.read_bytes(), make_trainer(continue_training=True)
    capsys.readouterr()

    def carry_on() -> None:
        resumed.load_checkpoint(str(latest))
        resumed.on_train_start()

    with pytest.raises(SystemExit) as stop:
        carry_on()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert latest.read_bytes() == before


def test_validation_refuses_a_damaged_checkpoint(
    plan: Plan, make_trainer: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    plan()
    trainer = make_trainer()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    final.write_bytes(b"damaged")
    with pytest.raises(SystemExit) as stop:
        trainer.load_checkpoint(str(final))
    assert stop.value.code == 2
    assert "truncated or no checkpoint" in capsys.readouterr().err


def test_a_stock_checkpoint_continues_with_gaps_in_the_new_parts(make_trainer: Make, teacher: Path) -> None:
    """Someone trains with nnUNetTrainer for a while and then changes to KDTrainer."""
    trainer = make_trainer("nnUNetPlans", continue_training=True)
    checkpoint = torch.load(teacher / "fold_0" / "checkpoint_final.pth", weights_only=False)
    for key in [key for key in checkpoint["logging"] if key.startswith("kd_")]:
        del checkpoint["logging"][key]
    del checkpoint["kd"]
    target = Path(trainer.output_folder) / "checkpoint_latest.pth"
    torch.save(checkpoint, target)
    trainer.load_checkpoint(str(target))
    log = trainer.logger.local_logger.my_fantastic_logging
    assert len(log["kd_logits_kl"]) == len(log["train_losses"]) == 2
    assert np.isnan(log["kd_logits_kl"]).all()


def test_short_trainings_save_every_epoch_and_long_ones_by_the_clock(
    plan: Plan, make_trainer: Make, monkeypatch: pytest.MonkeyPatch, of: Any, change_kd: Callable[..., None]
) -> None:
    saved: list[str] = []
    monkeypatch.setattr(BaseTrainer, "save_checkpoint", lambda _, name: saved.append(Path(name).name))
    plan()
    for n_epochs, waited, expected in ((50, 0.0, True), (500, 0.0, False), (500, 1e6, True)):
        change_kd(budget={"num_epochs": n_epochs, "num_iterations_per_epoch": 1, "num_val_iterations_per_epoch": 1})
        trainer = of.started(make_trainer())
        trainer._last_saved -= waited
        trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
        trainer.on_validation_epoch_start()
        with torch.no_grad():
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
        saved.clear()
        trainer.on_epoch_end()
        assert ("checkpoint_latest.pth" in saved) is expected


def test_leftovers_of_a_killed_save_are_removed(plan: Plan, make_trainer: Make, of: Any) -> None:
    plan()
    trainer = make_trainer()
    leftover = Path(trainer.output_folder) / "checkpoint_latest.pth.tmp"
    leftover.write_bytes(b"half")
    of.started(trainer)
    assert not leftover.exists()

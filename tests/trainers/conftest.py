"""What the tests of the trainers share."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor


def _weights(trainer: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.bare_network().state_dict().items()}


def _largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def _started(trainer: Any) -> Any:
    """Start training without running an epoch."""
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    return trainer


def _interrupted(trainer: Any) -> Any:
    """Train one epoch, then stop as Ctrl-C does."""
    original = trainer.on_epoch_end

    def stop() -> None:
        original()
        raise KeyboardInterrupt

    trainer.on_epoch_end = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    return trainer


def _log_text(trainer: Any) -> str:
    return Path(trainer.log_file).read_text()


@pytest.fixture
def of() -> SimpleNamespace:
    """Ask a trainer for what tests compare, ``weights`` or ``log``; have it ``started`` or ``interrupted``."""
    return SimpleNamespace(
        weights=_weights,
        largest_difference=_largest_difference,
        started=_started,
        interrupted=_interrupted,
        log=_log_text,
    )


@pytest.fixture
def change_kd(site: Any) -> Callable[..., None]:
    """Edit the kd block of the toy's student plans by hand."""

    def change(**changes: Any) -> None:
        plans = site.plans("nnUNetKDPlans")
        plans["kd"]["configurations"]["3d_fullres"].update(changes)
        site.write_plans(plans)

    return change

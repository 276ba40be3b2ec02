"""What a user may get wrong before anything is built: one line, and nothing written."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd.cli import main

Planned = Callable[..., dict[str, Any]]


def unchanged(plans: dict[str, Any]) -> None:
    pass


def other_network(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["architecture"]["network_class_name"] = "nnunet_kd.recon.networks.VDSR"


def odd_metric(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["metrics"] = ["beauty"]


def with_kd(plans: dict[str, Any]) -> None:
    plans["kd"] = {"version": 1, "configurations": {"2d": {"losses": []}}}


def not_preprocessed(plans: dict[str, Any]) -> None:
    plans["configurations"]["2d"]["data_identifier"] = "elsewhere"


@pytest.mark.parametrize(
    ("words", "change", "message"),
    [
        (["950", "2d", "0", "-tr", "DCNNTrainer"], unchanged, "did you mean 'DCCNNTrainer'"),
        (["950", "2d", "0", "-p", "nnUNetPlans"], unchanged, "found: nnUNetReconPlans"),
        (["950", "2d", "0", "-p", "../Dataset950_Discs/nnUNetReconPlans"], unchanged, "a name without slashes"),
        (["950", "3d", "0"], unchanged, "they have: 2d"),
        (["950", "2d", "7"], unchanged, "expected 0 to 0"),
        (["950", "2d", "first"], unchanged, "expected a number or 'all'"),
        (["951", "2d", "0"], unchanged, "951"),
        (["950", "2d", "0", "--c", "--val"], unchanged, "leave one out"),
        (["950", "2d", "0", "-num_gpus", "3"], unchanged, "divides the batch of 2"),
        (["950", "2d", "0"], other_network, "type -tr VDSRTrainer"),
        (["950", "2d", "0"], odd_metric, "got 'beauty'"),
        (["950", "2d", "0"], with_kd, "type -tr DCCNNKDTrainer"),
        (["950", "2d", "0"], not_preprocessed, "nnunet_kd recon preprocess -d Dataset950_Discs"),
        (
            ["950", "2d", "0", "-tr", "DCCNNKDTrainer", "-p", "nnUNetReconPlans"],
            unchanged,
            "plans 'nnUNetReconPlans' have none",
        ),
    ],
)
def test_one_line(
    site: Any,
    planned: Planned,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    change: Callable[[dict[str, Any]], None],
    message: str,
) -> None:
    plans = planned("nnUNetReconPlans")
    change(plans)
    site.write(plans)
    assert main(["recon", "train", *words, "-device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(site.results.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
@pytest.mark.parametrize("words", [[], ["-num_gpus", "2"]])
def test_a_gpu_that_is_not_there(
    site: Any, planned: Planned, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    site.write(planned("nnUNetReconPlans"))
    assert main(["recon", "train", "950", "2d", "0", "-device", "cuda", *words]) == 2
    assert re.search("-device cuda: expected a GPU|-num_gpus: expected at most 0", capsys.readouterr().err)
    assert not list(site.results.iterdir())


def test_missing_splits(site: Any, planned: Planned, capsys: pytest.CaptureFixture[str]) -> None:
    (site.preprocessed / "Dataset950_Discs" / "splits_final.json").unlink()
    assert site.train("DCCNNTrainer", planned("nnUNetReconPlans")) == 2
    assert "found none; type: nnunet_kd recon preprocess -d Dataset950_Discs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "splits",
    [
        {},
        [],
        [{"train": ["disc0"]}],
        [{"train": [], "val": ["disc1"]}],
        [{"train": 5, "val": ["disc1"]}],
        [{"train": "disc0", "val": ["disc1"]}],
        [{"train": ["disc0", "disc1"], "val": ["disc1"]}],
    ],
)
def test_damaged_splits(site: Any, planned: Planned, capsys: pytest.CaptureFixture[str], splits: Any) -> None:
    dataset: Path = site.preprocessed / "Dataset950_Discs"
    (dataset / "splits_final.json").write_text(json.dumps(splits))
    assert site.train("DCCNNTrainer", planned("nnUNetReconPlans")) == 2
    assert "splits_final.json" in capsys.readouterr().err

"""Claims about checkpoints as data."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd.distillation.checkpoints import (
    UnsafeCheckpointError,
    file_sha256,
    load_checkpoint_safely,
    save_atomically,
    to_plain,
)
from nnunet_kd.errors import UsageError


def stock_checkpoint() -> dict[str, Any]:
    """What nnU-Net 2.8 stores, numpy scalars included."""
    return {
        "network_weights": {"a": torch.ones(2)},
        "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.25)], "n": [np.int64(3)], "b": [np.bool_(True)]},
        "_best_ema": np.float64(0.5),
        "init_args": {"plans": {"x": [1, None]}, "fold": 0, "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
    }


def test_a_stock_checkpoint_is_read(tmp_path: Path) -> None:
    torch.save(stock_checkpoint(), tmp_path / "c.pth")
    checkpoint = load_checkpoint_safely(tmp_path / "c.pth")
    assert checkpoint["logging"]["mean_fg_dice"] == [0.5, 0.25]
    assert torch.equal(checkpoint["network_weights"]["a"], torch.ones(2))


class Malicious:
    """Unpickling this runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path, as_zip: bool) -> None:
    marker = tmp_path / "executed"
    content = {**stock_checkpoint(), "evil": Malicious(marker)}
    torch.save(content, tmp_path / "c.pth", _use_new_zipfile_serialization=as_zip)
    with pytest.raises(UnsafeCheckpointError, match="could execute code"):
        load_checkpoint_safely(tmp_path / "c.pth")
    assert not marker.exists()
    torch.load(tmp_path / "c.pth", weights_only=False)  # shows that the file is as malicious as claimed
    assert marker.exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, share: float) -> None:
    path = tmp_path / "c.pth"
    torch.save(stock_checkpoint(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UsageError, match=r"c\.pth: truncated or no checkpoint"):
        load_checkpoint_safely(path)


def test_missing_and_foreign_files_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="found none"):
        load_checkpoint_safely(tmp_path / "c.pth")
    for content in (
        {"state_dict": {}},
        [],
        *({"network_weights": w} for w in (None, [], {1: torch.ones(1)}, {"a": 1})),
    ):
        torch.save(content, tmp_path / "c.pth")
        with pytest.raises(UsageError, match="'network_weights'"):
            load_checkpoint_safely(tmp_path / "c.pth")
    torch.save({"network_weights": {}, "trainer_name": 5}, tmp_path / "c.pth")
    with pytest.raises(UsageError, match="name of a trainer"):
        load_checkpoint_safely(tmp_path / "c.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    save_atomically({"network_weights": {}, "n": 1}, path)
    with pytest.raises(Exception, match="pickle"):
        save_atomically({"network_weights": lambda: None}, path)
    assert load_checkpoint_safely(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk."""
    path = tmp_path / "c.pth"
    save_atomically({"network_weights": {}, "n": 1}, path)
    code = (
        "import resource, signal, sys, torch; from nnunet_kd.distillation.checkpoints import save_atomically;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "save_atomically({'network_weights': torch.zeros(100000)}, sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert result.stderr.splitlines()[-1].startswith("OSError: ")  # which the program turns into a line
    assert load_checkpoint_safely(path)["n"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["c.pth"]


def test_plain_values_load_without_an_allow_list(tmp_path: Path) -> None:
    checkpoint = to_plain({"a": [np.float64(1.5)], "b": (np.arange(2), {"c": np.float32(2)})})
    torch.save(checkpoint, tmp_path / "c.pth")
    assert torch.load(tmp_path / "c.pth", weights_only=True) == {"a": [1.5], "b": ([0, 1], {"c": 2.0})}


def test_the_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert file_sha256(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

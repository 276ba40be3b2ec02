"""A raw data set of phantoms per kind in nnU-Net's three folders, copied for every test."""

import argparse
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch

from nnunet_kd.recon.cli import VERBS
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset
from nnunet_kd.recon.planning.plans import build_network, read_plans

pytest.importorskip("h5py")

KINDS = {
    "Dataset001_Single": {"settings": PhantomSettings(n_slices=2, matrix=(32, 24), target_size=(20, 20), noise=0.01)},
    "Dataset002_Multi": {
        "settings": PhantomSettings(n_slices=2, matrix=(32, 24), coils=3),
        "sampling": {"mask": "equispaced", "acceleration": [2, 4], "center_fraction": [0.3, 0.2]},
    },
    "Dataset003_Super": {"settings": PhantomSettings(n_slices=2, matrix=(32, 32)), "truncation": (4, 2)},
}


Run = Callable[..., None]


def _set_folders(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("raw", "preprocessed", "results"):
        (folder / name).mkdir(exist_ok=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(folder / name))


def _run(verb: str, *words: str) -> None:
    module = import_module(VERBS[verb][0])
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    here = () if verb == "plan" else ("-np", "0")  # in this process
    module.run(parser.parse_args([*words, *here]))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """nnU-Net's folders with a raw data set of each kind; the first planned, the second preprocessed too."""
    folder = tmp_path_factory.mktemp("prepared")
    (folder / "raw").mkdir()
    for name, options in KINDS.items():
        make_phantom_dataset(folder / "raw" / name, 6, n_test=1, **options)
    with pytest.MonkeyPatch.context() as monkeypatch:
        _set_folders(monkeypatch, folder)
        for number in "12":
            _run("extract_fingerprint", "-d", number)
        _run("plan", "-d", "1")
        _run("plan", "-d", "2", "--scope", "volume", "--batch-size", "1")
        _run("preprocess", "-d", "2")
    return folder


@pytest.fixture
def folders(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them; returns the folder that holds all three."""
    folder = tmp_path / "folders"
    shutil.copytree(prepared, folder)
    _set_folders(monkeypatch, folder)
    return folder


@pytest.fixture
def run(folders: Path) -> Run:
    """Run a sub-verb in this process."""
    return _run


@pytest.fixture
def planned(folders: Path) -> Path:
    """The preprocessed folder of the single-coil data set: fingerprint and plans."""
    return folders / "preprocessed" / "Dataset001_Single"


@pytest.fixture
def teacher(planned: Path, folders: Path) -> Path:
    """A model folder with a fold of random weights."""
    plans = read_plans(planned / "nnUNetReconPlans.json")
    model = folders / "results" / planned.name / "DCCNNTrainer__nnUNetReconPlans__2d"
    (model / "fold_0").mkdir(parents=True)
    for name, target in (("nnUNetReconPlans.json", "plans.json"), ("dataset.json", "dataset.json")):
        shutil.copy(planned / name, model / target)
    weights = build_network(plans.configuration("2d")).state_dict()
    torch.save({"network_weights": weights}, model / "fold_0" / "checkpoint_final.pth")
    return model

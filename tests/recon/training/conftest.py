"""A small preprocessed data set of discs, with plans, for trainings of seconds."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch

from nnunet_kd.cli import main
from nnunet_kd.recon.physics.fourier import image_to_kspace

DATASET = "Dataset950_Discs"
IDENTIFIER = "nnUNetReconPlans_2d"
N_SLICES, SIZE = 3, 32


def disc_images(seed: int) -> np.ndarray[Any, Any]:
    """Return ``(S, H, W)``: a few overlapping discs on a smooth background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    images = np.zeros((N_SLICES, SIZE, SIZE))
    for number in range(N_SLICES):
        for _ in range(6):
            centre, radius = rng.uniform(8, 24, 2), rng.uniform(2, 8)
            images[number] += rng.uniform(0.2, 1) / (1 + np.exp(3 * (np.hypot(y - centre[0], x - centre[1]) - radius)))
    return 100 * images  # far from 1, so that a forgotten scale shows


def write_case(folder: Path, name: str, seed: int) -> None:
    images = disc_images(seed)
    kspace = image_to_kspace(torch.from_numpy(images.astype(np.complex64)))[:, None]
    for suffix, array in (("", kspace.numpy()), ("_target", images.astype(np.float32))):
        blosc2.asarray(np.ascontiguousarray(array), urlpath=str(folder / f"{name}{suffix}.b2nd"), mode="w")
    facts = {"name": name, "patient": name, "n_slices": N_SLICES, "n_coils": 1}
    facts |= {"matrix": [SIZE, SIZE], "target_shape": [SIZE, SIZE]}
    (folder / f"{name}.json").write_text(json.dumps(facts))


def plans(name: str, **changes: Any) -> dict[str, Any]:
    """Return plans; ``changes`` of the training block, or of the configuration where it has the key."""
    configuration: dict[str, Any] = {
        "data_identifier": IDENTIFIER,
        "batch_size": 2,
        "architecture": {
            "network_class_name": "nnunet_kd.recon.networks.DCCNN",
            "arch_kwargs": {"cascades": 2, "convs": 3, "channels": 8},
        },
        "training": {"num_epochs": 2, "initial_lr": 0.003, "seed": 3, "precision": "float32", "lr_schedule": "cosine"},
    }
    kd = changes.pop("kd", None)
    for key, value in changes.items():
        is_own = key in ("architecture", "loss", "batch_size", "crop", "n_neighbours", "metrics", "student_branches")
        (configuration if is_own else configuration["training"])[key] = value
    found: dict[str, Any] = {
        "dataset_name": DATASET,
        "plans_name": name,
        "task": "reconstruction",
        "acquisition": "single_coil",
        "sampling": {"mask": "random", "acceleration": 4, "center_fraction": 0.1},
        "configurations": {"2d": configuration},
    }
    return found if kd is None else {**found, "kd": {"version": 1, "configurations": {"2d": kd}}}


@dataclass(frozen=True)
class Site:
    """nnU-Net's folders."""

    preprocessed: Path
    results: Path

    def write(self, content: dict[str, Any]) -> None:
        (self.preprocessed / DATASET / f"{content['plans_name']}.json").write_text(json.dumps(content))

    def fold(self, trainer: str, name: str, fold: str = "0") -> Path:
        return self.results / DATASET / f"{trainer}__{name}__2d" / f"fold_{fold}"

    def train(self, trainer: str, content: dict[str, Any], *words: str, fold: str = "0") -> int:
        self.write(content)
        name = content["plans_name"]
        return main(["recon", "train", "950", "2d", fold, "-tr", trainer, "-p", name, "-device", "cpu", *words])


def make_site(root: Path) -> Site:
    dataset, results = root / "preprocessed" / DATASET, root / "results"
    (dataset / IDENTIFIER).mkdir(parents=True)
    results.mkdir()
    names = [f"disc{number}" for number in range(5)]
    for number, name in enumerate(names):
        write_case(dataset / IDENTIFIER, name, number)
    (dataset / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    (dataset / "dataset.json").write_text(json.dumps({"name": "Discs"}))
    (dataset / "dataset_fingerprint.json").write_text("{}")
    return Site(root / "preprocessed", results)


def use(site: Site, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("nnUNet_preprocessed", str(site.preprocessed))
    patch.setenv("nnUNet_results", str(site.results))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    made = make_site(tmp_path)
    use(made, monkeypatch)
    return made


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site with a trained teacher, which tests copy."""
    made = make_site(tmp_path_factory.mktemp("discs"))
    with pytest.MonkeyPatch.context() as patch:
        use(made, patch)
        patch.setattr("nnunet_kd.recon.training.loop.plot_progress", lambda *_: None)
        assert made.train("DCCNNTrainer", plans("nnUNetReconPlans")) == 0
    return made


@pytest.fixture
def taught(trained: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    shutil.copytree(trained.results, tmp_path / "results")
    shutil.copytree(trained.preprocessed, tmp_path / "preprocessed")
    copy = Site(tmp_path / "preprocessed", tmp_path / "results")
    use(copy, monkeypatch)
    return copy


@pytest.fixture(autouse=True)
def no_pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no progress.png where a test does not ask for it."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("nnunet_kd.recon.training.loop.plot_progress", lambda *_: None)
        monkeypatch.setattr("nnunet_kd.recon.training.sample_pictures.write_pictures", lambda *_: None)


@pytest.fixture
def pictures() -> None:
    """Ask for progress.png and pictures of samples."""


@pytest.fixture
def planned() -> Callable[..., dict[str, Any]]:
    return plans

"""A model folder with random weights and phantoms to reconstruct."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunet_kd import cli
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset
from nnunet_kd.recon.networks import DCCNN

NAME = "Dataset960_Phantoms"
SMALL = {"cascades": 1, "convs": 2, "channels": 4}


def plans(**changes: Any) -> dict[str, Any]:
    configuration = {
        "data_identifier": "nnUNetReconPlans_2d",
        "batch_size": 2,
        "architecture": {"network_class_name": "nnunet_kd.recon.networks.DCCNN", "arch_kwargs": SMALL},
    }
    content = {
        "dataset_name": NAME,
        "plans_name": "nnUNetReconPlans",
        "task": "reconstruction",
        "acquisition": "single_coil",
        "sampling": {"mask": "random", "acceleration": 4, "center_fraction": 0.1},
        "configurations": {"2d": configuration},
    }
    configuration.update(changes.pop("configuration", {}))
    return {key: value for key, value in {**content, **changes}.items() if value is not None}


@dataclass(frozen=True)
class Place:
    """Folders of a test."""

    raw: Path
    model: Path
    output: Path

    def draw(self, coils: int) -> None:
        """Draw the phantoms anew, with several coils."""
        shutil.rmtree(self.raw / NAME)
        phantom = PhantomSettings(n_slices=3, matrix=(24, 20), coils=coils)
        make_phantom_dataset(self.raw / NAME, 1, n_test=2, settings=phantom)

    def rewrite(self, **changes: Any) -> None:
        """Write the model anew, with other plans."""
        write_model(self.model, plans(**changes))

    @property
    def cases(self) -> Path:
        return self.raw / NAME / "kspaceTs"

    def predict(self, *words: object, source: Path | None = None) -> int:
        fixed = ["-i", source or self.cases, "-o", self.output, "-m", self.model]
        return cli.main(["recon", "predict", *map(str, [*fixed, *words])])


def write_model(folder: Path, content: dict[str, Any], n_folds: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(content))
    for fold in range(n_folds):
        torch.manual_seed(fold)
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        weights = {"network_weights": DCCNN(**SMALL).state_dict()}
        torch.save(weights, folder / f"fold_{fold}" / "checkpoint_final.pth")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    pytest.importorskip("h5py")
    raw = tmp_path / "raw"
    raw.mkdir()
    phantom = PhantomSettings(n_slices=3, matrix=(24, 20))
    make_phantom_dataset(raw / NAME, 1, n_test=2, settings=phantom)
    model = tmp_path / "results" / NAME / "DCCNNTrainer__nnUNetReconPlans__2d"
    write_model(model, plans())
    return Place(raw, model, tmp_path / "predictions")

"""The matrix of configurations and label kinds, each from planning to the released model.

``pytest tests/trainers/test_matrix.py -m slow --write-tables`` writes what passed to docs/reference/matrix.md.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813  # its usual name
import torch

from nnunet_kd.cli import main
from nnunet_kd.phantoms.dataset import write_phantom_dataset

CONFIGURATIONS = ("2d", "3d_fullres", "anisotropic", "cascade")
KINDS = ("labels", "regions", "ignore")
CELLS = [(configuration, kind) for configuration in CONFIGURATIONS for kind in KINDS]
TITLES = {
    "2d": "`2d`",
    "3d_fullres": "`3d_fullres`",
    "anisotropic": "`3d_fullres`, anisotropic (dummy 2-D augmentation)",
    "cascade": "`3d_lowres`, then `3d_cascade_fullres`",
}
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "matrix.md"
HEAD = """# Tested configurations

Each cell was planned, trained for one short epoch by nnU-Net's own entry point, continued with `--c` for a second one,
validated with `--val`, predicted by `nnUNetv2_predict`, released, and predicted again from the released model by stock
nnU-Net's trainer class. Both predictions agree voxel for voxel. Then the teacher's outputs were cached, the teacher was
deleted, and a student was trained from the cache. The table is written by the tests:
`pytest tests/trainers/test_matrix.py -m slow --write-tables`.

| configuration | labels | regions (sigmoid) | ignore label |
|---|---|---|---|
"""


@pytest.fixture(scope="module")
def passed(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str], float]]:
    """Seconds of the cells that passed; written to the docs on request when all did."""
    cells: dict[tuple[str, str], float] = {}
    yield cells
    if request.config.getoption("--write-tables") and set(cells) == set(CELLS):
        rows = [
            f"| {TITLES[configuration]} | " + " | ".join("passes" for _ in KINDS) + " |"
            for configuration in CONFIGURATIONS
        ]
        PAGE.write_text(HEAD + "\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def sites(
    tmp_path_factory: pytest.TempPathFactory, preprocess_site: Callable[..., None], make_site: Callable[..., Any]
) -> Callable[[str, str], Any]:
    """Preprocessed data sets, one per geometry and label kind, made when first asked for."""
    made: dict[tuple[bool, str], Any] = {}

    def get(configuration: str, kind: str) -> Any:
        anisotropic = configuration == "anisotropic"
        if (anisotropic, kind) not in made:
            root = tmp_path_factory.mktemp(f"{kind}_{anisotropic}")
            site = make_site(root, "Dataset901_Matrix")
            for folder in (site.raw, site.preprocessed, site.results):
                folder.mkdir()
            shape, spacing = ((8, 32, 32), (5.0, 1.0, 1.0)) if anisotropic else ((20, 24, 20), (1.0, 1.0, 1.0))
            write_phantom_dataset(
                site.raw, dataset_id=901, name="Matrix", n_train=4, n_test=1, seed=3, shape=shape, spacing=spacing,
                kind=kind,
            )  # fmt: skip
            preprocess_site(site, "3d_fullres", *(() if anisotropic else ("2d",)))
            if not anisotropic:
                _add_cascade(site)
            made[anisotropic, kind] = site
        return made[anisotropic, kind]

    return get


def _add_cascade(site: Any) -> None:
    """Write the low resolution and the cascade as nnU-Net's planner does for volumes that are large enough."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess

    plans = site.plans("nnUNetPlans")
    fullres = plans["configurations"]["3d_fullres"]
    lowres = json.loads(json.dumps(fullres))
    lowres |= {
        "data_identifier": "nnUNetPlans_3d_lowres",
        "spacing": [1.3 * s for s in fullres["spacing"]],
        "next_stage": "3d_cascade_fullres",
    }
    plans["configurations"]["3d_lowres"] = lowres
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    site.write_plans(plans)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in {**site.environment(), "nnUNet_n_proc_DA": "1"}.items():
            patch.setenv(key, value)
        preprocess([901], configurations=["3d_lowres"], num_processes=[1])


class Bench:
    """The commands of one cell."""

    def __init__(self, site: Any, patch: pytest.MonkeyPatch, fold: str) -> None:
        self.site, self.patch, self.fold = site, patch, fold

    def plan(self, configuration: str, plans: str, *options: str) -> None:
        budget = ["--epochs", "1", "--iterations", "1", "--val-iterations", "1", "--overwrite"]
        assert main(["plan", "-d", "901", "-c", configuration, "-p", plans, *budget, *options]) == 0

    def train(self, configuration: str, plans: str, *options: str) -> None:
        from nnunetv2.run.run_training import run_training_entry

        command = ["nnUNetv2_train", "901", configuration, self.fold, "-tr", "KDTrainer", "-p", plans, "-device", "cpu"]
        self.patch.setattr(sys, "argv", [*command, *options])
        run_training_entry()
        torch.set_num_threads(1)  # the entry point takes all

    def distil(self, configuration: str, plans: str = "nnUNetKDPlans") -> None:
        """Train a teacher and a student of one configuration; continue the student and validate it again."""
        self.plan(configuration, "nnUNetKDTeacherPlans", "--method", "none", "--shrink", "4")
        self.train(configuration, "nnUNetKDTeacherPlans")
        teacher = self.site.model("nnUNetKDTeacherPlans", configuration)
        self.plan(configuration, plans, "--teacher", str(teacher), "--shrink", "2")
        self.train(configuration, plans)
        self.prolong(configuration, plans)
        self.train(configuration, plans, "--c")
        self.train(configuration, plans, "--val")

    def distil_from_cache(self, configuration: str, plans: str = "nnUNetKDPlans") -> list[float]:
        """Train the student anew on cached outputs, the teacher gone; return the distillation loss per epoch."""
        teacher = self.site.model("nnUNetKDTeacherPlans", configuration)
        self.plan(configuration, plans, "--teacher", str(teacher), "--shrink", "2", "--teacher-outputs", "cached")
        options = ["-d", "901", "-c", configuration, "-p", plans, "-f", self.fold, "-device", "cpu", "-np", "0"]
        assert main(["cache_teacher", *options]) == 0
        fold = self.site.model(plans, configuration) / f"fold_{self.fold}"
        shutil.rmtree(fold)
        shutil.rmtree(teacher)
        self.train(configuration, plans)
        checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=True)
        losses: list[float] = checkpoint["logging"]["kd_logits_kl"]
        return losses

    def prolong(self, configuration: str, plans_name: str) -> None:
        """Allow a second epoch, so that --c has something to do."""
        plans = self.site.plans(plans_name)
        plans["kd"]["configurations"][configuration]["budget"]["num_epochs"] = 2
        self.site.write_plans(plans)

    def predict(self, configuration: str, trainer: str, output: Path, previous: Path | None = None) -> Path:
        from nnunetv2.inference.predict_from_raw_data import predict_entry_point

        images = self.site.raw / self.site.dataset / "imagesTs"
        command = ["nnUNetv2_predict", "-i", str(images), "-o", str(output), "-d", "901", "-c", configuration]
        command += ["-tr", trainer, "-p", "nnUNetKDPlans", "-f", self.fold]
        command += ["-device", "cpu", "-npp", "0", "-nps", "0"]
        command += ["-prev_stage_predictions", str(previous)] if previous else []
        self.patch.setattr(sys, "argv", command)
        predict_entry_point()
        torch.set_num_threads(1)
        return output


def _voxels(folder: Path) -> np.ndarray[Any, Any]:
    (file,) = folder.glob("*.nii.gz")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.mark.slow
@pytest.mark.parametrize(("configuration", "kind"), CELLS)
def test_every_configuration_goes_from_planning_to_a_released_model(
    configuration: str,
    kind: str,
    sites: Callable[[str, str], Any],
    passed: dict[tuple[str, str], float],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    began = time.monotonic()
    site = sites(configuration, kind)
    for key, value in site.environment().items():
        monkeypatch.setenv(key, value)
    shutil.rmtree(site.results)
    site.results.mkdir()
    # a cascade trains on the previous stage's predictions for every case, which fold all makes in one run
    bench = Bench(site, monkeypatch, fold="all" if configuration == "cascade" else "0")
    last, previous = configuration, None
    if configuration == "cascade":
        bench.distil("3d_lowres")
        previous = bench.predict("3d_lowres", "KDTrainer", tmp_path / "lowres")
        last = "3d_cascade_fullres"
    elif configuration == "anisotropic":
        last = "3d_fullres"
    bench.distil(last)
    student = site.model("nnUNetKDPlans", last)
    fold = student / f"fold_{bench.fold}"
    checkpoint = torch.load(fold / "checkpoint_final.pth", weights_only=True)
    assert len(checkpoint["logging"]["kd_logits_kl"]) == 2  # trained, and continued
    assert np.isfinite(checkpoint["logging"]["kd_logits_kl"]).all()
    assert (fold / "validation" / "summary.json").is_file()
    if configuration == "anisotropic":
        assert "do_dummy_2d_data_aug: True" in next(iter(sorted(fold.glob("training_log*")))).read_text()
    assert main(["release", "-m", str(student), "-f", bench.fold, "-o", str(tmp_path / "released")]) == 0
    (released,) = (tmp_path / "released").glob("**/nnUNetTrainer__*")
    shutil.copytree(released, student.with_name(released.name))
    ours = _voxels(bench.predict(last, "KDTrainer", tmp_path / "ours", previous))
    theirs = _voxels(bench.predict(last, "nnUNetTrainer", tmp_path / "theirs", previous))
    assert np.array_equal(ours, theirs)
    (loss,) = bench.distil_from_cache(last)
    assert np.isfinite(loss)
    assert loss > 0
    passed[configuration, kind] = time.monotonic() - began


def test_the_docs_show_every_cell() -> None:
    page = PAGE.read_text()
    assert page.startswith(HEAD)
    for configuration in CONFIGURATIONS:
        assert f"| {TITLES[configuration]} | passes | passes | passes |" in page

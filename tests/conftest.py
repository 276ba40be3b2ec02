"""Fixtures that all tests share: nnU-Net's folders with a toy data set, and a toy teacher trained once."""

import json
import os
import shutil
import sysconfig
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from nnunet_kd.cli import main
from nnunet_kd.phantoms.dataset import write_phantom_dataset

torch.set_num_threads(1)  # tests run side by side

DATASET = "Dataset900_Toy"
CONFIGURATION = "3d_fullres"


@dataclass(frozen=True)
class Site:
    """nnU-Net's three folders with one preprocessed data set in them."""

    root: Path
    dataset: str

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def preprocessed(self) -> Path:
        return self.root / "preprocessed"

    @property
    def results(self) -> Path:
        return self.root / "results"

    def environment(self) -> dict[str, str]:
        return {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "0",
            "nnUNet_compile": "f",
        }

    def plans(self, name: str) -> dict[str, Any]:
        plans: dict[str, Any] = json.loads((self.preprocessed / self.dataset / f"{name}.json").read_text())
        return plans

    def write_plans(self, plans: dict[str, Any]) -> None:
        (self.preprocessed / self.dataset / f"{plans['plans_name']}.json").write_text(json.dumps(plans))

    def model(self, plans: str, configuration: str = CONFIGURATION, trainer: str = "KDTrainer") -> Path:
        return self.results / self.dataset / f"{trainer}__{plans}__{configuration}"


def preprocess(site: Site, *configurations: str) -> None:
    """Fingerprint, plan and preprocess with nnU-Net's own functions, in this process."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments
    from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess as nnunet_preprocess

    number = int(site.dataset[7:10])
    with pytest.MonkeyPatch.context() as patch:
        for key, value in site.environment().items():
            patch.setenv(key, value)
        patch.setenv("nnUNet_n_proc_DA", "1")  # 0 breaks nnU-Net's planning
        extract_fingerprints([number], num_processes=1, check_dataset_integrity=False, show_progress_bar=False)
        plan_experiments([number])
        nnunet_preprocess([number], configurations=configurations, num_processes=[1] * len(configurations))


def _make_toy(root: Path) -> None:
    site = Site(root, DATASET)
    for folder in (site.raw, site.preprocessed, site.results):
        folder.mkdir(parents=True)
    write_phantom_dataset(site.raw, dataset_id=900, name="Toy", n_train=6, n_test=2, seed=0, shape=(20, 24, 20))
    preprocess(site, CONFIGURATION)
    with pytest.MonkeyPatch.context() as patch:
        for key, value in site.environment().items():
            patch.setenv(key, value)
        plan = ["plan", "-d", "900", "-c", CONFIGURATION, "--method", "none", "--shrink", "4", "--seed", "0"]
        budget = [
            "--epochs",
            "2",
            "--iterations",
            "12",
            "--val-iterations",
            "1",
            "--optimizer",
            "AdamW",
            "--lr",
            "0.01",
        ]
        assert main([*plan, *budget, "-p", "nnUNetKDTeacherPlans"]) == 0
        trainer = build_trainer(site, "nnUNetKDTeacherPlans")
        trainer.run_training()
        _as_stock_teacher(site)


def _as_stock_teacher(site: Site) -> None:
    """Give the trained folder the names that nnU-Net's own trainer would have given it."""
    source, target = site.model("nnUNetKDTeacherPlans"), site.model("nnUNetPlans", trainer="nnUNetTrainer")
    shutil.copytree(source, target)
    for fold in (1, "all"):
        shutil.copytree(source / "fold_0", target / f"fold_{fold}")
    plans = json.loads((target / "plans.json").read_text())
    del plans["kd"]
    plans["plans_name"] = "nnUNetPlans"
    (target / "plans.json").write_text(json.dumps(plans))
    for path in target.glob("fold_*/checkpoint_final.pth"):
        checkpoint = torch.load(path, weights_only=False)
        checkpoint["trainer_name"] = "nnUNetTrainer"
        torch.save(checkpoint, path)
    site.write_plans(plans)  # a student planned from this teacher is as small as the tests need it


def build_trainer(
    site: Site,
    plans_name: str,
    *,
    configuration: str = CONFIGURATION,
    fold: int | str = 0,
    continue_training: bool = False,
    trainer: str = "KDTrainer",
) -> Any:
    """Build a trainer as ``nnUNetv2_train`` does; the folders must be set in the environment."""
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(
        site.dataset, configuration, fold, trainer, plans_name, continue_training, torch.device("cpu")
    )


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy data set and its teacher, made once, also when tests run side by side."""
    root = (
        tmp_path_factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else tmp_path_factory.getbasetemp()
    )
    template = root / "toy_template"
    with FileLock(root / "toy_template.lock"):
        if not template.exists():
            work = root / "toy_template_work"
            shutil.rmtree(work, ignore_errors=True)
            _make_toy(work)
            work.rename(template)
    return template


@pytest.fixture
def site(toy_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of the toy's folders for one test, set in the environment.

    It holds ``nnUNetTrainer__nnUNetPlans__3d_fullres`` with folds 0, 1 and all (the same weights).
    """
    root = tmp_path / "nnunet"
    shutil.copytree(toy_template, root)
    here = Site(root, DATASET)
    for key, value in here.environment().items():
        monkeypatch.setenv(key, value)
    return here


@pytest.fixture
def teacher(site: Site) -> Path:
    """The toy teacher's model folder."""
    return site.model("nnUNetPlans", trainer="nnUNetTrainer")


Plan = Callable[..., int]


@pytest.fixture
def plan(site: Site, teacher: Path) -> Plan:
    """Run ``nnunet_kd plan`` for a tiny student with a budget of two epochs of two steps."""

    def run(*options: str, with_teacher: bool = True, name: str | None = "nnUNetKDPlans") -> int:
        arguments = ["plan", "-d", "900", "-c", CONFIGURATION, "--shrink", "2", "--optimizer", "AdamW", "--lr", "0.01"]
        arguments += ["--epochs", "2", "--iterations", "2", "--val-iterations", "1"]
        arguments += ["--teacher", str(teacher)] if with_teacher else []
        arguments += ["-p", name] if name is not None else []
        return main([*arguments, *options])

    return run


@pytest.fixture
def make_trainer(site: Site) -> Callable[..., Any]:
    """Build trainers of the toy data set as ``nnUNetv2_train`` does."""

    def make(plans_name: str = "nnUNetKDPlans", **options: Any) -> Any:
        return build_trainer(site, plans_name, **options)

    return make


@pytest.fixture(scope="session")
def preprocess_site() -> Callable[..., None]:
    """Return :func:`preprocess`."""
    return preprocess


@pytest.fixture(scope="session")
def make_site() -> Callable[[Path, str], Site]:
    """Return the constructor of :class:`Site`."""
    return Site


@pytest.fixture
def realdata() -> Path:
    """The folder with real data, or a skip."""
    folder = os.environ.get("NNUNET_KD_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("NNUNET_KD_DATA names no folder with real data")
    return Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests write the tables of the docs that they prove."""
    parser.addoption("--write-tables", action="store_true", help="write the tables in docs/ that passing tests prove")


@pytest.fixture
def other_environment(tmp_path: Path) -> Path:
    """The interpreter of a second environment that holds everything installed here except this package."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=False, symlinks=True)
    site_packages = next(folder.glob("lib/python*/site-packages"))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "nnunet_kd" not in entry.name:
            (site_packages / entry.name).symlink_to(entry)
    return folder / "bin" / "python"

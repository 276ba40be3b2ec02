"""What is built, and that each way to install it is found by nnU-Net and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import nnunet_kd.trainers
from nnunet_kd import discovery

ROOT = Path(__file__).resolve().parent.parent
SIBLINGS = ("trainers", "dataset_conversion", "recon")
DIST_INFO = f"nnunet_kd-{nnunet_kd.__version__}.dist-info"
SHOWN = 6000  # characters of a failed command's output: its end says what failed
IN_CHECKOUT = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="these tests build the checkout")

FINDS_TRAINERS = """
import os, sys, torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find
for name in sys.argv[1:]:
    assert find(name).__name__ == name
assert find(name).__module__.startswith("nnunet_kd.trainers")
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def _copy_source(target: Path) -> Path:
    """Copy what belongs to the project, without what tools and earlier builds left there."""
    left_out = shutil.ignore_patterns(
        ".*", "build", "dist", "site", "demo", "recon_demo", "*.egg-info", "__pycache__", "work"
    )
    return Path(shutil.copytree(ROOT, target, ignore=left_out))


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("packaging")
    source = _copy_source(folder / "source")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(source)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return folder / "dist"


@pytest.fixture
def run(other_environment: Path, tmp_path: Path) -> Run:
    """Return a function that runs the second environment's Python away from the checkout, told nothing."""
    told = (discovery.VARIABLE, discovery.AUTOLOAD, "TORCH_DEVICE_BACKEND_AUTOLOAD", "PYTHONPATH")

    def python(
        *arguments: str | Path, check: bool = True, folder: Path = tmp_path, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        environment = {key: value for key, value in os.environ.items() if key not in told} | variables
        finished = subprocess.run(
            [other_environment, *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=3000,
        )
        assert finished.returncode == 0 or not check, (finished.stdout + finished.stderr)[-SHOWN:]
        return finished

    return python


def _pip(run: Run, *arguments: str | Path, **variables: str) -> None:
    run("-m", "pip", *arguments, **variables)


def _installed_files(python: Path) -> set[str]:
    folder = python.parent.parent
    # not through the links, and without what Python compiles by itself
    return {str(Path(top, name)) for top, _, names in os.walk(folder) for name in names if not name.endswith(".pyc")}


def _expected_modules() -> set[str]:
    library = {file.relative_to(ROOT).as_posix() for file in (ROOT / "nnunet_kd").rglob("*.py")}
    siblings = {
        f"nnunet_kd/{file.relative_to(ROOT).as_posix()}" for name in SIBLINGS for file in (ROOT / name).rglob("*.py")
    }
    return library | siblings


@IN_CHECKOUT
def test_the_wheel_holds_every_module_below_one_name(built: Path) -> None:
    names = set(zipfile.ZipFile(next(built.glob("*.whl"))).namelist())
    assert {name.partition("/")[0] for name in names} == {"nnunet_kd", DIST_INFO}
    assert {name for name in names if name.endswith(".py")} == _expected_modules()
    assert {
        "nnunet_kd/py.typed",
        "nnunet_kd/nnunet_ext/nnunet_kd_trainers.py",
        "nnunet_kd/trainers/__init__.py",
    } <= names
    assert f"{DIST_INFO}/licenses/LICENSE" in names


@IN_CHECKOUT
def test_the_wheel_declares_hook_and_program(built: Path) -> None:
    archive = zipfile.ZipFile(next(built.glob("*.whl")))
    lines = archive.read(f"{DIST_INFO}/entry_points.txt").decode().splitlines()
    hook = lines[lines.index("[torch.backends]") + 1]
    program = lines[lines.index("[console_scripts]") + 1]
    assert (hook, program) == ("nnunet_kd = nnunet_kd.discovery:autoload", "nnunet_kd = nnunet_kd.cli:main")


@IN_CHECKOUT
def test_the_sdist_holds_tests_and_documents(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    here = {path.relative_to(ROOT).as_posix() for top in ("tests", "docs") for path in (ROOT / top).rglob("*.[pm][yd]")}
    assert here <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "setup.py"} <= names


@IN_CHECKOUT
@pytest.mark.slow
@pytest.mark.parametrize("how", ["regular", "editable"])
def test_an_installed_package_is_found_and_leaves_nothing(
    how: str, run: Run, other_environment: Path, tmp_path: Path
) -> None:
    before = _installed_files(other_environment)
    source = _copy_source(tmp_path / "checkout")
    options = ["--no-deps", "--no-index", "--no-build-isolation"]
    _pip(run, "install", *options, *(["--editable"] if how == "editable" else []), source)
    run("-c", FINDS_TRAINERS, *nnunet_kd.trainers.__all__)
    assert "nnunet_kd" in run(other_environment.parent / "nnunet_kd", "--help").stdout
    _pip(run, "uninstall", "--yes", "nnunet-kd")
    assert _installed_files(other_environment) == before
    assert run("-c", f"import os, torch; print(os.environ.get({discovery.VARIABLE!r}))").stdout == "None\n"


@IN_CHECKOUT
@pytest.mark.slow
def test_a_moved_checkout_breaks_torch_until_the_documented_cure(run: Run, tmp_path: Path) -> None:
    """A record of what happens: the entry point names a package that is gone, and PyTorch gives up."""
    source = _copy_source(tmp_path / "checkout")
    _pip(run, "install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", source)
    source.rename(tmp_path / "moved")
    broken = run("-c", "import torch", check=False)
    assert broken.returncode != 0
    assert "Failed to load the backend extension: nnunet_kd" in broken.stderr
    run("-c", "import torch", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    _pip(run, "uninstall", "--yes", "nnunet-kd", TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    run("-c", "import torch")


@IN_CHECKOUT
@pytest.mark.slow
def test_the_doctor_names_that_cure(run: Run, tmp_path: Path) -> None:
    source = _copy_source(tmp_path / "checkout")
    _pip(run, "install", "--no-deps", "--no-index", "--no-build-isolation", "--editable", source)
    source.rename(tmp_path / "moved")
    report = run("-m", "nnunet_kd", "doctor", check=False, folder=tmp_path / "moved")
    assert report.returncode == 1
    assert "TORCH_DEVICE_BACKEND_AUTOLOAD=0 pip uninstall nnunet-kd" in report.stdout


@IN_CHECKOUT
@pytest.mark.slow
def test_the_wheel_passes_its_tests_outside_the_checkout(built: Path, run: Run, tmp_path: Path) -> None:
    _pip(run, "install", "--no-deps", "--no-index", next(built.glob("*.whl")))
    outside = tmp_path / "outside"
    shutil.copytree(ROOT / "tests", outside / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", outside)  # for pytest's options and markers
    told = run("-c", "import nnunet_kd; print(nnunet_kd.__file__)").stdout
    assert str(ROOT) not in told
    # without the trainings, whose minutes are spent on the checkout already; the workflow runs them here too
    chosen = ["-m", "not slow and not realdata", "--ignore", outside / "tests" / "trainers"]
    finished = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", outside, *chosen, outside / "tests")
    assert " passed" in finished.stdout

"""A checkout finds its own siblings, however and wherever this package is installed beside it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SIBLINGS = ("trainers", "dataset_conversion", "recon")

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="copies the checkout")


def _other_checkout(folder: Path) -> Path:
    for name in ("nnunet_kd", *SIBLINGS):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "setup.py", folder)
    return folder


def _in(folder: Path, code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", SIBLINGS)
def test_another_checkout_brings_its_own_siblings(name: str, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec; print(find_spec('nnunet_kd.{name}').origin)"
    assert Path(_in(_other_checkout(tmp_path), code).strip()) == tmp_path / name / "__init__.py"


def test_without_siblings_beside_it_no_finder_is_added(tmp_path: Path) -> None:
    """As in a wheel, where they lie inside the package."""
    shutil.rmtree(_other_checkout(tmp_path) / "recon")
    code = "import sys, nnunet_kd; print(sum(type(f).__name__ == '_SiblingFinder' for f in sys.meta_path))"
    assert _in(tmp_path, code) == "0\n"


def test_the_bare_folders_are_not_exposed(tmp_path: Path) -> None:
    code = "import pkgutil, nnunet_kd; print([m.name for m in pkgutil.iter_modules(nnunet_kd.__path__)])"
    names = _in(_other_checkout(tmp_path), code)
    assert "'cli'" in names
    assert not any(f"'{name}'" in names for name in ("setup", "nnunet_kd", "tests"))

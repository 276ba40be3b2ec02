"""nnU-Net finds our trainers with nothing set by hand, and whoever does not want that is left alone."""

import os
import pickle
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunet_kd.trainers
from nnunet_kd import discovery

OFF = "TORCH_DEVICE_BACKEND_AUTOLOAD"

# what a command of nnU-Net does in a process that was told nothing
LOOK_UP = """
import multiprocessing, sys, torch
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find

def found_in_child(queue, name):
    queue.put(find(name).__module__)

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for name in sys.argv[1:]:
        queue = context.Queue()
        child = context.Process(target=found_in_child, args=(queue, name))
        child.start()
        assert find(name) is find(name)
        assert queue.get(timeout=120) == find(name).__module__
        child.join()
    assert "nnunet_kd.trainers" in sys.modules
"""


@pytest.fixture
def variable(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Return a function that reads the folders nnU-Net would search; none at first."""
    monkeypatch.setenv(discovery.VARIABLE, "")
    monkeypatch.delenv(discovery.AUTOLOAD, raising=False)
    return lambda: [folder for folder in os.environ[discovery.VARIABLE].split(os.pathsep) if folder]


def _in_fresh_process(
    python: str | Path, *arguments: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run Python in ``folder`` with nothing set that tells where this package is."""
    ours = (discovery.VARIABLE, discovery.AUTOLOAD, OFF, "PYTHONPATH")
    environment = {key: value for key, value in os.environ.items() if key not in ours} | variables
    command = [str(python), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=600
    )


def test_our_folder_comes_after_the_users(variable: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.VARIABLE, os.pathsep.join(["/mine", "/yours"]))
    discovery.autoload()
    assert variable() == ["/mine", "/yours", str(discovery.FOLDER)]


def test_registering_twice_changes_nothing(variable: Callable[[], list[str]]) -> None:
    discovery.register()
    discovery.autoload()
    assert variable() == [str(discovery.FOLDER)]


def test_the_hook_can_be_switched_off(variable: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(discovery.AUTOLOAD, "0")
    discovery.autoload()
    assert variable() == []


def test_the_hook_never_raises(variable: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("no variables on this system")

    monkeypatch.setattr(discovery, "register", fail)
    discovery.autoload()
    assert variable() == []


def test_the_folder_holds_one_module_and_no_package() -> None:
    assert [file.name for file in discovery.FOLDER.glob("*.py")] == ["nnunet_kd_trainers.py"]


@pytest.mark.parametrize("name", nnunet_kd.trainers.__all__)
def test_nnunet_finds_our_class(name: str, variable: Callable[[], list[str]]) -> None:
    discovery.register()
    assert variable()
    found = recursive_find_trainer_class_by_name(name)
    assert found is getattr(nnunet_kd.trainers, name)
    assert found is recursive_find_trainer_class_by_name(name)
    assert pickle.loads(pickle.dumps(found)) is found
    assert found.__name__ == name  # nnU-Net names the results folder so


def _shim_without(missing: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    shim = discovery.FOLDER / "nnunet_kd_trainers.py"
    code = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
names = runpy.run_path({str(shim)!r})
print(sorted(name for name in names if not name.startswith("_")))
"""
    return _in_fresh_process(sys.executable, "-c", code, folder=tmp_path, **{OFF: "0"})


def test_the_shim_defines_nothing_where_we_are_not_installed(tmp_path: Path) -> None:
    assert _shim_without("nnunet_kd", tmp_path).stdout == "[]\n"


def test_the_shim_does_not_hide_another_missing_package(tmp_path: Path) -> None:
    assert "No module named 'nnunetv2'" in _shim_without("nnunetv2", tmp_path).stderr


def test_the_shim_offers_exactly_the_trainers() -> None:
    names = runpy.run_path(str(discovery.FOLDER / "nnunet_kd_trainers.py"))
    assert {name for name in names if not name.startswith("_")} == set(nnunet_kd.trainers.__all__)


def test_a_process_that_was_told_nothing_and_its_spawned_children_find_them(tmp_path: Path) -> None:
    (tmp_path / "look_up.py").write_text(LOOK_UP)
    finished = _in_fresh_process(sys.executable, "look_up.py", *nnunet_kd.trainers.__all__, folder=tmp_path)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize("program", ["nnUNetv2_train", "nnUNetv2_predict"])
def test_nnunets_programs_import_torch_before_they_look_for_trainers(program: str, tmp_path: Path) -> None:
    """The hook runs at ``import torch``; this is what makes that early enough."""
    code = f"""
import os, sys
from importlib.metadata import entry_points
sys.argv = [{program!r}, "-h"]
(entry,) = entry_points(group="console_scripts", name={program!r})
try:
    entry.load()()
except SystemExit:
    print(os.environ.get({discovery.VARIABLE!r}))
"""
    finished = _in_fresh_process(sys.executable, "-c", code, folder=tmp_path)
    assert finished.stdout.splitlines()[-1] == str(discovery.FOLDER)

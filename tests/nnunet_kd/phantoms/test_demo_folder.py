"""Claims about the one folder a demo writes to."""

import os
from pathlib import Path

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.demo_folder import DemoSettings, open_demo_folder


def test_children_see_folders_inside_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/the/users/own")
    environment = open_demo_folder(DemoSettings(folder=tmp_path / "demo")).environment()
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "MPLCONFIGDIR"):
        assert Path(environment[name]).is_relative_to(tmp_path / "demo")
    assert os.environ["nnUNet_raw"] == "/the/users/own"


def test_finished_stages_are_remembered(tmp_path: Path) -> None:
    settings = DemoSettings(folder=tmp_path / "demo")
    open_demo_folder(settings).finish("data", 3.04)
    assert open_demo_folder(settings).finished == {"data": 3.0}


def test_overwriting_begins_anew(tmp_path: Path) -> None:
    settings = DemoSettings(folder=tmp_path / "demo")
    open_demo_folder(settings).finish("data", 3)
    (tmp_path / "demo" / "predictions" / "leftover").touch()
    assert open_demo_folder(settings, overwrite=True).finished == {}
    assert not (tmp_path / "demo" / "predictions" / "leftover").exists()


def test_demo_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    open_demo_folder(DemoSettings(folder=tmp_path / "demo"))
    with pytest.raises(UsageError, match=r"minutes = 30.* minutes = 10.*--overwrite"):
        open_demo_folder(DemoSettings(folder=tmp_path / "demo", minutes=30))


@pytest.mark.parametrize("overwrite", [False, True])
def test_folder_with_other_things_is_never_touched(tmp_path: Path, *, overwrite: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds other things"):
        open_demo_folder(DemoSettings(folder=tmp_path), overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

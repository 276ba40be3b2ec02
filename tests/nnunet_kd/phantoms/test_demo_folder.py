"""Claims about the one folder a demo writes to."""

import json
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
    open_demo_folder(settings).finish("measure", 3.04)
    assert open_demo_folder(settings).finished == {"measure": 3.0}


def test_overwriting_begins_anew(tmp_path: Path) -> None:
    settings = DemoSettings(folder=tmp_path / "demo")
    open_demo_folder(settings).finish("data", 3)
    (tmp_path / "demo" / "predictions" / "leftover").touch()
    (tmp_path / "demo" / "thesis.txt").touch()
    assert open_demo_folder(settings, overwrite=True).finished == {}
    assert not (tmp_path / "demo" / "predictions" / "leftover").exists()
    assert (tmp_path / "demo" / "thesis.txt").exists()


RECORD = {"data": None, "minutes": 10.0}


@pytest.mark.parametrize(
    "record",
    ["", "[]", "{}", json.dumps(RECORD | {"finished": []}), json.dumps(RECORD | {"finished": {"data": "long"}})],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_somebody_elses_record_gives_leave_for_nothing(tmp_path: Path, record: str, *, overwrite: bool) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "demo.json").write_text(record)
    with pytest.raises(UsageError, match=r"demo\.json"):
        open_demo_folder(DemoSettings(folder=tmp_path), overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "logs"]


def test_record_of_data_that_are_gone_is_not_believed(tmp_path: Path) -> None:
    open_demo_folder(DemoSettings(folder=tmp_path)).finish("data", 3)
    with pytest.raises(UsageError, match="found none; type --overwrite"):
        open_demo_folder(DemoSettings(folder=tmp_path))
    assert open_demo_folder(DemoSettings(folder=tmp_path), overwrite=True).finished == {}


@pytest.mark.parametrize("inside", [".", "Task04_Toy"])
def test_data_inside_the_demos_folder_are_refused(tmp_path: Path, inside: str) -> None:
    open_demo_folder(DemoSettings(folder=tmp_path))
    with pytest.raises(UsageError, match="--data outside"):
        open_demo_folder(DemoSettings(folder=tmp_path, data=tmp_path / inside), overwrite=True)
    assert (tmp_path / "demo.json").is_file()


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

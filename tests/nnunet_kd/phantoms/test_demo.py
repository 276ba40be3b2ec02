"""Claims about the demo."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

import pytest

from nnunet_kd import cli
from nnunet_kd.phantoms import demo, demo_data, schedule
from nnunet_kd.phantoms.children import run_child
from nnunet_kd.phantoms.demo_folder import DemoFolder, DemoSettings, open_demo_folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoFolder:
    """A demo whose data exist and whose schedule is known."""
    monkeypatch.setattr(demo_data, "N_TRAIN", 5)
    monkeypatch.setattr(demo_data, "N_TEST", 1)
    made = open_demo_folder(DemoSettings(folder=tmp_path / "demo"))
    demo_data.write_phantoms(made.raw)
    made.state["n_steps"] = {"teacher": 300, "students": 200}
    return made


def _options(command: list[str]) -> argparse.Namespace:
    """Parse a command as the verb that it calls would."""
    verb = command[3]
    parser = argparse.ArgumentParser()
    import_module(cli.VERBS[verb][0]).add_arguments(parser)
    return parser.parse_args(command[4:])


def test_students_differ_in_nothing_but_the_teacher(folder: DemoFolder) -> None:
    alone, distilled = (vars(_options(demo.plan_command(folder, arm))) for arm in ("student", "distilled"))
    different = {key for key in alone if alone[key] != distilled[key]}
    assert different == {"p", "method"}
    assert (alone["shrink"], alone["method"], distilled["method"]) == (8, "none", None)


def test_arms_make_the_steps_of_the_schedule(folder: DemoFolder) -> None:
    for arm, n_steps in (("teacher", 300), ("student", 200), ("distilled", 200)):
        options = _options(demo.plan_command(folder, arm))
        assert options.epochs * options.iterations == n_steps


def test_report_compares_all_arms(folder: DemoFolder) -> None:
    options = _options(demo.compare_command(folder))
    assert [arm.partition("=")[0] for arm in options.arm] == list(demo.ARMS)


def test_phantoms_of_the_demo_have_labels_to_score_by(folder: DemoFolder) -> None:
    assert (folder.data.n_train, folder.data.n_test) == (5, 1)
    assert (folder.data.folder / "splits_final.json").is_file()


def _stage(key: str, code: str, folder: DemoFolder) -> demo.Stage:
    command = [sys.executable, "-c", code]
    log = folder.logs / f"{key}.log"
    return demo.Stage(key=key, title=key, run=lambda bar: run_child(command, log=log, environment=os.environ, bar=bar))


def test_same_command_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = tmp_path / "count"
    code = f"open({str(count)!r}, 'a').write('x')"
    fails = [True]

    def stages(folder: DemoFolder, *_: object) -> list[demo.Stage]:
        second = "print('no space left'); raise SystemExit(1)" if fails else code
        return [_stage("first", code, folder), _stage("second", second, folder)]

    monkeypatch.setattr(demo, "demo_stages", stages)
    monkeypatch.setattr("nnunet_kd.phantoms.conclusion.conclusion", lambda _: "done")
    words = ["demo", "-o", str(tmp_path / "demo")]
    assert cli.main(words) == 1
    shown = capsys.readouterr().err
    assert "no space left" in shown
    assert str(tmp_path / "demo" / "logs" / "second.log") in shown
    fails.clear()
    assert cli.main(words) == 0
    assert count.read_text() == "xx"  # the first stage once, the second once


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--minutes", "0"], "--minutes"), (["--minutes", "nan"], "--minutes"), (["--data", "nowhere"], "dataset.json")],
    ids=str,
)
def test_bad_options_are_named_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert cli.main(["demo", "-o", str(tmp_path / "demo"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_demo_runs_from_nothing_to_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All commands for real, with a few cases and steps; nothing is written outside of its folder."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    monkeypatch.setattr(demo_data, "N_TRAIN", 8)
    monkeypatch.setattr(demo_data, "N_TEST", 3)
    monkeypatch.setattr(schedule, "_MIN_STEPS", schedule.N_EPOCHS)
    words = ["demo", "-o", str(tmp_path / "demo"), "--minutes", "0.01"]
    assert cli.main(words) == 0
    assert (tmp_path / "demo" / "report" / "comparison.png").stat().st_size > 0
    assert "short schedule on a CPU: 10 training steps" in capsys.readouterr().out
    assert list(home.iterdir()) == []
    trained = (tmp_path / "demo" / "logs" / "train_teacher.log").stat().st_mtime_ns
    assert cli.main(words) == 0  # nothing is done again
    assert (tmp_path / "demo" / "logs" / "train_teacher.log").stat().st_mtime_ns == trained

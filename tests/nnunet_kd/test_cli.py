"""The program: every verb explains itself, and a mistake costs one line and status 2."""

import argparse
import errno
import io
import os
import subprocess
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest

from nnunet_kd import __version__, cli
from nnunet_kd.errors import UsageError


def _help(verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([verb, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", cli.VERBS)
def test_a_verbs_help_has_an_example_of_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    example = _help(verb, capsys).partition("example:\n")[2].strip()
    assert example.startswith(f"nnunet_kd {verb}")


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_option_of_a_verb_is_explained(verb: str) -> None:
    parser = argparse.ArgumentParser()
    import_module(cli.VERBS[verb][0]).add_arguments(parser)
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    parsers = [parser, *(sub for action in nested for sub in action.choices.values())]
    unexplained = [a.dest for p in parsers for a in p._actions if not a.help and a not in nested]
    assert not unexplained


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_the_overview_lists_every_verb(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 0
    overview = capsys.readouterr().out
    for verb, (_, text) in cli.VERBS.items():
        assert verb in overview
        assert text in overview


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_an_unknown_verb_ends_with_status_2_and_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["distil"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "'distil'" in line
    assert all(verb in line for verb in cli.VERBS)


def test_a_mistake_of_the_user_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise UsageError("expected a number,\n  got 'x'; type: -d 4")

    verb = SimpleNamespace(EXAMPLE="nnunet_kd toy", add_arguments=lambda _: None, run=fail)
    monkeypatch.setitem(cli.VERBS, "toy", ("toy_verb", "a verb that fails"))
    monkeypatch.setitem(sys.modules, "toy_verb", verb)
    assert cli.main(["toy"]) == 2
    assert capsys.readouterr().err == "nnunet_kd toy: expected a number, got 'x'; type: -d 4\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR])
def test_what_the_system_refuses_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise OSError(number, os.strerror(number), "/full/plans.json")

    monkeypatch.setitem(cli.VERBS, "toy", ("toy_verb", "a verb that fails"))
    verb = SimpleNamespace(EXAMPLE="", add_arguments=lambda _: None, run=fail)
    monkeypatch.setitem(sys.modules, "toy_verb", verb)
    assert cli.main(["toy"]) == 2
    line = capsys.readouterr().err
    assert line.startswith(f"nnunet_kd: /full/plans.json: {os.strerror(number)}; ")
    assert line.count("\n") == 1


def test_a_reader_that_has_gone_ends_the_program_silently() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    result = subprocess.run(
        [sys.executable, "-m", "nnunet_kd"], stdout=writer, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writer)
    assert (result.returncode, result.stderr) == (cli.BROKEN_PIPE, "")


def test_an_encoding_that_lacks_a_letter_does_not_end_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(cli, "_overview", lambda: "ü")
    assert cli.main([]) == 0
    assert terminal.buffer.getvalue() == b"\\xfc\n"


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: argparse.Namespace) -> None:
        raise KeyError("teacher")

    monkeypatch.setitem(cli.VERBS, "toy", ("toy_verb", "a verb that fails"))
    verb = SimpleNamespace(EXAMPLE="", add_arguments=lambda _: None, run=fail)
    monkeypatch.setitem(sys.modules, "toy_verb", verb)
    with pytest.raises(KeyError, match="teacher"):
        cli.main(["toy"])


@pytest.mark.parametrize(("result", "status"), [(None, 0), (0, 0), (1, 1)])
def test_a_verb_decides_the_status(result: int | None, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    verb = SimpleNamespace(EXAMPLE="", add_arguments=lambda _: None, run=lambda _: result)
    monkeypatch.setitem(cli.VERBS, "toy", ("toy_verb", "a verb"))
    monkeypatch.setitem(sys.modules, "toy_verb", verb)
    assert cli.main(["toy"]) == status


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "nnunet_kd", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"{__version__}\n"


def test_a_closed_output_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["--version"]) == 0

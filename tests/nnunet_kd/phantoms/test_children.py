"""Claims about commands that run as children."""

import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import pytest
from tqdm import tqdm

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.children import ChildFailedError, counter, nnunet_command, number, run_child


def _python(code: str) -> list[str]:
    return [sys.executable, "-u", "-c", code]


@pytest.fixture
def bar() -> "tqdm[NoReturn]":
    return tqdm(total=4, file=sys.stderr)


def test_output_and_errors_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    run_child(_python("import sys; print('out'); print('err', file=sys.stderr)"), log=log, environment=os.environ)
    command, *lines = log.read_text().splitlines()
    assert command.startswith("$ ")
    assert sorted(lines) == ["err", "out"]


def test_child_gets_the_given_variables_only(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = "import os; print(os.environ['nnUNet_raw'], os.environ.get('UNWANTED'))"
    run_child(_python(code), log=log, environment={"nnUNet_raw": "inside", "PATH": os.environ["PATH"]})
    assert log.read_text().splitlines()[-1] == "inside None"


def test_bar_follows_the_output_and_ends_full(tmp_path: Path, bar: "tqdm[NoReturn]") -> None:
    seen = []

    def read(line: str) -> int | None:
        seen.append(bar.n)
        return int(line) if line.isdecimal() else None

    code = "import time\nfor i in (1, 2, 9): print(i, end='\\r', flush=True); time.sleep(0.8)\nprint()"
    run_child(_python(code), log=tmp_path / "log", environment=os.environ, bar=bar, read=read)
    assert max(seen) == 2  # 9 of 4 is no progress
    assert bar.n == 4


def test_failure_shows_the_end_of_the_log_and_its_place(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    code = "[print(i) for i in range(40)]; raise SystemExit(3)"
    with pytest.raises(ChildFailedError, match="status 3") as caught:
        run_child(_python(code), log=log, environment=os.environ)
    assert caught.value.log == log
    assert caught.value.last_lines == [str(i) for i in range(25, 40)]


def test_interruption_ends_the_child_and_its_workers(tmp_path: Path) -> None:
    """A worker that outlives the demo would go on writing."""
    alive = tmp_path / "alive"
    worker = f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    code = f"import subprocess, sys; print('started', flush=True); subprocess.run([sys.executable, '-c', {worker!r}])"

    def interrupt(_: str) -> int | None:
        while not alive.exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(_python(code), log=tmp_path / "log", environment=os.environ, bar=tqdm(total=1), read=interrupt)
    alive.unlink(missing_ok=True)
    time.sleep(0.5)
    assert not alive.exists()


def test_numbers_and_lines_are_found_in_output() -> None:
    read = number(r"Epoch (\d+)\s*$")
    assert [read(line) for line in ("2026-11-21: Epoch 7 ", "Epoch time: 3 s", "")] == [7, None, None]
    count = counter("^done with ")
    assert [count(line) for line in ("done with a", "doing b", "done with b")] == [1, None, 2]


def test_command_is_found_beside_the_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another environment's command comes first on the path."""
    for folder in ("bin", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "nnUNetv2_train").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert nnunet_command("nnUNetv2_train") == str(tmp_path / "bin" / "nnUNetv2_train")


def test_missing_command_is_named() -> None:
    with pytest.raises(UsageError, match="nnUNetv2_dance"):
        nnunet_command("nnUNetv2_dance")

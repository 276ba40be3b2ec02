"""Run the commands of a long job as children: output to a log file, progress read from it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from tqdm import tqdm

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    Bar = tqdm[NoReturn]  # one that is advanced by hand

# a line of a child's output -> units of work that are done by now, None when it does not say
Reader = Callable[[str], "int | None"]

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 10  # between asking a child to end and ending it
_SHOWN_LINES = 15


class ChildFailedError(Exception):
    """A command ended with an error.

    Attributes:
        log: Where its whole output is.
        last_lines: The end of it.
    """

    def __init__(self, command: Sequence[str], status: int, log: Path) -> None:
        self.log = log
        self.last_lines = _pieces(log.read_text(encoding="utf-8", errors="replace"))[-_SHOWN_LINES:]
        super().__init__(f"{Path(command[0]).name} ended with status {status}")


def nnunet_command(name: str) -> str:
    """Return the path of one of nnU-Net's commands, of this environment first.

    Raises:
        UsageError: If it is not installed.
    """
    # the environment's own folder, because a virtual environment need not be activated
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=path)
    if found is None:
        raise UsageError(f"expected nnU-Net's command {name} beside {sys.executable}; type pip install nnunetv2")
    return found


def own_command(verb: str) -> list[str]:
    """Return the words that run one of our verbs in this environment."""
    return [sys.executable, "-m", "nnunet_kd", verb]


def counter(pattern: str) -> Reader:
    """Count the lines that match."""
    expression = re.compile(pattern)
    seen = 0

    def read(line: str) -> int | None:
        nonlocal seen
        if not expression.search(line):
            return None
        seen += 1
        return seen

    return read


def number(pattern: str) -> Reader:
    """Take the number that a line shows in the pattern's first group."""
    expression = re.compile(pattern)

    def read(line: str) -> int | None:
        match = expression.search(line)
        return int(match[1]) if match else None

    return read


def run_child(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str],
    bar: "Bar | None" = None,
    read: Reader | None = None,
) -> None:
    """Run a command to its end and keep a progress bar going meanwhile.

    Args:
        command: Words of the command.
        log: File that gets the command, its output and its errors.
        environment: All variables of the child.
        bar: Advanced as the output says, and filled when the command has succeeded; none is kept for short ones.
        read: Finds the progress in a line of output.

    Raises:
        ChildFailedError: If the command fails.
    """
    with log.open("wb") as stream:
        stream.write(f"$ {' '.join(map(str, command))}\n".encode())
        stream.flush()
        process = subprocess.Popen(
            list(command),
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=dict(environment),
            start_new_session=os.name == "posix",  # so that its workers can be ended with it
        )
    try:
        _follow(process, log, bar, read)
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        raise ChildFailedError(command, process.returncode, log)
    if bar is not None:
        bar.update((bar.total or bar.n) - bar.n)


def _follow(process: "subprocess.Popen[bytes]", log: Path, bar: "Bar | None", read: Reader | None) -> None:
    with log.open("rb") as stream:
        rest = ""
        while True:
            ended = process.poll() is not None  # asked before reading, so that the last lines are read too
            rest += stream.read().decode("utf-8", errors="replace")
            *lines, rest = re.split(r"[\r\n]", rest)
            if bar is not None:
                _advance(bar, [read(line) for line in lines] if read else [])
            if ended:
                return
            time.sleep(_POLL_SECONDS)


def _advance(bar: "Bar", reached: Sequence[int | None]) -> None:
    for done in reached:
        if done is not None and bar.n < done <= (bar.total or done):
            bar.update(done - bar.n)
    bar.refresh()  # the clock goes on where nothing else does


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a child and its workers."""
    if process.poll() is not None:
        return
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_PATIENCE_SECONDS)
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def _signal(process: "subprocess.Popen[bytes]", which: signal.Signals) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, which)
    else:
        process.terminate()


def _pieces(text: str) -> list[str]:
    return [line for line in re.split(r"[\r\n]+", text) if line.strip()]

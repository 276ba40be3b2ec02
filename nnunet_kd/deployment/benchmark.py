"""Several models on the same cases in one run, taking turns, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Literal

from nnunet_kd.deployment.benchmark_models import Contender
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.stage_times import Round
from nnunet_kd.errors import UsageError

_WORKER = (sys.executable, "-m", "nnunet_kd.deployment.benchmark_worker")
_PATIENCE = 10.0  # seconds that a process may take to end after its last case


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """How models are run.

    Attributes:
        repeats: Rounds, each with new processes.
        threads: Cores for each process; ``None`` leaves the choice to the libraries.
        step_size: Distance of tiles as a share of the patch; ``None`` takes a bundle's own and nnU-Net's 0.5.
        mirroring: Whether logits are averaged over mirrored images.
        resampling: Of bundles, see :mod:`nnunet_kd.deployment.inference.pipeline`.

    Raises:
        UsageError: If a number is out of range.
    """

    repeats: int = 3
    threads: int | None = None
    step_size: float | None = None
    mirroring: bool = False
    resampling: Literal["exact", "fast"] = "exact"

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise UsageError(f"expected at least 1 round, got {self.repeats}; type: --repeats 3")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"expected at least 1 thread, got {self.threads}; leave --threads out for all cores")
        if self.step_size is not None and not 0 < self.step_size <= 1:
            raise UsageError(f"expected a step size above 0 and at most 1, got {self.step_size}; type: --step_size 0.5")


class Worker:
    """A model's process, from its start until it is closed; a context manager.

    Args:
        name: Of the model, for messages.
        contender: The model.
        settings: How it is run.
        folder: For its log and label maps; must exist.

    Raises:
        UsageError: If it does not start or cannot open the model.
    """

    def __init__(self, name: str, contender: Contender, settings: BenchmarkSettings, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._log = (folder / "log.txt").open("w+", encoding="utf-8", errors="replace")
        start = perf_counter()
        self._process = subprocess.Popen(
            _WORKER,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=_environment(settings.threads),
        )
        try:
            self._send({**asdict(contender), **asdict(settings), "path": str(contender.path)})
            self._receive()
            imported = perf_counter()
            self.megabytes_before = float(self._receive()["megabytes"])
            self.start_up = {"libraries": imported - start, "model": perf_counter() - imported}
        except BaseException:
            self.close()
            raise
        self.peak_megabytes = self.megabytes_before

    def run(self, case: CaseFiles) -> dict[str, float]:
        """Segment a case and return its seconds by stage.

        Raises:
            UsageError: If it cannot be segmented; names case and model.
        """
        self._send({"files": [str(file.resolve()) for file in case.files], "output": str(self.folder / case.name)})
        answer = self._receive(f"{case.name}, ")
        self.peak_megabytes = max(self.peak_megabytes, float(answer["megabytes"]))
        seconds: dict[str, float] = answer["seconds"]
        return seconds

    def close(self) -> None:
        """End the process and wait for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):  # it has gone already
                if pipe is not None:
                    pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, content: Mapping[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the reason is read next
            print(json.dumps(content), file=self._process.stdin, flush=True)

    def _receive(self, what: str = "") -> dict[str, Any]:
        line = "" if self._process.stdout is None else self._process.stdout.readline()
        if not line:
            raise UsageError(f"{what}model '{self.name}': its process ended, {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UsageError(f"{what}model '{self.name}': {answer['error']}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        if status < 0:
            return f"killed by signal {-status}; it may have run out of memory"
        self._log.seek(0)
        return ([line for line in self._log.read().splitlines() if line.strip()] or [f"exit status {status}"])[-1]


def take_turns(names: Sequence[str], n_cases: int, *, backwards: bool = False) -> Iterator[tuple[str, int]]:
    """Yield who takes which case: every model the first case, every model the second, and so on.

    A slow minute of the machine then falls on all of them, and ``backwards`` in every second round gives each the place
    after each other equally often.

    Example:
        >>> list(take_turns(["a", "b"], 2))
        [('a', 0), ('b', 0), ('a', 1), ('b', 1)]
    """
    order = list(reversed(names)) if backwards else list(names)
    for case in range(n_cases):
        for name in order:
            yield name, case


def measure(
    contenders: Mapping[str, Contender], cases: Sequence[CaseFiles], settings: BenchmarkSettings, folder: Path
) -> dict[str, list[Round]]:
    """Run every model over every case, in turns, ``settings.repeats`` times.

    In each round every model gets a new process, which stays until the round ends and takes the first case once cold.

    Args:
        contenders: By name.
        cases: That each model segments.
        settings: How models are run.
        folder: For label maps and logs; must exist.

    Returns:
        By model, one per round.

    Raises:
        UsageError: If a model cannot be opened or a case not segmented.
    """
    from tqdm import tqdm

    rounds: dict[str, list[Round]] = {name: [] for name in contenders}
    n_steps = settings.repeats * len(contenders) * (len(cases) + 1)
    with tqdm(total=n_steps, desc="benchmark", unit="case") as bar:
        for number in range(settings.repeats):
            place, backwards = folder / f"round_{number}", number % 2 == 1
            for name, taken in _one_round(contenders, cases, settings, place, backwards=backwards, bar=bar).items():
                rounds[name].append(taken)
    return rounds


def _one_round(
    contenders: Mapping[str, Contender],
    cases: Sequence[CaseFiles],
    settings: BenchmarkSettings,
    folder: Path,
    *,
    backwards: bool,
    bar: Any,  # noqa: ANN401  # tqdm has no types here
) -> dict[str, Round]:
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    cold: dict[str, dict[str, float]] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, _ in take_turns(list(contenders), 1, backwards=backwards):
            place = folder / f"model_{list(contenders).index(name)}"  # names may hold what folders' may not
            place.mkdir(parents=True)
            workers[name] = stack.enter_context(Worker(name, contenders[name], settings, place))
            cold[name] = workers[name].run(cases[0])
            bar.update()
        for name, index in take_turns(list(contenders), len(cases), backwards=backwards):
            seconds[name].append(workers[name].run(cases[index]))
            bar.update()
        return {
            name: Round(
                start_up=workers[name].start_up,
                cold=cold[name],
                cases=seconds[name],
                peak_megabytes=workers[name].peak_megabytes,
                megabytes_before=workers[name].megabytes_before,
            )
            for name in contenders
        }


def _environment(threads: int | None) -> dict[str, str]:
    """Return the variables of a process; libraries read most thread counts from there, once."""
    if threads is None:
        return dict(os.environ)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}

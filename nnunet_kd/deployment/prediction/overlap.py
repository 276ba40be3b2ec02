"""Three stages at once: while the network has one case, the next is read and the last is written."""

import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

from nnunet_kd.cases import Fault
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.errors import UsageError

Seconds = dict[str, float]


class Stages(Protocol):
    """What is done with a case. Each stage notes its seconds; only ``compute`` stays in the calling thread."""

    def prepare(self, case: CaseFiles, seconds: Seconds) -> Any:  # noqa: ANN401  # each has its own kind
        """Read a case and bring it to what the network takes."""

    def compute(self, prepared: Any, seconds: Seconds) -> Any:  # noqa: ANN401
        """Run the network."""

    def finish(self, case: CaseFiles, computed: Any, seconds: Seconds) -> None:  # noqa: ANN401
        """Write the results."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes:
        case: The case.
        seconds: Of each part of the work.
        fault: What went wrong; ``None`` for a case whose results are written.
    """

    case: CaseFiles
    seconds: Mapping[str, float]
    fault: Fault | None = None


@dataclass
class _Work:
    """A case on its way; ``value`` is what the last stage made of it."""

    case: CaseFiles
    value: Any = None
    fault: Fault | None = None
    seconds: Seconds = field(default_factory=dict)

    def advance(self, stage: Callable[[], Any]) -> "_Work":
        """Run a stage unless one before has failed; whatever goes wrong costs this case only."""
        if self.fault is None:
            try:
                self.value = stage()
            except UsageError as error:
                self.fault = Fault(self.case.name, " ".join(str(error).split()))
            except Exception as error:  # noqa: BLE001  # whatever libraries raise
                message = f"{type(error).__name__}: {' '.join(str(error).split())}"
                self.fault = Fault(self.case.name, message[:300], traceback.format_exc())
        if self.fault is not None:
            self.value = None
        return self


@contextmanager
def noted(seconds: Seconds, stage: str) -> Iterator[None]:
    """Add the wall time of a block to a stage."""
    start = perf_counter()
    try:
        yield
    finally:
        seconds[stage] = seconds.get(stage, 0.0) + perf_counter() - start


def run_overlapped(
    cases: Sequence[CaseFiles], stages: Stages, *, started: Callable[[], None], n_workers: int = 1
) -> Generator[Outcome, None, None]:
    """Take every case through the stages and yield what became of it, in order.

    At most ``1 + 2 * n_workers`` cases are held at a time. When the caller stops, by an interrupt too, results that
    are being written are finished and all else is dropped.

    Args:
        cases: In the order of work.
        stages: What is done.
        started: Called once while the first case is read, to load the network; what it raises ends the run.
        n_workers: Threads that read, and as many that write.
    """
    todo = deque(cases)
    reading: deque[Future[_Work]] = deque()
    writing: deque[Future[_Work]] = deque()
    readers, writers = ThreadPoolExecutor(n_workers, "read"), ThreadPoolExecutor(n_workers, "write")

    def read_next() -> None:
        while todo and len(reading) < n_workers:
            reading.append(readers.submit(_prepare, stages, todo.popleft()))

    try:
        read_next()
        started()
        while reading:
            work = reading.popleft().result()
            read_next()
            work = _compute(stages, work)
            if len(writing) == n_workers:
                yield _outcome(writing.popleft().result())
            writing.append(writers.submit(_finish, stages, work))
            del work  # else this name keeps the case while the next one is computed
        while writing:
            yield _outcome(writing.popleft().result())
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        writers.shutdown()
        readers.shutdown()


def _prepare(stages: Stages, case: CaseFiles) -> _Work:
    work = _Work(case, fault=Fault(case.name, case.fault) if case.fault else None)
    return work.advance(lambda: stages.prepare(case, work.seconds))


def _compute(stages: Stages, work: _Work) -> _Work:
    prepared, work.value = work.value, None
    return work.advance(lambda: stages.compute(prepared, work.seconds))


def _finish(stages: Stages, work: _Work) -> _Work:
    computed, work.value = work.value, None
    return work.advance(lambda: stages.finish(work.case, computed, work.seconds))


def _outcome(work: _Work) -> Outcome:
    return Outcome(case=work.case, seconds=work.seconds, fault=work.fault)

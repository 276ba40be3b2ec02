"""The one way to do something for every case, here or on a cluster."""

import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tqdm import tqdm

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from distributed import Client, Future

C = TypeVar("C")
R = TypeVar("R")

logger = logging.getLogger(__name__)

_CLUSTER_START_SECONDS = 2.0  # measured on two cores: interpreters, imports and hand-shake
_DEATHS_PER_CASE = 3  # a case that takes this many workers with it is given up
_CONNECT_SECONDS = 10


@dataclass(frozen=True)
class Fault:
    """What went wrong with one case.

    Attributes:
        case: Name of the case.
        message: One line.
        trace: The traceback, empty for what the user can put right.
    """

    case: str
    message: str
    trace: str = ""


class FaultyCasesError(UsageError):
    """Some cases failed; the others were finished.

    Attributes:
        faults: One per failed case, in the order of the cases.
    """

    def __init__(self, faults: Sequence[Fault], n_cases: int) -> None:
        self.faults = tuple(faults)
        lines = [f"{fault.case}: {fault.message}" for fault in faults]
        super().__init__("\n".join([f"{len(faults)} of {n_cases} cases failed:", *lines]))


@dataclass(frozen=True)
class _Outcome(Generic[R]):
    """A result or a fault; an exception itself may not survive the way between processes."""

    value: R | None = None
    message: str | None = None
    trace: str = ""


def _guarded(function: Callable[[C], R], case: C) -> _Outcome[R]:
    try:
        return _Outcome(value=function(case))
    except UsageError as error:
        return _Outcome(message=" ".join(str(error).split()))
    except Exception as error:  # noqa: BLE001  # one case's trouble must not cost the others their results
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _Outcome(message=message, trace=traceback.format_exc())


def map_cases(
    function: Callable[[C], R],
    cases: Iterable[C],
    *,
    description: str,
    name: Callable[[C], str] = str,
    scheduler: str | None = None,
    n_workers: int | None = None,
    seconds_per_case: float = 10.0,
) -> list[R]:
    """Apply a function to every case, in parallel, and return the results in order.

    By default a local cluster of one process per core does the work and ends with it; work that
    takes less time than the cluster needs to start runs in this process. A worker that dies costs
    its case another try. An exception costs only its own case: the others are finished first.

    Args:
        function: What to do. It travels to other processes, so it, its argument and its result
            must be picklable, and files must be named by paths that are valid there.
        cases: What to do it to.
        description: Shown beside the progress bar.
        name: Gives a case's name for messages.
        scheduler: Address of a running dask scheduler, ``tcp://HOST:PORT``.
        n_workers: Number of local processes, ``0`` for this process; never more than cases or cores.
        seconds_per_case: Rough time one case takes, to judge whether a cluster pays.

    Returns:
        One result per case.

    Raises:
        FaultyCasesError: When all cases were tried and some failed.
        UsageError: When no scheduler answers at the given address.

    Example:
        >>> map_cases(abs, [-1, 2], description="Example", n_workers=0)
        [1, 2]
    """
    todo = list(cases)
    if n_workers is None and scheduler is None:
        n_workers = paying_workers(len(todo), seconds_per_case, _n_cores())
    if n_workers is not None and scheduler is None:
        n_workers = _bounded(n_workers, len(todo))
    outcomes: dict[int, _Outcome[R]] = {}
    pairs: Iterator[tuple[int, _Outcome[R]]]
    if scheduler is None and not n_workers:
        pairs = ((index, _guarded(function, case)) for index, case in enumerate(todo))
    else:
        pairs = _distributed(function, todo, scheduler, n_workers)
    for index, outcome in tqdm(pairs, total=len(todo), desc=description, unit="case"):
        outcomes[index] = outcome
    return _collect(outcomes, [name(case) for case in todo])


def _n_cores() -> int:
    from dask.system import CPU_COUNT  # knows of affinity and of container limits

    return max(1, int(CPU_COUNT))


def _bounded(n_workers: int, n_cases: int) -> int:
    """Return a number of processes that have work and a core: each takes memory, whether it has them or not."""
    useful = min(n_workers, n_cases)
    if useful > _n_cores():
        _say_once(f"{_n_cores()} processes instead of {n_workers}, one per core that may be used")
        return _n_cores()
    return useful


@cache
def _say_once(line: str) -> None:
    logger.warning(line)


def paying_workers(n_cases: int, seconds_per_case: float, at_most: int) -> int:
    """Return how many processes are worth their start: 0 where they take longer to start than they save.

    Args:
        n_cases: How many cases there are.
        seconds_per_case: Rough time one case takes.
        at_most: How many processes may be started.

    Example:
        >>> paying_workers(10, 1.0, at_most=4), paying_workers(10, 0.1, at_most=4)
        (4, 0)
    """
    workers = max(1, min(at_most, n_cases))
    saved = n_cases * seconds_per_case * (1 - 1 / workers)
    return workers if saved > _CLUSTER_START_SECONDS else 0


def _collect(outcomes: dict[int, _Outcome[R]], names: list[str]) -> list[R]:
    faults = []
    for index, case in enumerate(names):
        outcome = outcomes[index]
        if outcome.message is not None:
            faults.append(Fault(case, outcome.message, outcome.trace))
        if outcome.trace:
            logger.error("%s failed\n%s", case, outcome.trace)
    if faults:
        raise FaultyCasesError(faults, len(names))
    return [outcomes[index].value for index in range(len(names))]  # type: ignore[misc]  # None is a result like any


def _distributed(
    function: Callable[[C], R], cases: list[C], scheduler: str | None, n_workers: int | None
) -> Iterator[tuple[int, _Outcome[R]]]:
    from distributed import as_completed

    with _client(scheduler, n_workers) as client:
        # not pure: the same case may be worked on twice, in two runs, with other files on disk
        futures = [client.submit(_guarded, function, case, pure=False) for case in cases]
        index_of = {future.key: index for index, future in enumerate(futures)}
        for future in as_completed(futures):  # type: ignore[no-untyped-call]
            yield index_of[future.key], _outcome(future)
            future.release()


def _outcome(future: "Future[Any]") -> _Outcome[Any]:
    error = future.exception()  # type: ignore[no-untyped-call]
    if error is None:
        outcome: _Outcome[Any] = future.result()
        return outcome
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return _Outcome(message="its worker process died at every try, perhaps for lack of memory")
    return _Outcome(message=f"{type(error).__name__}: {' '.join(str(error).split())}", trace=str(error))


@contextmanager
def _client(scheduler: str | None, n_workers: int | None) -> Iterator["Client"]:
    import dask
    from distributed import Client, LocalCluster

    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except (OSError, ValueError) as error:
            raise UsageError(
                f"expected a running dask scheduler at {scheduler} ({error}); "
                "start one with 'dask scheduler' or leave --scheduler out"
            ) from error
        with client:
            yield client
        return
    # one case at a time per worker, so that a death is never blamed on a case that only waited there
    settings = {
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.scheduler.allowed-failures": _DEATHS_PER_CASE - 1,
    }
    with (
        dask.config.set(settings),
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,  # an equal share each would kill the one large case that fits well
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,  # type: ignore[no-untyped-call]
    ):
        yield client

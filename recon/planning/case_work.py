"""Work over the files of a data set, in parallel where that pays, with one line for what went wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from nnunet_kd.cases import FaultyCasesError, map_cases
from nnunet_kd.errors import UsageError

C = TypeVar("C")
R = TypeVar("R")
BYTES_PER_SECOND = 50e6  # a rough rate of reading and transforming; only decides whether a cluster pays


def map_files(
    function: Callable[[C], R],
    items: Sequence[C],
    description: str,
    *,
    path_of: Callable[[C], Path],
    scheduler: str | None = None,
    n_workers: int | None = None,
) -> list[R]:
    """Do something for every case, as :func:`nnunet_kd.cases.map_cases` does.

    Args:
        function: What to do; must be picklable.
        items: What to do it to.
        description: Shown beside the progress bar.
        path_of: Gives the file of one.
        scheduler: Address of a running dask scheduler.
        n_workers: Local processes, 0 for this one.

    Raises:
        UsageError: One line on the first faulty case and how many others there are, when all were tried.
    """
    try:
        return map_cases(
            function,
            items,
            description=description,
            name=lambda item: path_of(item).stem,
            scheduler=scheduler,
            n_workers=n_workers,
            seconds_per_case=sum(path_of(item).stat().st_size for item in items) / len(items) / BYTES_PER_SECOND,
        )
    except FaultyCasesError as error:
        first, n_others = error.faults[0].message, len(error.faults) - 1
        others = f", {n_others} other cases are faulty too" if n_others else ""
        raise UsageError(f"{first}; nothing was written{others}") from error

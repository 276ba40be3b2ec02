"""Named sets of scores: what a comparison computes for each prediction, and how its report speaks of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.cases import map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.hardware import n_cores

# name of a set: module and name in it
SCORE_SETS = {
    "nnunet": "nnunet_kd.evaluation.scores:SCORES",
    "hlfd": "nnunet_kd.evaluation.hlfd_scores:SCORES",
    "brats2023": "nnunet_kd.evaluation.brats2023_scores:SCORES",
    "brats2023-men": "nnunet_kd.evaluation.brats2023_scores:MEN",
    "brats2023-met": "nnunet_kd.evaluation.brats2023_scores:MET",
    "kits23": "nnunet_kd.evaluation.kits23_scores:SCORES",
    "lits17": "nnunet_kd.evaluation.lits17_scores:SCORES",
    "msd": "nnunet_kd.evaluation.msd_scores:SCORES",
    "acdc": "nnunet_kd.evaluation.acdc_scores:SCORES",
}

_START_UP = 20.0  # seconds in which new processes load torch and MONAI

Key = TypeVar("Key", bound=Hashable)


class ScoreFiles(Protocol):
    """How a set of scores is computed; must be picklable."""

    def __call__(self, files: tuple[Path, Path], scheme: LabelScheme) -> NDArray[np.float64]:
        """Return ``(structure, metric)`` for the files of reference and prediction of one case."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A score and how to speak of it.

    Attributes:
        name: In files.
        title: In tables and plots.
        unit: Empty for shares.
        higher_is_better: Direction of the good; ``None`` where the nearest to 0 is best.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool | None = True


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """Scores of all cases taken together, which are no mean over cases.

    Attributes:
        metrics: In order.
        n_counts: So many columns follow a case's metrics in what ``score_files`` returns.
        combine: From these, ``(case, structure, count)``, to ``(structure, metric)``, ``nan`` where
            there is no score.
    """

    metrics: tuple[Metric, ...]
    n_counts: int
    combine: Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class ScoreSet:
    """Scores that belong together.

    Attributes:
        name: What ``--scores`` calls it.
        metrics: In order, the headline first.
        score_files: From the files of reference and prediction of a case to ``(structure, metric)``, in the
            order of the scheme and of ``metrics``, ``nan`` where there is no score.
        notes: How the scores are made, a line each.
        check_files: Raises ``UsageError`` where predictions lack what the scores need, given the name
            of their source, the file of each case and the scheme. Such scores are not in a summary.json either.
        has_tolerance: Whether one of them depends on the structures' tolerances, which the user may set.
        caution: What must be read beside every number; empty for most.
        fit: From the scheme of the data set and where it comes from to what is scored in its place; raises
            ``UsageError`` where that is not to be found. ``None`` scores the data set's own structures.
        pooled: Scores of all cases taken together, if there are any.
    """

    name: str
    metrics: tuple[Metric, ...]
    score_files: ScoreFiles
    notes: Callable[[LabelScheme], list[str]]
    check_files: Callable[[str, Mapping[str, Path], LabelScheme], None] | None = None
    has_tolerance: bool = False
    caution: str = ""
    fit: Callable[[LabelScheme, str], LabelScheme] | None = None
    pooled: Pooled | None = None


def score_set(name: str = "nnunet") -> ScoreSet:
    """Return a set by name.

    Raises:
        UsageError: If there is none.
    """
    if name not in SCORE_SETS:
        raise UsageError(f"expected one of {', '.join(SCORE_SETS)} for --scores, got '{name}'")
    module, _, attribute = SCORE_SETS[name].partition(":")
    found: ScoreSet = getattr(import_module(module), attribute)
    return found


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The scores of one folder of predictions.

    Attributes:
        cases: In order.
        structures: Names, in order.
        metrics: Names of those that were computed, in order.
        values: ``(case, structure, metric)``, ``nan`` where there is no score.
        pooled: ``(structure, pooled metric)`` over all cases, if the set has such.
    """

    cases: tuple[str, ...]
    structures: tuple[str, ...]
    metrics: tuple[str, ...]
    values: NDArray[np.float64]
    pooled: NDArray[np.float64] | None = None


def _map(
    function: Callable[[tuple[Path, Path]], NDArray[np.float64]],
    tasks: Sequence[tuple[Path, Path]],
    n_processes: int | None,
) -> list[NDArray[np.float64]]:
    """Do two cases here, to load the libraries and to take the time; then the rest where it is quicker."""
    results, seconds = [], 0.0
    for task in tasks[:2]:
        begin = perf_counter()
        results.append(function(task))
        seconds = perf_counter() - begin
    rest = tasks[2:]
    if not rest:
        return results
    n_workers = min(n_processes or n_cores(), len(rest))
    pays = n_workers > 1 and seconds * len(rest) > _START_UP
    return results + map_cases(
        function, rest, description="scoring", name=lambda task: str(task[1]), n_workers=n_workers if pays else 0
    )


def score_runs(
    reference: Mapping[str, Path],
    runs: Mapping[Key, Mapping[str, Path]],
    *,
    scheme: LabelScheme,
    scores: ScoreSet | None = None,
    n_processes: int | None = None,
) -> dict[Key, RunScores]:
    """Score folders of predictions against one reference.

    Args:
        reference: File of each case.
        runs: For each run the file of each case; grids must have been checked.
        scheme: What is scored.
        scores: How; ``None`` for Dice, HD95 and surface Dice.
        n_processes: At most so many work at once, ``None`` for one per core; they are started only
            where that is quicker.

    Returns:
        Scores under the keys of ``runs``, in the order of the reference's cases.

    Raises:
        UsageError: If files cannot be read as labels; names all of them.
    """
    tasks = [(file, cases[case]) for cases in runs.values() for case, file in reference.items()]
    scores = scores or score_set()
    results = iter(_map(partial(scores.score_files, scheme=scheme), tasks, n_processes))
    names = tuple(structure.name for structure in scheme.structures)
    metrics = tuple(metric.name for metric in scores.metrics)
    found = {key: np.stack([next(results) for _ in reference]) for key in runs}
    return {
        key: RunScores(
            cases=tuple(reference),
            structures=names,
            metrics=metrics,
            values=values[:, :, : len(metrics)],
            pooled=scores.pooled.combine(values[:, :, len(metrics) :]) if scores.pooled else None,
        )
        for key, values in found.items()
    }

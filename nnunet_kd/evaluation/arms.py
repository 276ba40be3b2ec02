"""The arms of a comparison: folders of predictions or nnU-Net's summaries, checked and scored."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import check_same_cases, check_same_grid, find_cases, read_segmentation, some
from nnunet_kd.evaluation.labels import LabelScheme, scheme_from_dataset, scheme_from_values
from nnunet_kd.evaluation.score_sets import RunScores, ScoreSet, score_runs
from nnunet_kd.evaluation.statistics import average_runs
from nnunet_kd.evaluation.summaries import FILE, Summary, read_summary, scheme_from_summary, summary_scores
from nnunet_kd.planning.model_folder import read_json

FOREGROUND = "mean over structures"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One folder of predictions of an arm, or one summary of them.

    Attributes:
        arm: Name of the arm.
        source: Folder or file, as given.
        files: The predictions; none where there is a summary only.
        summary: nnU-Net's scores; none where there are predictions.
    """

    arm: str
    source: Path
    files: Mapping[str, Path] | None = None
    summary: Summary | None = None

    @property
    def cases(self) -> list[str]:
        """Names of the cases it holds."""
        return list(self.files if self.files is not None else self.summary.dice if self.summary else ())


@dataclass(frozen=True, kw_only=True)
class Cases:
    """What all arms are compared on.

    Attributes:
        names: In order.
        reference: The truth; none if every run is a summary and no folder was given.
        scheme: Structures.
        scheme_source: Where their names are from, for the report.
    """

    names: tuple[str, ...]
    reference: Mapping[str, Path] | None
    scheme: LabelScheme
    scheme_source: str


@dataclass(frozen=True, kw_only=True)
class ArmScores:
    """The scores of all runs of an arm.

    Attributes:
        name: The arm's.
        sources: Folder or file of each run.
        runs: In the same order.
    """

    name: str
    sources: tuple[str, ...]
    runs: tuple[RunScores, ...]

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that every run has."""
        return tuple(name for name in self.runs[0].metrics if all(name in run.metrics for run in self.runs))

    def by_run(self, structure: str, metric: str) -> NDArray[np.float64]:
        """Return ``(run, case)``; :data:`FOREGROUND` is the mean over the structures that a case has."""
        columns = [run.values[:, :, run.metrics.index(metric)] for run in self.runs]
        if structure == FOREGROUND:
            return np.stack([average_runs(column.T) for column in columns])
        return np.stack([column[:, self.runs[0].structures.index(structure)] for column in columns])

    def per_case(self, structure: str, metric: str) -> NDArray[np.float64]:
        """Return the mean over runs of each case."""
        return average_runs(self.by_run(structure, metric))


def open_run(arm: str, source: Path) -> Run:
    """Open a folder of predictions, a ``summary.json`` or a folder that holds only that.

    Raises:
        UsageError: If it is neither.
    """
    if source.is_file():
        return Run(arm=arm, source=source, summary=read_summary(source))
    if (source / FILE).is_file():
        try:
            return Run(arm=arm, source=source, files=find_cases(source))
        except UsageError:
            return Run(arm=arm, source=source, summary=read_summary(source / FILE))
    return Run(arm=arm, source=source, files=find_cases(source))


def _scheme_beside(reference: Path) -> tuple[LabelScheme, str] | None:
    """Read dataset.json where nnU-Net puts it; one in another form (the Decathlon's) is passed over."""
    for file in (reference / "dataset.json", reference.parent / "dataset.json"):
        with contextlib.suppress(UsageError):
            return scheme_from_dataset(read_json(file), file), str(file)
    return None


def _scheme(
    dataset_json: Path | None, reference: Path | None, files: Mapping[str, Path] | None, runs: Sequence[Run]
) -> tuple[LabelScheme, str]:
    """Read the structures from dataset.json, given or beside the reference, else from what the files hold."""
    if dataset_json is not None:
        return scheme_from_dataset(read_json(dataset_json), dataset_json), str(dataset_json)
    if reference is None or files is None:
        return next((scheme_from_summary(run.summary), str(run.summary.source)) for run in runs if run.summary)
    beside = _scheme_beside(reference)
    if beside is not None:
        return beside
    scheme = scheme_from_values(int(v) for file in files.values() for v in np.unique(read_segmentation(file)[0]))
    if not scheme.structures:
        raise UsageError(f"expected a structure in '{reference}', every case is empty; give --dataset-json")
    return scheme, "the values in the reference"


def _restrict(files: Mapping[str, Path], wanted: Sequence[str] | None) -> dict[str, Path]:
    return {case: file for case, file in files.items() if wanted is None or case in set(wanted)}


def check_cases(
    runs: Sequence[Run],
    *,
    reference: Path | None,
    dataset_json: Path | None = None,
    wanted: Sequence[str] | None = None,
) -> Cases:
    """Check that all runs hold the same cases on the same grids as the reference.

    Args:
        runs: All runs of all arms.
        reference: Folder of the truth; may be missing where every run is a summary.
        dataset_json: nnU-Net's; ``None`` looks in the reference's folder and the one above.
        wanted: Compare these cases only; every folder must hold them and may hold others.

    Raises:
        UsageError: One line with every fault, by arm and case.
    """
    truth = find_cases(reference) if reference else None
    if truth is None and any(run.files is not None for run in runs):
        raise UsageError("expected the folder of the true segmentations, got none; type --reference FOLDER")
    first = list(truth if truth is not None else runs[0].cases)
    names = tuple(first if wanted is None else wanted)
    sources = {f"arm '{run.arm}' ({run.source})": run for run in runs}
    faults = [f"the reference lacks {some(absent)}"] if (absent := [n for n in names if n not in set(first)]) else []
    listed = {key: [c for c in run.cases if wanted is None or c in set(wanted)] for key, run in sources.items()}
    faults += check_same_cases(names, listed)
    kept = None if truth is None else _restrict(truth, names)
    if kept is not None:
        faults += check_same_grid(
            kept, {key: _restrict(run.files, names) for key, run in sources.items() if run.files is not None}
        )
    if faults:
        raise UsageError(f"expected the same cases and grids everywhere: {'; '.join(faults)}")
    scheme, scheme_source = _scheme(dataset_json, reference, kept, runs)
    return Cases(
        names=names,
        reference=None if kept is None else {name: kept[name] for name in names},
        scheme=scheme,
        scheme_source=scheme_source,
    )


def check_scores(runs: Sequence[Run], cases: Cases, scores: ScoreSet) -> None:
    """Check that all runs hold what a set of scores needs.

    Args:
        runs: As checked by :func:`check_cases`.
        cases: Its result.
        scores: What will be computed.

    Raises:
        UsageError: If a run is a summary or lacks something.
    """
    if scores.check_files is None:
        return
    for run in runs:
        if run.files is None:
            raise UsageError(
                f"expected folders of predictions for --scores {scores.name}, got a summary for arm '{run.arm}' "
                f"({run.source}); give the folder with the predictions"
            )
        scores.check_files(f"arm '{run.arm}' ({run.source})", _restrict(run.files, cases.names), cases.scheme)


def score_arms(
    runs: Sequence[Run], cases: Cases, *, scores: ScoreSet | None = None, n_processes: int | None = None
) -> dict[str, ArmScores]:
    """Score every run; those with a summary have Dice only.

    Args:
        runs: As checked by :func:`check_cases`.
        cases: Its result.
        scores: What is computed; ``None`` for Dice, HD95 and surface Dice.
        n_processes: See :func:`~nnunet_kd.evaluation.score_sets.score_runs`.

    Raises:
        UsageError: If a summary lacks a structure or a file cannot be read.
    """
    found = {
        number: summary_scores(run.summary, cases.names, cases.scheme)
        for number, run in enumerate(runs)
        if run.summary is not None
    }
    folders = {number: run.files for number, run in enumerate(runs) if run.files is not None}
    if cases.reference is not None and folders:
        found |= score_runs(cases.reference, folders, scheme=cases.scheme, scores=scores, n_processes=n_processes)
    arms: dict[str, list[int]] = {}
    for number, run in enumerate(runs):
        arms.setdefault(run.arm, []).append(number)
    return {
        arm: ArmScores(
            name=arm,
            sources=tuple(str(runs[number].source) for number in numbers),
            runs=tuple(found[number] for number in numbers),
        )
        for arm, numbers in arms.items()
    }

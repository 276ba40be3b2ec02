"""A comparison from beginning to end: check, score, analyse, measure, write one report folder."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nnunet_kd import __version__
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.analysis import Row, analyse, structures_of
from nnunet_kd.evaluation.arms import ArmScores, Cases, Run, check_cases, check_scores, open_run, score_arms
from nnunet_kd.evaluation.cases import some
from nnunet_kd.evaluation.labels import with_tolerances
from nnunet_kd.evaluation.score_sets import Metric, ScoreSet, score_set
from nnunet_kd.evaluation.statistics import Resampling
from nnunet_kd.evaluation.timing import Job, Timing, measure, prepare_job
from nnunet_kd.hardware import describe
from nnunet_kd.networks.cost import NetworkCost, read_model_cost
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import open_model_folder

FILES = {"json": "report.json", "csv": "scores.csv", "markdown": "report.md", "plot": "comparison.png"}
PICTURES = ("reconstructions.png",)  # what a report on reconstructions holds besides
COLUMNS = ("arm", "run", "case", "class", "metric", "value")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and how.

    Attributes:
        arms: For each arm its runs (seeds): folders of predictions, or nnU-Net's ``summary.json``.
        output: The report folder to make.
        reference: Folder of the true segmentations; not needed where every run is a summary.
        baseline: Arm that differences are to; ``None`` takes ``student``, or the first arm.
        teacher: Arm at the far end of the gap; ``None`` takes ``teacher`` if there is one.
        models: nnU-Net model folder of an arm, for what it costs.
        images: Folder of images to time the models with.
        scores: Name of the set of scores, see :data:`~nnunet_kd.evaluation.score_sets.SCORE_SETS`.
        tolerance: Of the surface Dice, in mm; ``None`` for that of the structures, 1.0.
        tolerances: The same for single structures, by name.
        dataset_json: nnU-Net's; ``None`` looks beside the reference.
        cases: Compare these only.
        patients: Patient of each case, where a patient has several.
        overwrite: Whether an earlier report may be replaced.
        n_processes: For scoring; ``None`` for one per core.
        resampling: How intervals are made.
        timing: Settings of :func:`~nnunet_kd.evaluation.timing.prepare_job`.
    """

    arms: Mapping[str, Sequence[Path]]
    output: Path
    reference: Path | None = None
    baseline: str | None = None
    teacher: str | None = None
    models: Mapping[str, Path] = field(default_factory=dict)
    images: Path | None = None
    scores: str = "nnunet"
    tolerance: float | None = None
    tolerances: Mapping[str, float] = field(default_factory=dict)
    dataset_json: Path | None = None
    cases: Sequence[str] | None = None
    patients: Mapping[str, Hashable] | None = None
    overwrite: bool = False
    n_processes: int | None = None
    resampling: Resampling = field(default_factory=Resampling)
    timing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a comparison found.

    Attributes:
        baseline: Arm that differences are to.
        teacher: Arm at the far end of the gap, if there is one.
        cases: Names, structures and reference.
        arms: Scores.
        rows: Means, differences and shares.
        costs: Of arms with a model folder.
        timings: Of the same, where images were given.
        n_patients: Where patients were resampled.
        resampling: How intervals were made.
        hardware: Of this machine.
        created: UTC, to the second.
        scores: What was computed.
        pictures: File names of :data:`PICTURES` and what draws each.
    """

    baseline: str
    teacher: str | None
    cases: Cases
    arms: Mapping[str, ArmScores]
    rows: Sequence[Row]
    costs: Mapping[str, NetworkCost]
    timings: Mapping[str, Timing]
    n_patients: int | None
    resampling: Resampling
    hardware: str
    created: str
    scores: ScoreSet = field(default_factory=score_set)
    pictures: Mapping[str, Callable[[Path], object]] = field(default_factory=dict)

    @property
    def headline(self) -> Metric:
        """The score that findings and picture show."""
        return self.scores.metrics[0]

    @property
    def structures(self) -> tuple[str, ...]:
        """What is tabulated, the headline first."""
        return structures_of(self.arms)

    def row(self, arm: str, structure: str, metric: str) -> Row | None:
        """Return one row, ``None`` where the arm lacks the metric."""
        key = (arm, structure, metric)
        return next((row for row in self.rows if (row.arm, row.structure, row.metric) == key), None)


def _chosen_arm(given: str | None, default: str | None, arms: Mapping[str, Any], option: str) -> str | None:
    if given is not None and given not in arms:
        raise UsageError(f"{option} names '{given}'; the arms are {', '.join(arms)}")
    return given if given is not None else default if default in arms else None


def _check_arms(comparison: Comparison) -> list[Run]:
    if not comparison.arms:
        raise UsageError("expected arms to compare, got none; type --arm NAME=FOLDER")
    owner: dict[Path, str] = {}
    for arm, sources in comparison.arms.items():
        if not sources:
            raise UsageError(f"expected a folder of predictions for arm '{arm}', got none; type --arm {arm}=FOLDER")
        for source in sources:
            resolved = source.resolve()
            if resolved in owner:
                first = owner[resolved]
                where = f"arm '{arm}' twice" if first == arm else f"arms '{first}' and '{arm}'"
                raise UsageError(f"expected other predictions for every run, got '{source}' in {where}; leave one out")
            owner[resolved] = arm
    unknown = [arm for arm in comparison.models if arm not in comparison.arms]
    if unknown:
        raise UsageError(f"--model names {some(unknown)}; the arms are {', '.join(comparison.arms)}")
    if comparison.images is not None and not comparison.models:
        raise UsageError("--images times models, got none; type --model ARM=MODEL_FOLDER or leave --images out")
    return [open_run(arm, source) for arm, sources in comparison.arms.items() for source in sources]


def check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to replace anything that is not an earlier report.

    Raises:
        UsageError: If the folder exists and is no report, or may not be replaced.
    """

    def is_ours(folder: Path) -> bool:
        return {entry.name for entry in folder.iterdir()} <= {*FILES.values(), *PICTURES}

    check_replaceable(output, is_ours=is_ours, what="a report", overwrite=overwrite)


def _chosen_scores(comparison: Comparison) -> ScoreSet:
    scores = score_set(comparison.scores)
    if not scores.has_tolerance and (comparison.tolerances or comparison.tolerance is not None):
        raise UsageError(
            f"--tolerance is of the surface Dice of --scores nnunet, --scores {scores.name} takes none; leave it out"
        )
    return scores


def _patients(comparison: Comparison, cases: Cases) -> list[Hashable] | None:
    if comparison.patients is None:
        return None
    missing = [case for case in cases.names if case not in comparison.patients]
    if missing:
        raise UsageError(f"expected the patient of every case, found none for {some(missing)}")
    return [comparison.patients[case] for case in cases.names]


def compare(comparison: Comparison) -> Report:
    """Compare arms case by case and write the report.

    Everything is checked before anything is computed; the folder appears when it is complete.

    Args:
        comparison: What is compared, and how.

    Returns:
        What was written, as objects.

    Raises:
        UsageError: One line, if cases, grids, models, images or the output do not fit.
    """
    runs = _check_arms(comparison)
    baseline = _chosen_arm(comparison.baseline, "student", comparison.arms, "--baseline") or next(iter(comparison.arms))
    teacher = _chosen_arm(comparison.teacher, "teacher", comparison.arms, "--teacher")
    check_output(comparison.output, overwrite=comparison.overwrite)
    scores = _chosen_scores(comparison)
    cases = check_cases(
        runs, reference=comparison.reference, dataset_json=comparison.dataset_json, wanted=comparison.cases
    )
    cases = replace(cases, scheme=with_tolerances(cases.scheme, comparison.tolerance, comparison.tolerances))
    if scores.fit is not None:
        cases = replace(cases, scheme=scores.fit(cases.scheme, cases.scheme_source))
    check_scores(runs, cases, scores)
    patients = _patients(comparison, cases)
    costs = {arm: read_model_cost(open_model_folder(folder)) for arm, folder in comparison.models.items()}
    jobs = _jobs(comparison)
    with _as_usage_error(comparison.output), work_folder(comparison.output):
        pass  # a place that cannot be written is known before all the work, not after it
    arms = score_arms(runs, cases, scores=scores, n_processes=comparison.n_processes)
    rows = analyse(arms, baseline=baseline, teacher=teacher, groups=patients, resampling=comparison.resampling)
    report = Report(
        baseline=baseline,
        teacher=teacher,
        cases=cases,
        arms=arms,
        rows=rows,
        costs=costs,
        timings=measure(jobs) if jobs else {},
        n_patients=None if patients is None else len(set(patients)),
        resampling=comparison.resampling,
        hardware=describe(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        scores=scores,
    )
    write_report(report, comparison.output)
    return report


def _jobs(comparison: Comparison) -> dict[str, Job]:
    if comparison.images is None:
        return {}
    return {
        arm: prepare_job(folder, comparison.images, **comparison.timing) for arm, folder in comparison.models.items()
    }


def write_report(report: Report, output: Path) -> None:
    """Write all files under a temporary name beside the folder, then rename it.

    Raises:
        UsageError: If the disk is full or the place may not be written.
    """
    from nnunet_kd.evaluation.markdown import to_markdown
    from nnunet_kd.evaluation.plots import plot_report

    writers: dict[str, Callable[[Path], object]] = {
        "json": lambda file: file.write_text(json.dumps(to_json(report), indent=1, allow_nan=False) + "\n", "utf-8"),
        "csv": lambda file: write_scores(report, file),
        "markdown": lambda file: file.write_text(to_markdown(report), encoding="utf-8"),
        "plot": lambda file: plot_report(report, file),
    }
    with _as_usage_error(output), work_folder(output) as work:
        new = work / "new"
        new.mkdir()
        for kind, write in writers.items():
            write(new / FILES[kind])
        for name, draw in report.pictures.items():
            draw(new / name)
        move_into_place(new, output)


@contextmanager
def _as_usage_error(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write '{output}': {error.strerror or error}; name another folder with -o") from error


def write_scores(report: Report, file: Path) -> None:
    """Write every score as one line: arm, run, case, class, metric, value (empty where there is none)."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for record in _records(report):
            writer.writerow(["" if value is None else value for value in record])


def _records(report: Report) -> list[tuple[Any, ...]]:
    return [
        (arm.name, number, case, structure, metric, _plain(float(run.values[i, j, k])))
        for arm in report.arms.values()
        for number, run in enumerate(arm.runs)
        for i, case in enumerate(run.cases)
        for j, structure in enumerate(run.structures)
        for k, metric in enumerate(run.metrics)
    ]


def pooled_records(report: Report) -> list[dict[str, Any]]:
    """Return the scores of all cases together, one by one: arm, run, class, metric, value."""
    metrics = report.scores.pooled.metrics if report.scores.pooled else ()
    return [
        {"arm": arm.name, "run": number, "class": structure, "metric": metric.name, "value": float(run.pooled[j, k])}
        for arm in report.arms.values()
        for number, run in enumerate(arm.runs)
        if run.pooled is not None
        for j, structure in enumerate(run.structures)
        for k, metric in enumerate(metrics)
    ]


def _plain(value: Any) -> Any:  # noqa: ANN401  # any nesting of containers and numbers
    """Replace what JSON cannot hold, ``nan`` and infinities, by ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(report: Report) -> dict[str, Any]:
    """Return everything as plain JSON values; ``None`` stands for a missing number."""
    content: dict[str, Any] = {
        "format": 1,
        "nnunet_kd": __version__,
        "created": report.created,
        "hardware": report.hardware,
        "baseline": report.baseline,
        "teacher": report.teacher,
        "cases": report.cases.names,
        "n_patients": report.n_patients,
        "structures": [asdict(structure) for structure in report.cases.scheme.structures],
        "ignore_label": report.cases.scheme.ignore,
        "structures_from": report.cases.scheme_source,
        "intervals": asdict(report.resampling),
        "metrics": [asdict(metric) for metric in report.scores.metrics],
        "arms": {arm.name: {"runs": arm.sources, "metrics": arm.metrics} for arm in report.arms.values()},
        "costs": {arm: asdict(cost) for arm, cost in report.costs.items()},
        "timings": {arm: asdict(timing) for arm, timing in report.timings.items()},
        "rows": [asdict(row) for row in report.rows],
        "scores": [dict(zip(COLUMNS, record, strict=True)) for record in _records(report)],
    }
    if report.scores.name != "nnunet":
        content["score_set"] = report.scores.name
    if report.scores.caution:
        content["caution"] = report.scores.caution
    if report.scores.pooled:
        content["pooled_metrics"] = [asdict(metric) for metric in report.scores.pooled.metrics]
        content["pooled"] = pooled_records(report)
    plain: dict[str, Any] = _plain(content)
    return plain

"""Arms of reconstructions compared volume by volume, by the project's paired statistics and its report."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.analysis import analyse
from nnunet_kd.evaluation.arms import ArmScores, Cases
from nnunet_kd.evaluation.labels import LabelScheme, Structure
from nnunet_kd.evaluation.report import Report, check_output, write_report
from nnunet_kd.evaluation.score_sets import ScoreSet, score_runs
from nnunet_kd.evaluation.statistics import Resampling
from nnunet_kd.hardware import describe
from nnunet_kd.recon.evaluation.measurement import measured_slice
from nnunet_kd.recon.evaluation.metrics import METRICS
from nnunet_kd.recon.evaluation.pictures import PICTURE, plot_case
from nnunet_kd.recon.evaluation.summary import STRUCTURE
from nnunet_kd.recon.evaluation.summary import score_files as score_pair
from nnunet_kd.recon.evaluation.volumes import check_same_cases, volume_files

_SCHEME = LabelScheme(structures=(Structure(name=STRUCTURE, labels=(1,)),))


@dataclass(frozen=True, kw_only=True)
class ReconComparison:
    """What is compared, and how.

    Attributes:
        arms: For each arm its runs (seeds): folders of reconstructions.
        reference: Folder of files with targets.
        output: The report folder to make.
        metrics: Of :data:`nnunet_kd.recon.evaluation.metrics.METRICS`, the headline first.
        baseline: Arm that differences are to.
        teacher: Far end of the gap.
        patients: The patient of each case; patients are resampled.
        crop: Side of the square that is compared.
        caution: What must be read beside every number, such as that k-space was made from magnitudes.
        overwrite: Whether an earlier report may be replaced.
        n_processes: For scoring.
        resampling: How intervals are made.
    """

    arms: Mapping[str, Sequence[Path]]
    reference: Path
    output: Path
    metrics: Sequence[str]
    baseline: str | None = None
    teacher: str | None = None
    patients: Mapping[str, Hashable] | None = None
    crop: int | None = None
    caution: str = ""
    overwrite: bool = False
    n_processes: int | None = None
    resampling: Resampling = field(default_factory=Resampling)


def score_files(
    files: tuple[Path, Path],
    scheme: LabelScheme,  # noqa: ARG001  # one structure, the volume
    *,
    names: tuple[str, ...],
    crop: int | None,
) -> NDArray[np.float64]:
    """Return ``(1, metric)`` for the files of reference and prediction of one case."""
    scores = score_pair(files, names, crop)
    return np.array([[scores[name] for name in names]], dtype=np.float64)


def _notes(crop: int | None) -> list[str]:
    size = "their own size" if crop is None else f"their central {crop} x {crop} pixels"
    return [
        f"One score per volume, on {size}, on the scale of the target; the data range of PSNR and SSIM is the volume's "
        "largest true value, as in fastMRI's evaluate.py (SSIM: uniform window of 7 x 7, mean over slices).",
    ]


def recon_scores(names: Sequence[str], crop: int | None, caution: str = "") -> ScoreSet:
    """Return reconstruction metrics as a set of scores of the project's comparison."""
    return ScoreSet(
        name="recon",
        metrics=tuple(METRICS[name].metric for name in names),
        score_files=partial(score_files, names=tuple(names), crop=crop),
        notes=lambda scheme: _notes(crop),  # noqa: ARG005
        caution=caution,
    )


def _chosen(given: str | None, usual: str, arms: Mapping[str, object], option: str) -> str | None:
    if given is not None and given not in arms:
        raise UsageError(f"{option} names '{given}'; the arms are {', '.join(arms)}")
    return given or (usual if usual in arms else None)


def _runs(comparison: ReconComparison, reference: Mapping[str, Path]) -> dict[tuple[str, int], dict[str, Path]]:
    runs: dict[tuple[str, int], dict[str, Path]] = {}
    owner: dict[Path, str] = {}
    for arm, folders in comparison.arms.items():
        for number, folder in enumerate(folders):
            if owner.setdefault(folder.resolve(), arm) != arm or (number and folder in folders[:number]):
                raise UsageError(f"expected other predictions for every run, got '{folder}' twice; leave one out")
            files = volume_files(folder)
            check_same_cases(reference, files, f"arm '{arm}' ({folder})")
            runs[arm, number] = {case: files[case] for case in reference}
    return runs


def _groups(comparison: ReconComparison, cases: Sequence[str]) -> list[Hashable] | None:
    if comparison.patients is None:
        return None
    missing = [case for case in cases if case not in comparison.patients]
    if missing:
        raise UsageError(f"expected the patient of every case, found none for {', '.join(missing[:5])}")
    return [comparison.patients[case] for case in cases]


def compare(comparison: ReconComparison) -> Report:
    """Compare arms volume by volume and write report.md, report.json, scores.csv and two pictures.

    Raises:
        UsageError: One line, if cases, files or the output do not fit.
    """
    arms = comparison.arms
    baseline = _chosen(comparison.baseline, "student", arms, "--baseline") or next(iter(arms))
    teacher = _chosen(comparison.teacher, "teacher", arms, "--teacher")
    check_output(comparison.output, overwrite=comparison.overwrite)
    reference = volume_files(comparison.reference)
    runs = _runs(comparison, reference)
    groups = _groups(comparison, list(reference))
    scores = recon_scores(comparison.metrics, comparison.crop, comparison.caution)
    found = score_runs(reference, runs, scheme=_SCHEME, scores=scores, n_processes=comparison.n_processes)
    scored = {
        arm: ArmScores(
            name=arm,
            sources=tuple(map(str, folders)),
            runs=tuple(found[arm, number] for number in range(len(folders))),
        )
        for arm, folders in arms.items()
    }
    report = Report(
        baseline=baseline,
        teacher=teacher,
        cases=Cases(names=tuple(reference), reference=reference, scheme=_SCHEME, scheme_source="whole volumes"),
        arms=scored,
        rows=analyse(scored, baseline=baseline, teacher=teacher, groups=groups, resampling=comparison.resampling),
        costs={},
        timings={},
        n_patients=None if groups is None else len(set(groups)),
        resampling=comparison.resampling,
        hardware=describe(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        scores=scores,
    )
    shown = middle_case(report)
    first = {arm: runs[arm, 0][shown] for arm in (baseline, *arms)}  # the baseline's masks are shown
    sampled = partial(measured_slice, reference[shown], {arm: file.parent for arm, file in first.items()})
    picture = partial(
        plot_case, reference[shown], {arm: first[arm] for arm in arms}, crop=comparison.crop, sampled=sampled
    )
    report = replace(report, pictures={PICTURE: picture})
    write_report(report, comparison.output)
    return report


def middle_case(report: Report) -> str:
    """Return the case whose headline score of the baseline is the median one, so that nobody chose the picture."""
    values = report.arms[report.baseline].per_case(STRUCTURE, report.headline.name)
    order = np.argsort(values)
    return report.cases.names[int(order[len(order) // 2])]

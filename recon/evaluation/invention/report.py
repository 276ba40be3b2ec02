"""The report on invention: checked, measured case by case, gathered per arm, written as one folder."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd import __version__
from nnunet_kd.cases import map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.recon.data.measuring import SampleSettings
from nnunet_kd.recon.evaluation.data_facts import caution_beside
from nnunet_kd.recon.evaluation.invention.arms import Arm, ArmFiles, by_acceleration, check_arms, find_files
from nnunet_kd.recon.evaluation.invention.case_files import CaseJob, check_case, measure_case
from nnunet_kd.recon.evaluation.invention.masks import known_sampling
from nnunet_kd.recon.evaluation.invention.measures import CaseResult
from nnunet_kd.recon.evaluation.invention.scan import ScanSettings
from nnunet_kd.recon.evaluation.invention.spread import (
    Moments,
    calibration_curve,
    correlation,
    error_to_spread,
)
from nnunet_kd.recon.evaluation.volumes import volume_files

JSON, MARKDOWN, CURVES = "report.json", "report.md", "curves.png"
_PICTURES = "slice_"


@dataclass(frozen=True, kw_only=True)
class Inquiry:
    """What is examined, and how.

    Attributes:
        arms: Methods, each at one acceleration or at none that was named.
        reference: Folder of case files with the targets, and with k-space for the residual.
        output: The report folder to make.
        baseline: Arm that detail was added to, by its name without the acceleration; ``None``: each arm's own mean.
        metrics: Of :data:`nnunet_kd.recon.evaluation.metrics.METRICS`.
        sampling: Settings of masks that replace the recorded ones; empty for none.
        crop: Side of the square that is compared.
        scan: Of the local ring correlation.
        overwrite: Whether an earlier report may be replaced.
        n_processes: For measuring.
    """

    arms: Sequence[Arm]
    reference: Path
    output: Path
    baseline: str | None = None
    metrics: tuple[str, ...] = ("PSNR", "SSIM", "NMSE", "HaarPSI")
    sampling: Mapping[str, Any] = field(default_factory=dict)
    crop: int | None = None
    scan: ScanSettings = field(default_factory=ScanSettings)
    overwrite: bool = False
    n_processes: int | None = None


@dataclass(frozen=True, kw_only=True)
class ArmReport:
    """What was found of an arm.

    Attributes:
        arm: The arm.
        cases: Case to its numbers.
        job: How its cases are read; for the pictures.
    """

    arm: Arm
    cases: Mapping[str, CaseResult]
    job: CaseJob

    @property
    def kinds(self) -> tuple[str, ...]:
        """``sample`` and, of several samples, their mean."""
        return tuple(next(iter(self.cases.values())).scores)

    def values(self, kind: str, measure: str) -> NDArray[np.float64]:
        """Return a measure of every case; ``nan`` where it lacks it."""
        return np.array([case.scores[kind].get(measure, np.nan) for case in self.cases.values()])

    def mean(self, kind: str, measure: str) -> float:
        """Return the mean over cases that have the measure, ``nan`` if none has."""
        values = self.values(kind, measure)
        values = values[~np.isnan(values)]
        return float(values.mean()) if len(values) else float("nan")

    def fact(self, name: str) -> float:
        """Return a fact's mean over cases, ``nan`` if it is not known."""
        known = [case.facts[name] for case in self.cases.values() if name in case.facts]
        return float(np.mean(known)) if known else float("nan")

    def spectrum(self, kind: str) -> NDArray[np.float64]:
        """Return the mean over cases of the spectrum's error, in dB."""
        return np.asarray(np.mean([case.spectra[kind] for case in self.cases.values()], axis=0))

    @property
    def moments(self) -> Moments | None:
        """Of spread and error over all cases; ``None`` for a single sample."""
        found = [case.moments for case in self.cases.values() if case.moments is not None]
        return sum(found[1:], start=found[0]) if found else None


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Everything that was found.

    Attributes:
        inquiry: What was examined.
        arms: In the order of accelerations.
        created: UTC, to the second.
        caution: What must be read beside every number.
    """

    inquiry: Inquiry
    arms: Sequence[ArmReport]
    created: str
    caution: str

    @property
    def groups(self) -> dict[float | None, list[ArmReport]]:
        """The arms of each acceleration."""
        of = {found.arm.label: found for found in self.arms}
        return {rate: [of[arm.label] for arm in arms] for rate, arms in by_acceleration(list_arms(self)).items()}


def list_arms(findings: Findings) -> list[Arm]:
    """Return the arms alone."""
    return [found.arm for found in findings.arms]


def inquire(inquiry: Inquiry) -> Findings:
    """Measure every arm and write the report; everything is checked before anything is measured.

    Raises:
        UsageError: One line, if arms, cases, files, masks or the output do not fit.
    """
    arms = [arm for group in by_acceleration(inquiry.arms).values() for arm in group]
    check_arms(arms, inquiry.baseline)
    check_replaceable(inquiry.output, is_ours=_is_ours, what="a report", overwrite=inquiry.overwrite)
    _check_metrics(inquiry.metrics)
    reference = volume_files(inquiry.reference)
    files = find_files(arms, reference)
    jobs = [_job(found, files, inquiry, reference) for found in files]
    for job in jobs:
        for case in reference:
            check_case(job, case)
    _check_place(inquiry.output)
    findings = Findings(
        inquiry=inquiry,
        arms=[_measure(job, found, list(reference), inquiry) for job, found in zip(jobs, files, strict=True)],
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        caution=caution_beside(inquiry.reference),
    )
    write(findings)
    return findings


def _is_ours(folder: Path) -> bool:
    names = {entry.name for entry in folder.iterdir()} - {JSON, MARKDOWN, CURVES}
    return all(name.startswith(_PICTURES) and name.endswith(".png") for name in names)


def _check_metrics(metrics: Sequence[str]) -> None:
    if set(metrics) & {"HaarPSI", "GMSD", "VIF"}:
        require("piq")


def _check_place(output: Path) -> None:
    try:
        with work_folder(output):
            pass  # a place that cannot be written is known before all the work, not after it
    except OSError as error:
        raise UsageError(f"cannot write '{output}': {error.strerror or error}; name another folder with -o") from error


def _job(found: ArmFiles, files: Sequence[ArmFiles], inquiry: Inquiry, reference: Mapping[str, Path]) -> CaseJob:
    arm = found.arm
    base = next(
        (
            other.samples
            for other in files
            if other.arm.name == inquiry.baseline and other.arm.acceleration == arm.acceleration and other is not found
        ),
        None,
    )
    return CaseJob(
        reference=reference,
        samples=found.samples,
        base=base,
        sampling=_sampling(arm, inquiry),
        metrics=inquiry.metrics,
        crop=inquiry.crop,
        scan=inquiry.scan,
    )


def _sampling(arm: Arm, inquiry: Inquiry) -> SampleSettings | None:
    return known_sampling(arm.folders[0], inquiry.reference, asked=inquiry.sampling, acceleration=arm.acceleration)


def _measure(job: CaseJob, found: ArmFiles, cases: Sequence[str], inquiry: Inquiry) -> ArmReport:
    results = map_cases(
        partial(measure_case, job),
        cases,
        description=found.arm.label,
        n_workers=inquiry.n_processes,
        seconds_per_case=5.0 * len(found.samples),
    )
    return ArmReport(arm=found.arm, cases=dict(zip(cases, results, strict=True)), job=job)


def write(findings: Findings) -> None:
    """Write all files under a temporary name beside the folder, then rename it.

    Raises:
        UsageError: If the disk is full or the place may not be written.
    """
    import json

    from nnunet_kd.evaluation.report import _plain
    from nnunet_kd.recon.evaluation.invention.curves import plot_curves
    from nnunet_kd.recon.evaluation.invention.markdown import to_markdown
    from nnunet_kd.recon.evaluation.invention.pictures import plot_slices

    output = findings.inquiry.output
    try:
        with work_folder(output) as work:
            new = work / "new"
            new.mkdir()
            pictures = plot_slices(findings, new, _PICTURES)
            plot_curves(findings, new / CURVES)
            text = json.dumps(_plain(to_json(findings)), indent=1, allow_nan=False)
            (new / JSON).write_text(text + "\n", encoding="utf-8")
            (new / MARKDOWN).write_text(to_markdown(findings, pictures), encoding="utf-8")
            move_into_place(new, output)
    except OSError as error:
        raise UsageError(f"cannot write '{output}': {error.strerror or error}; name another folder with -o") from error


def to_json(findings: Findings) -> dict[str, Any]:
    """Return everything as JSON values and ``nan``."""
    inquiry = findings.inquiry
    return {
        "format": 1,
        "nnunet_kd": __version__,
        "created": findings.created,
        "caution": findings.caution,
        "baseline": inquiry.baseline,
        "crop": inquiry.crop,
        "scan": asdict(inquiry.scan),
        "arms": [_arm_json(found) for found in findings.arms],
    }


def _arm_json(found: ArmReport) -> dict[str, Any]:
    pooled = found.moments
    names = list(dict.fromkeys(name for case in found.cases.values() for name in case.scores[found.kinds[0]]))
    return {
        "name": found.arm.name,
        "acceleration": found.arm.acceleration,
        "folders": [str(folder) for folder in found.arm.folders],
        "true_acceleration": found.fact("true_acceleration"),
        "residual_of_target": found.fact("residual_of_target"),
        "mean": {kind: {name: found.mean(kind, name) for name in names} for kind in found.kinds},
        "spectrum_error_db": {kind: found.spectrum(kind).tolist() for kind in found.kinds},
        "calibration": None if pooled is None else _calibration_json(pooled),
        "cases": {case: {**result.facts, **result.scores} for case, result in found.cases.items()},
    }


def _calibration_json(pooled: Moments) -> dict[str, Any]:
    return {
        "n_samples": pooled.n_samples,
        "correlation": correlation(pooled),
        "error_to_spread": error_to_spread(pooled),
        "curve": [dict(zip(("spread", "error", "pixels"), point, strict=True)) for point in calibration_curve(pooled)],
    }

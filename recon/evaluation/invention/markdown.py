"""The report as Markdown: tables of every acceleration, pictures, and how to read them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nnunet_kd.evaluation.markdown import NONE, _table
from nnunet_kd.recon.evaluation.invention.measures import MEAN, SAMPLE
from nnunet_kd.recon.evaluation.invention.spread import correlation, error_to_spread
from nnunet_kd.recon.evaluation.metrics import METRICS

if TYPE_CHECKING:
    from nnunet_kd.recon.evaluation.invention.pictures import Picture
    from nnunet_kd.recon.evaluation.invention.report import ArmReport, Findings

WARNING = (
    "This report measures invention where the truth is known. It cannot tell, of a new patient, which detail is "
    "invented; see the documentation before anybody reads generative reconstructions."
)


def to_markdown(findings: "Findings", pictures: Mapping[float | None, Sequence["Picture"]]) -> str:
    """Return the whole report.

    Args:
        findings: What was found.
        pictures: Of each acceleration.
    """
    n_cases = len(findings.arms[0].cases)
    lines = [
        f"# What was invented: {n_cases} volumes",
        "",
        f"Written {findings.created}. Baseline: {findings.inquiry.baseline or 'none'}.",
        "",
        f"**{WARNING}**",
        "",
        *([f"**{findings.caution}.**", ""] if findings.caution else []),
    ]
    for rate, arms in findings.groups.items():
        lines += [f"## {'Reconstructions' if rate is None else f'Acceleration {rate:g}'}", "", *_sampling(arms)]
        lines += [*_scores(arms, findings), *_invention(arms), *_calibration(arms)]
        for picture in pictures.get(rate, ()):
            lines += [f"![{picture.caption}]({picture.file})", "", f"{picture.caption}.", ""]
    return "\n".join([*lines, "## Curves", "", "![curves](curves.png)", "", *_how(findings)])


def _rows(arms: Sequence["ArmReport"]) -> list[tuple["ArmReport", str, str]]:
    found = []
    for arm in arms:
        n = len(arm.arm.folders)
        one = f"{arm.arm.name}, one of {n} samples" if n > 1 else arm.arm.name
        found += [(arm, kind, one if kind == SAMPLE else f"{arm.arm.name}, {MEAN}") for kind in arm.kinds]
    return found


def _sampling(arms: Sequence["ArmReport"]) -> list[str]:
    rates = {arm.arm.name: arm.fact("true_acceleration") for arm in arms}
    known = {name: rate for name, rate in rates.items() if np.isfinite(rate)}
    if not known:
        return ["The masks are not known, or there is no full k-space: residuals are not given.", ""]
    if len(known) == len(rates) and len({round(rate, 6) for rate in rates.values()}) == 1:
        return [f"True acceleration of the masks, mean over volumes: {next(iter(known.values())):.2f}.", ""]
    named = ", ".join(
        f"{name} {rate:.2f}" if np.isfinite(rate) else f"{name} not known" for name, rate in rates.items()
    )
    return [f"True acceleration of the masks, mean over volumes: {named}.", ""]


def _text(value: float, digits: int, *, signed: bool = False) -> str:
    if np.isnan(value):
        return NONE
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _scores(arms: Sequence["ArmReport"], findings: "Findings") -> list[str]:
    metrics = [METRICS[name].metric for name in findings.inquiry.metrics]
    head = ["arm", *(f"{metric.title} [{metric.unit}]" if metric.unit else metric.title for metric in metrics)]
    rows = [
        [label, *(_text(arm.mean(kind, metric.name), 2 if metric.unit else 4) for metric in metrics)]
        for arm, kind, label in _rows(arms)
    ]
    return _table(head, rows)


def _invention(arms: Sequence["ArmReport"]) -> list[str]:
    head = ["arm", "marked area", "added detail", "agreement", "spectrum error [dB]", "fine detail [dB]"]
    head += ["residual", "residual of the target"]
    rows = []
    for arm, kind, label in _rows(arms):
        marked, residual = arm.mean(kind, "marked"), arm.mean(kind, "residual")
        cells = [
            f"{marked:.2%}",
            _text(arm.mean(kind, "detail"), 4),
            _text(arm.mean(kind, "agreement"), 2, signed=True),
        ]
        cells += [_text(arm.mean(kind, "spectrum"), 2), _text(arm.mean(kind, "fine"), 2, signed=True)]
        cells += [_scientific(residual), _scientific(arm.fact("residual_of_target"))]
        rows.append([label, *cells])
    return _table(head, rows)


def _scientific(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.1e}"


def _calibration(arms: Sequence["ArmReport"]) -> list[str]:
    rows = [
        [
            arm.arm.name,
            str(pooled.n_samples),
            _text(correlation(pooled), 2, signed=True),
            _text(error_to_spread(pooled), 2),
        ]
        for arm in arms
        if (pooled := arm.moments) is not None
    ]
    head = ["arm", "samples", "correlation of spread and error", "error / error expected of the spread"]
    return _table(head, rows) if rows else []


def _how(findings: "Findings") -> list[str]:
    scan, baseline = findings.inquiry.scan, findings.inquiry.baseline
    base = f"{baseline} (its samples' mean)" if baseline else "the mean of the arm's own samples"
    lines = [
        "Scores: one per volume, on the scale of the target, whose largest value in the volume is the data range; "
        "means over volumes, and over samples first.",
        "Marked area: share of pixels whose detail the target does not support, after sFRC (arXiv 2603.04673). Patches "
        f"of {scan.patch} x {scan.patch} pixels every {scan.stride}, Hann window; suspect if the ring correlation with "
        f"the target falls below {scan.threshold:g} before {scan.cutoff:g} of Nyquist **and** the rings below it hold "
        f"added energy above {scan.floor:g} of the largest value (root mean square). The second condition and the "
        "sizes are ours; they spare mild blur. Aliasing, ringing, noise and shifts are marked as inventions are.",
        f"Added detail: |reconstruction - base| / |target|, base: {base}. Agreement: cosine between added and missing "
        "detail; 1 all of it was missing, 0 as if invented, below 0 away from the truth.",
        "Spectrum error: mean over rings of |10 log10(power / target's power)|; fine detail: its signed mean over the "
        "outer half of k-space, below 0 too smooth, above 0 too rough. Power in the right amount may lie in the wrong "
        "place.",
        "Residual: |M F S x - y| / |y| on the measured samples. Reconstructions are magnitudes, so they were given the "
        "phase of the fully sampled image, and what was cropped away was taken from it; the target's own residual, "
        "made the same way, is what no reconstruction need fall below.",
        "Spread: standard deviation over samples, in pixels above 5 % of the volume's largest value. A ratio of error "
        "to expected error above 1 says that samples agree with each other more than with the truth: too sure.",
    ]
    sources = [[found.arm.label, "<br>".join(map(str, found.arm.folders))] for found in findings.arms]
    table = _table(["arm", "reconstructions"], sources, n_text=2)
    return ["## How to read this", "", *(f"- {line}" for line in lines), "", "## Sources", "", *table]

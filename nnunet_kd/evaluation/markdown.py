"""A comparison as Markdown: tables, and how their numbers were made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from nnunet_kd.evaluation.analysis import Row
from nnunet_kd.evaluation.report import FILES, Report
from nnunet_kd.evaluation.score_sets import Metric
from nnunet_kd.evaluation.statistics import Difference, Estimate
from nnunet_kd.evaluation.timing import N_ROUNDS, STAGES

NONE = "-"

_BEST = {True: "higher is better", False: "lower is better", None: "nearest to 0 is best"}

_FEW = 15  # on skewed scores a 95% interval covers 83% of the time with 5 cases, 88% with 10, 94% with 15 to 40
_TOO_FEW = 6  # Wilcoxon's p cannot fall below 0.06 with 5


def _number(value: float, metric: Metric, *, signed: bool = False) -> str:
    if not np.isfinite(value):
        return NONE
    digits = 2 if metric.unit else 4
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def with_interval(estimate: Estimate, metric: Metric, *, signed: bool = False) -> str:
    """Write an estimate as ``0.8612 [0.8540, 0.8670]``, a difference with its sign."""
    low, high = (_number(end, metric, signed=signed) for end in (estimate.low, estimate.high))
    value = _number(estimate.value, metric, signed=signed)
    return value if low == NONE else f"{value} [{low}, {high}]"


def p_text(p: float) -> str:
    """Write a p value with two significant digits."""
    if not np.isfinite(p):
        return NONE
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def p_equation(p: float) -> str:
    """Write ``p = 0.012`` or ``p < 0.0001``.

    Example:
        >>> p_equation(0.01234), p_equation(1e-9)
        ('p = 0.012', 'p < 0.0001')
    """
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _percent(value: float) -> str:
    return f"{round(value, 2) + 0.0:.0%}"  # no minus before 0


def share_text(share: Estimate | None) -> str:
    """Write a share of the gap in percent."""
    if share is None or not np.isfinite(share.value):
        return NONE
    value = _percent(share.value)
    return (
        f"{value} [{_percent(share.low)}, {_percent(share.high)}]"
        if np.isfinite([share.low, share.high]).all()
        else value
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, n_text: int = 1) -> list[str]:
    """Draw a table whose first columns are text and stand left, the others numbers."""
    marks = [":--" if column < n_text else "--:" for column in range(len(head))]
    return ["| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)] + [""]


def _title(metric: Metric) -> str:
    return f"{metric.title} [{metric.unit}]" if metric.unit else metric.title


def _difference_cells(row: Row, metric: Metric) -> list[str]:
    if row.difference is None:
        return [NONE, NONE, NONE]
    return [
        with_interval(row.difference, metric, signed=True),
        p_text(row.difference.p),
        share_text(row.share),
    ]


def _metric_table(report: Report, metric: Metric) -> list[str]:
    rows = []
    for structure in report.structures:
        for arm in report.arms:
            row = report.row(arm, structure, metric.name)
            if row is None:
                rows.append([structure, arm, "not available", *[NONE] * 5])
                continue
            spread = _number(row.spread.standard_deviation, metric)
            cells = [with_interval(row.mean, metric), *_difference_cells(row, metric), spread, str(row.mean.n_cases)]
            rows.append([structure, arm, *cells])
    level = f"{report.resampling.level:.0%}"
    head = [
        "structure",
        "arm",
        f"{_title(metric)}, mean [{level}]",
        f"minus {report.baseline} [{level}]",
        "p",
        "share of the gap",
        "SD over runs",
        "cases",
    ]
    return [f"## {_title(metric)} ({_BEST[metric.higher_is_better]})", "", *_table(head, rows, n_text=2)]


def _pooled_table(report: Report) -> list[str]:
    pooled = report.scores.pooled
    if pooled is None:
        return []
    rows = []
    for number, structure in enumerate(report.cases.scheme.structures):
        for arm in report.arms.values():
            found = [run.pooled[number] for run in arm.runs if run.pooled is not None]
            means = np.mean(found, axis=0) if found else np.full(len(pooled.metrics), np.nan)
            cells = [_number(value, metric) for value, metric in zip(means, pooled.metrics, strict=True)]
            rows.append([structure.name, arm.name, *cells])
    head = ["structure", "arm", *(_title(metric) for metric in pooled.metrics)]
    note = "One number for all cases, not a mean over cases: no interval and no test. Several runs: their mean."
    return ["## All cases together", "", note, "", *_table(head, rows, n_text=2)]


def finding(arm: str, baseline: str, difference: Difference, metric: Metric) -> str:
    """Say in one sentence what a difference shows; its form is the same whatever was found."""
    text = f"**{arm} minus {baseline}**: {with_interval(difference, metric, signed=True)} {metric.unit}".rstrip()
    if not np.isfinite([difference.low, difference.high]).all():
        verdict = "too few cases for an interval"
    elif difference.low <= 0 <= difference.high:
        verdict = "the interval contains 0: no difference was found"
    elif metric.higher_is_better is None:
        verdict = "the interval excludes 0: the arms differ"
    else:
        better = (difference.value > 0) == metric.higher_is_better
        verdict = f"the interval excludes 0: {arm} is {'better' if better else 'worse'}"
    if difference.n_groups < _TOO_FEW and difference.value:
        verdict = f"too few for a verdict, which needs {_TOO_FEW} at least"
    few = f" (of {difference.n_groups} only: too narrow)" if difference.n_groups < _FEW else ""
    return f"{text}{few}, {p_equation(difference.p)}, {difference.n_cases} cases; {verdict}."


def _findings(report: Report) -> list[str]:
    metric, structure = report.headline, report.structures[0]
    rows = [report.row(arm, structure, metric.name) for arm in report.arms]
    lines = []
    for row in rows:
        if row is None or row.difference is None:
            continue
        line = f"- {finding(row.arm, report.baseline, row.difference, metric)}"
        if row.share is not None:
            line += f" Share of the gap to {report.teacher}: {share_text(row.share)}"
            line += f" ({row.share.reason})." if row.share.reason else "."
        lines.append(line)
    return [f"{metric.title}, {structure}:", "", *lines, ""] if lines else []


def _costs(report: Report) -> list[str]:
    if not report.costs:
        return []
    head = ["arm", "parameters", "GMAC per patch", "peak activations [MB]", "weights [MB]"]
    head += ["seconds per case", "peak memory [MB]"] if report.timings else []
    rows = []
    for arm, cost in report.costs.items():
        cells = [f"{cost.parameters:,}", f"{cost.macs / 1e9:.3g}", f"{cost.peak_activation_bytes / 1e6:.3g}"]
        cells.append(f"{cost.megabytes:.3g}")
        timing = report.timings.get(arm)
        cells += [f"{timing.seconds_per_case:.3g}", f"{timing.peak_megabytes:.0f}"] if timing else []
        rows.append([arm, *cells])
    without = [arm.name for arm in report.arms.values() if arm.name not in report.costs]
    missing = [f"No --model was given for {', '.join(without)}.", ""] if without else []
    return ["## Cost", "", *_table(head, rows), *missing, *_timing_notes(report)]


def _timing_notes(report: Report) -> list[str]:
    if not report.timings:
        return []
    first = next(iter(report.timings.values()))
    rows = [
        [arm, *(f"{timing.seconds_per_stage[stage]:.3g}" for stage in STAGES), f"{timing.megabytes_before:.0f}"]
        for arm, timing in report.timings.items()
    ]
    folds = ", ".join(f"{arm} {timing.n_folds}" for arm, timing in report.timings.items())
    note = (
        f"Measured on {report.hardware}; device {first.device}, {first.threads} threads, mirroring "
        f"{'on' if first.mirroring else 'off'}, folds: {folds}. Medians over {first.n_cases} cases in each of "
        f"{N_ROUNDS} processes per arm, arms in turns, one case at a time from file to file after one warm-up case. "
        f"Processes that wanted to run in the minute before: {first.load:.1f}; other work makes the seconds too long."
    )
    return [*_table(["arm", *(f"{stage} [s]" for stage in STAGES), "memory before the model [MB]"], rows), note, ""]


def _how(report: Report) -> list[str]:
    cases, how = report.cases, report.resampling
    units = f"{report.n_patients} patients" if report.n_patients is not None else "cases"
    runs = ", ".join(f"{arm.name} {len(arm.runs)}" for arm in report.arms.values())
    lines = [
        f"{len(cases.names)} cases; structures from {cases.scheme_source}"
        + (f"; voxels of the ignore label {cases.scheme.ignore} left out." if cases.scheme.ignore is not None else "."),
        f"Intervals: {how.level:.0%} {how.method} bootstrap, {how.n_resamples} resamples of {units}, seed {how.seed}. "
        "They describe the spread over cases for these trained networks, not that over trainings.",
        f"Runs (seeds): {runs}. Runs of an arm are averaged case by case first; 'SD over runs' is the standard "
        "deviation of the runs' means.",
        "Differences are paired case by case. p: two-sided Wilcoxon signed-rank test, **not corrected** for the number "
        "of comparisons in this report.",
        f"Share of the gap: (arm - {report.baseline}) / ({report.teacher} - {report.baseline}); not named where the "
        "interval of the gap contains 0.",
        *report.scores.notes(cases.scheme),
    ]
    if report.costs:
        lines.append(
            "GMAC: multiply-accumulates of convolutions and matrix products for one patch, in 10^9. Peak activations: "
            "largest sum of live tensors in a float32 pass, without weights. MB are 10^6 bytes."
        )
    return ["## How these numbers were made", "", *(f"- {line}" for line in lines if _applies(line, report)), ""]


def _applies(line: str, report: Report) -> bool:
    return report.teacher not in (None, report.baseline) or not line.startswith("Share of the gap")


def to_markdown(report: Report) -> str:
    """Return the whole report as Markdown."""
    caution = [f"**{report.scores.caution}.**", ""] if report.scores.caution else []
    known = {name for arm in report.arms.values() for name in arm.metrics}
    lines = [
        f"# {' / '.join(report.arms)} over {len(report.cases.names)} cases",
        "",
        f"Baseline: {report.baseline}. Teacher: {report.teacher or 'none'}. Written {report.created}.",
        "",
        *caution,
        *(f"![{Path(name).stem}]({name})\n" for name in (FILES["plot"], *report.pictures)),
        *_findings(report),
        *_costs(report),
    ]
    for metric in (metric for metric in report.scores.metrics if metric.name in known):
        lines += _metric_table(report, metric)
    lines += _pooled_table(report)
    sources = [[arm.name, "<br>".join(arm.sources)] for arm in report.arms.values()]
    return "\n".join([*lines, *_how(report), "## Sources", "", *_table(["arm", "predictions"], sources, n_text=2)])

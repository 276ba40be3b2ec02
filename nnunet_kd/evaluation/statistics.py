"""Paired statistics over cases: means, differences and shares of a gap, with bootstrap intervals.

Pure functions on arrays with one value per case. ``nan`` marks a case without a value; it is left
out, of a pair together with its partner. Nothing here knows what was scored.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Method = Literal["BCa", "percentile"]
Statistic = Callable[..., Floats]

_MAX_DRAWS = 2_000_000  # numbers drawn at once, so that many cases do not fill the memory


@dataclass(frozen=True, kw_only=True)
class Resampling:
    """How intervals are made.

    Attributes:
        n_resamples: Number of bootstrap samples.
        level: Probability that an interval covers, in (0, 1).
        method: ``BCa`` corrects for bias and skew of the bootstrap distribution.
        seed: Of the random draws; equal seeds give equal intervals.
    """

    n_resamples: int = 9999
    level: float = 0.95
    method: Method = "BCa"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval.

    Attributes:
        value: The estimate, ``nan`` if there is none.
        low: Lower end of the interval, ``nan`` with fewer than two groups.
        high: Upper end.
        n_cases: Cases that entered.
        n_groups: Independent units that were resampled: patients, or the cases themselves.
        reason: Why ``value`` is ``nan``; empty otherwise.
    """

    value: float
    low: float
    high: float
    n_cases: int
    n_groups: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Difference(Estimate):
    """A mean difference between two arms over the same cases.

    Attributes:
        p: Two-sided Wilcoxon signed-rank p value over the groups' mean differences,
            not corrected for multiple comparisons; 1 when no group differs.
    """

    p: float


@dataclass(frozen=True, kw_only=True)
class RunSpread:
    """How much repeated runs of one arm differ.

    Attributes:
        means: Mean over cases of each run.
        standard_deviation: Of these means (divided by n - 1), ``nan`` for one run.
    """

    means: tuple[float, ...]
    standard_deviation: float


def _group_sums(columns: Sequence[Floats], groups: Sequence[Hashable] | None) -> list[Floats]:
    """Sum each column, and a column of ones, within each group: the units that are resampled."""
    full = [*columns, np.ones(len(columns[0]))]
    if groups is None:
        return full
    number: dict[Hashable, int] = {}
    index = np.array([number.setdefault(group, len(number)) for group in groups], dtype=np.intp)
    return [np.asarray(np.bincount(index, weights=column, minlength=len(number)), dtype=np.float64) for column in full]


def _keep_complete(
    columns: Sequence[ArrayLike], groups: Sequence[Hashable] | None
) -> tuple[list[Floats], list[Hashable] | None]:
    """Drop every case that lacks a value in one of the columns."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    lengths = {array.shape for array in arrays} | ({(len(groups),)} if groups is not None else set())
    if len(lengths) != 1 or arrays[0].ndim != 1:
        raise ValueError(f"expected one value per case in every list, got lengths {sorted(map(str, lengths))}")
    complete = np.atleast_1d(np.isfinite(np.stack(arrays)).all(axis=0))
    kept = None if groups is None else [group for group, keep in zip(groups, complete, strict=True) if keep]
    return [array[complete] for array in arrays], kept


def _mean(sums: Floats, counts: Floats, axis: int) -> Floats:
    return np.asarray(sums.sum(axis=axis) / counts.sum(axis=axis))


def _share(kd: Floats, student: Floats, teacher: Floats, counts: Floats, axis: int) -> Floats:  # noqa: ARG001
    # the counts cancel: all means are over the same cases
    gap = teacher.sum(axis=axis) - student.sum(axis=axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((kd.sum(axis=axis) - student.sum(axis=axis)) / gap)


def _interval(units: list[Floats], statistic: Statistic, value: float, how: Resampling) -> tuple[float, float]:
    """Resample the units together.

    BCa needs a statistic that varies and exists whatever unit is left out. Where it does not
    (equal cases; a gap carried by one patient), the percentiles of the samples that have a
    value stand in.
    """
    from scipy.stats import DegenerateDataWarning, bootstrap

    n_units = len(units[0])
    if n_units < 2:
        return float("nan"), float("nan")
    # scipy renamed the argument; the old name will go
    generator = "rng" if "rng" in inspect.signature(bootstrap).parameters else "random_state"
    settings: dict[str, Any] = {
        "paired": True,
        "vectorized": True,
        "batch": max(1, _MAX_DRAWS // n_units),
        "confidence_level": how.level,
        generator: np.random.default_rng(how.seed),
    }
    data = tuple(units)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)  # samples without a value are dealt with below
        drawn = bootstrap(data, statistic, method="percentile", n_resamples=how.n_resamples, **settings)
    samples = drawn.bootstrap_distribution
    without_one = np.array([float(statistic(*[np.delete(unit, i) for unit in units], axis=-1)) for i in range(n_units)])
    varies = np.isfinite(without_one).all() and np.ptp(without_one) > 1e-12 * max(1.0, abs(value))
    if how.method == "BCa" and varies and np.isfinite(samples).all() and samples.min() < value < samples.max():
        found = bootstrap(data, statistic, method="BCa", n_resamples=0, bootstrap_result=drawn, **settings)
        return float(found.confidence_interval.low), float(found.confidence_interval.high)
    tail = 50 * (1 - how.level)
    low, high = np.percentile(samples[~np.isnan(samples)], [tail, 100 - tail])
    return float(low), float(high)


def mean_with_interval(
    values: ArrayLike, *, groups: Sequence[Hashable] | None = None, resampling: Resampling | None = None
) -> Estimate:
    """Average over cases, with a bootstrap interval.

    Args:
        values: One per case.
        groups: The patient of each case; patients are then resampled with all their cases,
            and every case still weighs the same in the mean.
        resampling: How the interval is made.

    Raises:
        ValueError: If ``groups`` has another length.

    Example:
        >>> estimate = mean_with_interval([0.8, 0.9, 0.7, float("nan")])
        >>> round(estimate.value, 3), estimate.n_cases
        (0.8, 3)
    """
    (kept,), kept_groups = _keep_complete([values], groups)
    units = _group_sums([kept], kept_groups)
    if not len(kept):
        return Estimate(value=np.nan, low=np.nan, high=np.nan, n_cases=0, n_groups=0, reason="no case has a value")
    value = float(kept.mean())
    low, high = _interval(units, _mean, value, resampling or Resampling())
    return Estimate(value=value, low=low, high=high, n_cases=len(kept), n_groups=len(units[0]))


def wilcoxon_p(differences: ArrayLike) -> float:
    """Return the two-sided Wilcoxon signed-rank p value; pairs without a difference say nothing.

    Example:
        >>> wilcoxon_p([0.0, 0.0])
        1.0
    """
    from scipy.stats import wilcoxon

    array = np.asarray(differences, dtype=np.float64)
    nonzero = array[np.isfinite(array) & (array != 0)]
    return float(wilcoxon(nonzero).pvalue) if len(nonzero) else 1.0


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    resampling: Resampling | None = None,
) -> Difference:
    """Average ``values - baseline`` over the cases that have both.

    Args:
        values: One per case.
        baseline: The same cases in the same order.
        groups: The patient of each case, see :func:`mean_with_interval`.
        resampling: How the interval is made.

    Raises:
        ValueError: If the lists differ in length.
    """
    (first, second), kept_groups = _keep_complete([values, baseline], groups)
    differences = first - second
    mean = mean_with_interval(differences, groups=kept_groups, resampling=resampling)
    sums, counts = _group_sums([differences], kept_groups)
    p = wilcoxon_p(sums / counts) if len(sums) else float("nan")
    return Difference(**vars(mean), p=p)


def share_of_gap(
    values: ArrayLike,
    student: ArrayLike,
    teacher: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    resampling: Resampling | None = None,
) -> Estimate:
    """Return which part of the way from the student's mean to the teacher's an arm has made.

    0 is the student, 1 the teacher; beyond both is possible. There is no answer where teacher
    and student cannot be told apart: if the interval of their difference contains 0, the value
    is ``nan`` and ``reason`` says so.

    Args:
        values: One per case.
        student: The same cases, trained without a teacher.
        teacher: The same cases.
        groups: The patient of each case, see :func:`mean_with_interval`.
        resampling: How both intervals are made.

    Raises:
        ValueError: If the lists differ in length.

    Example:
        >>> student = [0.5, 0.6, 0.7, 0.4]
        >>> teacher = [0.7, 0.8, 0.9, 0.6]
        >>> round(share_of_gap([0.6, 0.7, 0.8, 0.5], student, teacher).value, 3)
        0.5
    """
    how = resampling or Resampling()
    columns, kept_groups = _keep_complete([values, student, teacher], groups)
    kd, alone, better = columns
    gap = paired_difference(better, alone, groups=kept_groups, resampling=how)
    nothing = Estimate(value=np.nan, low=np.nan, high=np.nan, n_cases=gap.n_cases, n_groups=gap.n_groups)
    reason = _why_no_gap(gap)
    if reason:
        return replace(nothing, reason=reason)
    value = float((kd.mean() - alone.mean()) / gap.value)
    low, high = _interval(_group_sums(columns, kept_groups), _share, value, how)
    return replace(nothing, value=value, low=low, high=high)


def _why_no_gap(gap: Difference) -> str:
    if gap.reason:
        return gap.reason
    if not np.isfinite([gap.low, gap.high]).all():
        return "the gap between teacher and student has no interval: fewer than two cases"
    if gap.low <= 0 <= gap.high:
        return f"the interval of the gap between teacher and student, {gap.low:.4g} to {gap.high:.4g}, contains 0"
    return ""


def average_runs(runs: ArrayLike) -> Floats:
    """Average repeated runs of an arm case by case.

    Args:
        runs: ``(n_runs, ...)``, the same cases in every run. A value that is missing in some
            runs is the mean of the others.

    Returns:
        The shape of one run.
    """
    array = np.asarray(runs, dtype=np.float64)
    present = np.isfinite(array)
    count = present.sum(axis=0)
    total = np.where(present, array, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def run_spread(runs: ArrayLike) -> RunSpread:
    """Describe the means over cases of each run.

    Args:
        runs: ``(n_runs, n_cases)``.
    """
    array = np.asarray(runs, dtype=np.float64)
    means = average_runs(array.T)
    deviation = float(np.std(means, ddof=1)) if len(means) > 1 else float("nan")
    return RunSpread(means=tuple(map(float, means)), standard_deviation=deviation)

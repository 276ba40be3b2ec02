"""The numbers of a comparison: every arm on its own, against the baseline, and on the way to the teacher."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from nnunet_kd.evaluation.arms import FOREGROUND, ArmScores
from nnunet_kd.evaluation.statistics import (
    Difference,
    Estimate,
    Floats,
    Resampling,
    RunSpread,
    mean_with_interval,
    paired_difference,
    run_spread,
    share_of_gap,
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm, structure and metric.

    Attributes:
        arm: Name of the arm.
        structure: Name of the structure or :data:`~nnunet_kd.evaluation.arms.FOREGROUND`.
        metric: Name of the metric.
        mean: Over cases, of the mean over runs.
        spread: Of the runs' means.
        difference: To the baseline, case by case; none for the baseline itself.
        share: Of the gap between baseline and teacher; none without a teacher and for these two.
    """

    arm: str
    structure: str
    metric: str
    mean: Estimate
    spread: RunSpread
    difference: Difference | None
    share: Estimate | None


def structures_of(arms: Mapping[str, ArmScores]) -> tuple[str, ...]:
    """Return what is tabulated: the mean over structures first, where there are several, then each."""
    names = next(iter(arms.values())).runs[0].structures
    return (FOREGROUND, *names) if len(names) > 1 else names


@dataclass(frozen=True, kw_only=True)
class _Setting:
    baseline: str
    teacher: str | None
    groups: Sequence[Hashable] | None
    resampling: Resampling


def _scores(arms: Mapping[str, ArmScores], arm: str | None, structure: str, metric: str) -> Floats | None:
    if arm is None or metric not in arms[arm].metrics:
        return None
    return arms[arm].per_case(structure, metric)


def _row(arms: Mapping[str, ArmScores], arm: str, structure: str, metric: str, setting: _Setting) -> Row:
    how: dict[str, Any] = {"groups": setting.groups, "resampling": setting.resampling}
    own = arms[arm].per_case(structure, metric)
    base = _scores(arms, setting.baseline, structure, metric)
    top = _scores(arms, setting.teacher, structure, metric)
    difference = share = None
    if base is not None and arm != setting.baseline:
        difference = paired_difference(own, base, **how)
        if top is not None and arm != setting.teacher:
            share = share_of_gap(own, base, top, **how)
    return Row(
        arm=arm,
        structure=structure,
        metric=metric,
        mean=mean_with_interval(own, **how),
        spread=run_spread(arms[arm].by_run(structure, metric)),
        difference=difference,
        share=share,
    )


def analyse(
    arms: Mapping[str, ArmScores],
    *,
    baseline: str,
    teacher: str | None,
    groups: Sequence[Hashable] | None = None,
    resampling: Resampling | None = None,
) -> list[Row]:
    """Compute every row, by metric, then structure, then arm.

    Args:
        arms: All over the same cases.
        baseline: Arm that differences are to.
        teacher: Arm at the far end of the gap that starts at the baseline.
        groups: The patient of each case; patients are resampled instead of cases.
        resampling: How intervals are made.
    """
    keys = [
        (structure, metric, arm)
        for metric in dict.fromkeys(name for scores in arms.values() for name in scores.metrics)
        for structure in structures_of(arms)
        for arm in arms
        if metric in arms[arm].metrics
    ]
    setting = _Setting(
        baseline=baseline,
        teacher=None if teacher == baseline else teacher,
        groups=groups,
        resampling=resampling or Resampling(),
    )
    return [
        _row(arms, arm, structure, metric, setting) for structure, metric, arm in tqdm(keys, "intervals", unit="row")
    ]

"""Table and picture of the KD-MRI benchmark: patients are resampled, the published numbers stand beside."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study_report import PAGE, replace_marked

from nnunet_kd.evaluation.statistics import (
    average_runs,
    mean_with_interval,
    paired_difference,
    share_of_gap,
)
from nnunet_kd.figures import new_figure, save_figure

Arms = Mapping[str, Sequence[Mapping[str, Any]]]
CONTROL, TEACHER = "student", "teacher"
NEAR = 0.1  # dB


def values(runs: Sequence[Mapping[str, Any]], metric: str) -> NDArray[np.float64]:
    """Return a metric per run and volume, volumes by name."""
    return np.array([[run["scores"][case][metric] for case in sorted(run["scores"])] for run in runs])


def patients(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the patient of every volume."""
    return [case.split("_")[0] for case in sorted(runs[0]["scores"])]


def _interval(estimate: Any, *, signed: bool = False) -> str:  # noqa: ANN401  # Estimate or Difference
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.2f} [{estimate.low:{sign}.2f}, {estimate.high:{sign}.2f}]"


def _share(arms: Arms, arm: str) -> str:
    if arm in (CONTROL, TEACHER, "zero-filled") or TEACHER not in arms:
        return ""
    columns = [average_runs(values(arms[name], "PSNR")) for name in (arm, CONTROL, TEACHER)]
    found = share_of_gap(*columns, groups=patients(arms[arm]))
    return f"{found.value:.0%} [{found.low:.0%}, {found.high:.0%}]" if np.isfinite(found.value) else "no gap"


def row(arms: Arms, arm: str, acceleration: str, published: Mapping[str, str]) -> list[str]:
    """Return the cells of one arm."""
    own, groups = arms[arm], patients(arms[arm])
    psnr = values(own, "PSNR")
    cells = [f"{acceleration}x", arm, f"{own[0].get('parameters', 0):,}", str(len(own))]
    cells.append(_interval(mean_with_interval(average_runs(psnr), groups=groups)))
    cells.append(f"{values(own, 'SSIM').mean():.4f}")
    cells.append(", ".join(f"{run.mean():.2f}" for run in psnr))
    if arm != CONTROL and CONTROL in arms:
        found = paired_difference(average_runs(psnr), average_runs(values(arms[CONTROL], "PSNR")), groups=groups)
        cells += [_interval(found, signed=True), f"{found.p:.2g}"]
    else:
        cells += ["", ""]
    return [*cells, _share(arms, arm), published.get(arm, "")]


def table(found: Mapping[str, Arms], settings: Mapping[str, Any]) -> str:
    """Return the Markdown table."""
    head = ["R", "arm", "parameters", "seeds", "PSNR [dB, 95 % over patients]", "SSIM", "PSNR per seed"]
    head += ["minus student [dB, 95 %]", "p", "share of the gap", "published PSNR / SSIM"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for acceleration, arms in found.items():
        lines += [
            "| " + " | ".join(row(arms, arm, acceleration, settings["published"][acceleration])) + " |" for arm in arms
        ]
    return "\n".join(lines)


def draw(found: Mapping[str, Arms], path: Any) -> None:  # noqa: ANN401  # a Path
    """Draw the differences to the student alone: a dot per patient, the mean with its interval."""
    shown = {acceleration: arms for acceleration, arms in found.items() if CONTROL in arms and len(arms) > 2}
    figure = new_figure(figsize=(4.6 * max(1, len(shown)), 3.4))
    panels = figure.subplots(1, max(1, len(shown)), sharey=True, squeeze=False)[0]
    for axes, (acceleration, arms) in zip(panels, shown.items(), strict=True):
        names = [arm for arm in arms if arm not in (CONTROL, "zero-filled")][::-1]
        for y, arm in enumerate(names):
            _draw_arm(axes, arms, arm, y)
        axes.axvline(0, color="black", lw=0.8)
        # a random teacher costs a hundred times what the others gain
        axes.set_xscale("symlog", linthresh=NEAR, linscale=1.5)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.margins(x=0.08)
        axes.set_yticks(range(len(names)), names)
        axes.set_title(f"{acceleration}x; seeds: {len(arms[CONTROL])}", fontsize=11)
        axes.set_xlabel("PSNR minus the student's alone [dB]")
    words = f"dots: patients; diamonds: mean with 95 % interval over patients; logarithmic beyond {NEAR} dB"
    figure.suptitle(words, fontsize=10)
    save_figure(figure, path, dpi=130)


def _draw_arm(axes: Any, arms: Arms, arm: str, y: int) -> None:  # noqa: ANN401  # matplotlib has no types
    own, control = (average_runs(values(arms[name], "PSNR")) for name in (arm, CONTROL))
    groups = patients(arms[arm])
    estimate = paired_difference(own, control, groups=groups)
    each = [np.mean((own - control)[[g == name for g in groups]]) for name in dict.fromkeys(groups)]
    axes.plot(each, np.full(len(each), y + 0.18), "o", color="#0072B2", ms=4, alpha=0.6)
    error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    axes.errorbar(estimate.value, y, xerr=error, fmt="D", color="#D55E00", capsize=4, ms=6)


def write(found: Mapping[str, Arms], settings: Mapping[str, Any]) -> None:
    """Replace what stands between the markers in docs/benchmarks.md, and draw the picture."""
    draw(found, PAGE.parent / "images" / "kd_mri.png")
    body = f"{table(found, settings)}\n\n![kd_mri](images/kd_mri.png)"
    replace_marked("kd mri", body)
    print(body)

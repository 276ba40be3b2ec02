"""The table and the picture of the hippocampus benchmark, from its committed results."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study_report import PAGE, interval, replace_marked, scores

from nnunet_kd.evaluation.statistics import (
    average_runs,
    mean_with_interval,
    paired_difference,
    run_spread,
    share_of_gap,
)
from nnunet_kd.figures import new_figure, save_figure

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "hippocampus"
PICTURE = PAGE.parent / "images" / "hippocampus.png"
METHODS_PICTURE = PICTURE.with_name("hippocampus_methods.png")
SETTINGS: dict[str, Any] = json.loads((HERE / "hippocampus.json").read_text())
SCREENING_SEED = 0
ARMS = ("alone", "random teacher", "distilled", "distilled, ramp", "cached", "cached, three teachers")
COLOURS = {
    "teacher": "#000000",
    "alone": "#0072B2",
    "random teacher": "#999999",
    "distilled": "#D55E00",
    "distilled, ramp": "#CC79A7",
    "cached": "#009E73",
    "cached, three teachers": "#56B4E9",
}

Scores = NDArray[np.float64]  # (runs, cases)
Runs = Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]


def load() -> Runs:
    """Read every finished run, by arm and shrink factor, in the order of the seeds."""
    runs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for path in sorted(RESULTS.glob("*.json")):
        run = json.loads(path.read_text())
        runs.setdefault((run["arm"], run["shrink"]), []).append(run)
    return runs


def _row(arm: str, shrink: int, runs: Runs) -> str:
    own = runs[arm, shrink]
    mean = average_runs(scores(own))
    structures = " / ".join(f"{scores(own, s).mean():.4f}" for s in ("anterior", "posterior"))
    cells = [arm, str(shrink), str(len(own)), structures, interval(mean_with_interval(mean))]
    spread = run_spread(scores(own))
    cells.append(", ".join(f"{m:.4f}" for m in spread.means))
    if arm in ("alone", "teacher"):
        return "| " + " | ".join([*cells, "", "", ""]) + " |"
    control = _control(runs, arm, shrink)
    difference = paired_difference(mean, control)
    teacher = scores(runs["teacher", 1])[0]
    share = share_of_gap(mean, control, teacher)
    cells += [interval(difference, signed=True), f"{difference.p:.3g}", f"{100 * share.value:.0f} %"]
    return "| " + " | ".join(cells) + " |"


def table(runs: Runs) -> str:
    """Return the Markdown table."""
    columns = ("arm", "shrink", "seeds", "Dice anterior / posterior", "mean Dice [95 %]", "per seed")
    columns += ("against alone [95 %]", "p", "gap recovered")
    head = "| " + " | ".join(columns) + " |"
    rows = [_row("teacher", 1, runs)]
    rows += [_row(arm, shrink, runs) for shrink in (4, 8) for arm in ARMS if (arm, shrink) in runs]
    return "\n".join([head, "|" + "---|" * 9, *rows])


def findings(runs: Runs) -> str:
    """Say in words what the intervals say, a null result like a good one."""
    lines = []
    for arm, shrink in [(arm, shrink) for shrink in (4, 8) for arm in ARMS[2:] if (arm, shrink) in runs]:
        own, control = average_runs(scores(runs[arm, shrink])), _control(runs, arm, shrink)
        difference = paired_difference(own, control)
        clear = difference.low > 0 or difference.high < 0
        what = "changed" if clear else "did not measurably change"
        lines.append(
            f"- **{arm.capitalize()}, 1/{shrink}:** distillation {what} the mean Dice over {difference.n_cases} cases: "
            f"{interval(difference, signed=True)}, Wilcoxon p = {difference.p:.3g}."
        )
    return "\n".join(lines)


def draw(runs: Runs) -> None:
    """Draw the mean Dice per seed, its interval over cases, and the paired differences per case."""
    figure = new_figure(figsize=(11, 4.6))
    means, pairs = figure.subplots(1, 2, width_ratios=(1.15, 1))
    _draw_means(means, runs)
    _draw_differences(pairs, runs)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, PICTURE, dpi=130)


def _draw_means(axes: Any, runs: Runs) -> None:  # noqa: ANN401  # matplotlib's axes
    columns = [(arm, shrink) for shrink in (4, 8) for arm in ARMS if (arm, shrink) in runs]
    teacher = scores(runs["teacher", 1]).mean()
    means = {column: scores(runs[column]).mean(axis=1) for column in columns}
    # a random teacher lies far below; it is named at the lower edge, so that the other arms can be told apart
    bottom = min(values.min() for (arm, _), values in means.items() if arm != "random teacher") - 0.02
    for x, (arm, shrink) in enumerate(columns):
        estimate = mean_with_interval(average_runs(scores(runs[arm, shrink])))
        if estimate.value < bottom:
            axes.text(x, bottom + 0.001, f"{estimate.value:.3f}\n↓", ha="center", va="bottom", color="#666666")
            continue
        error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.errorbar(x, estimate.value, error, fmt="_", ms=22, color=COLOURS[arm], capsize=4, lw=1.5)
        values = means[arm, shrink]
        offsets = np.linspace(-0.12, 0.12, len(values)) if len(values) > 1 else np.zeros(1)
        axes.plot(x + offsets, values, "o", color=COLOURS[arm], ms=5, alpha=0.8)
    axes.axhline(teacher, color="black", ls="--", lw=1)
    axes.text(-0.3, teacher + 0.001, "teacher", va="bottom")
    axes.set_ylim(bottom, teacher + 0.01)
    axes.set_xticks(range(len(columns)), [_stacked(arm, shrink) for arm, shrink in columns], fontsize=9)
    axes.set_ylabel("mean Dice, 40 test cases")
    axes.set_title("dots: seeds; bars: 95 % interval over cases", fontsize=10)


def _stacked(arm: str, shrink: int) -> str:
    words = arm.replace(" ", "\n")
    return f"{words}\n1/{shrink}"


def _draw_differences(axes: Any, runs: Runs) -> None:  # noqa: ANN401
    rows = [(arm, shrink) for shrink in (8, 4) for arm in ARMS[2:] if (arm, shrink) in runs]
    for y, (arm, shrink) in enumerate(rows):
        own, control = average_runs(scores(runs[arm, shrink])), _control(runs, arm, shrink)
        difference = paired_difference(own, control)
        jitter = np.random.default_rng(0).uniform(-0.18, 0.18, len(own))
        axes.plot(own - control, y + jitter, ".", color=COLOURS[arm], alpha=0.45)
        error = [[difference.value - difference.low], [difference.high - difference.value]]
        axes.errorbar(difference.value, y, xerr=error, fmt="D", color="black", capsize=4, ms=5)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), [f"{arm}\n1/{shrink}" for arm, shrink in rows], fontsize=9)
    axes.set_xlabel("Dice against the same student alone, per case")
    axes.set_title("diamonds: mean with 95 % interval", fontsize=10)


def _control(runs: Runs, arm: str, shrink: int) -> NDArray[np.float64]:
    """Average the student alone over the seeds that the arm has too."""
    seeds = {run["seed"] for run in runs[arm, shrink]}
    return average_runs(scores([run for run in runs["alone", shrink] if run["seed"] in seeds]))


def write() -> None:
    """Replace the marked parts of docs/benchmarks.md."""
    runs = load()
    body = f"{findings(runs)}\n\n{table(runs)}\n\n![hippocampus](images/hippocampus.png)"
    replace_marked("hippocampus", body)
    draw(runs)
    print(body)
    if methods(runs):
        body = f"{method_table(runs)}\n\n![methods](images/hippocampus_methods.png)"
        replace_marked("hippocampus methods", body)
        draw_methods(runs)
        print(body)


# ---- the screening of methods ----


def methods(runs: Runs) -> list[tuple[str, Any, int]]:
    """Return the methods that have runs, their difference from the control and their seeds, best first."""
    shrink = SETTINGS["methods"]["shrink"]
    found = []
    for name in ("distilled, ramp", *SETTINGS["methods"]["screened"]):
        if (name, shrink) in runs:
            own = average_runs(scores(runs[name, shrink]))
            difference = paired_difference(own, _control(runs, name, shrink))
            found.append((name, difference, len(runs[name, shrink])))
    return sorted(found, key=lambda row: -row[1].value)


def method_table(runs: Runs) -> str:
    """Return the Markdown table of the methods."""
    shrink = SETTINGS["methods"]["shrink"]
    lines = [
        "| method | seeds | mean Dice | against alone, same seeds [95 %] | p | without the seed that chose it [95 %] "
        "| seconds per run |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, difference, n_seeds in methods(runs):
        own = runs[name, shrink]
        seconds = np.mean([run["seconds"] for run in own])
        cells = [_shown(name), str(n_seeds), f"{scores(own).mean():.4f}", interval(difference, signed=True)]
        cells += [f"{difference.p:.3g}", _unselected(runs, name), f"{seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _unselected(runs: Runs, name: str) -> str:
    """Show the difference over the seeds that did not choose a method: the screening's own seed flatters the best."""
    shrink = SETTINGS["methods"]["shrink"]
    kept = [run for run in runs[name, shrink] if run["seed"] != SCREENING_SEED]
    if not kept:
        return ""
    own = average_runs(scores(kept))
    return interval(paired_difference(own, _control({**runs, (name, shrink): kept}, name, shrink)), signed=True)


def _shown(method: str) -> str:
    return "kd" if method == "distilled, ramp" else method


def draw_methods(runs: Runs) -> None:
    """Draw the paired difference of every method with its interval; filled where there are three seeds."""
    rows = methods(runs)[::-1]
    figure = new_figure(figsize=(8, 0.34 * len(rows) + 1.2))
    axes = figure.subplots()
    for y, (_, difference, n_seeds) in enumerate(rows):
        error = [[difference.value - difference.low], [difference.high - difference.value]]
        fill = "#D55E00" if n_seeds > 1 else "white"
        axes.errorbar(difference.value, y, xerr=error, fmt="D", mfc=fill, color="#D55E00", capsize=3, ms=6)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(rows)), [f"{_shown(name)}  ({n})" for name, _, n in rows])
    axes.set_ylabel("method  (seeds)")
    axes.set_xlabel("mean Dice against the same student alone, same seeds; 95 % interval over 40 cases")
    save_figure(figure, METHODS_PICTURE, dpi=130)

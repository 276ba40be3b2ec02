"""Table and picture of a benchmark's arms against its control, written into docs/benchmarks.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.statistics import average_runs, mean_with_interval, paired_difference

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"

Runs = Mapping[str, Sequence[Mapping[str, Any]]]


def load(results: Path, arms: Sequence[str]) -> Runs:
    """Read every finished run by arm, arms in the given order, runs in the order of their seeds."""
    found: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in arms}
    for path in sorted(results.glob("*.json")):
        run = json.loads(path.read_text())
        if run["arm"] in found:
            found[run["arm"]].append(run)
    return {arm: sorted(runs, key=lambda run: int(run["seed"])) for arm, runs in found.items() if runs}


def scores(runs: Sequence[Mapping[str, Any]], structure: str | None = None) -> NDArray[np.float64]:
    """Return Dice per run and case; without a structure the mean over all."""
    cases = sorted(runs[0]["dice"])
    names = list(runs[0]["dice"][cases[0]]) if structure is None else [structure]
    return np.array([[np.mean([run["dice"][case][name] for name in names]) for case in cases] for run in runs])


def matched(runs: Runs, arm: str, control: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the scores per case of an arm and of its control, averaged over the seeds that both have."""
    seeds = {run["seed"] for run in runs[arm]} & {run["seed"] for run in runs[control]}
    own, other = ([run for run in runs[name] if run["seed"] in seeds] for name in (arm, control))
    return average_runs(scores(own)), average_runs(scores(other))


def interval(estimate: Any, *, signed: bool = False) -> str:  # noqa: ANN401  # Estimate or Difference
    """Show an estimate with its interval."""
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"


def table(runs: Runs, control: str) -> str:
    """Return the Markdown table, every arm against the control over the seeds both have."""
    structures = list(next(iter(next(iter(runs.values()))[0]["dice"].values())))
    head = ("arm", "parameters", "seeds", f"Dice {' / '.join(structures)}", "mean Dice [95 %]", "per seed")
    lines = ["| " + " | ".join((*head, f"against {control}, same seeds [95 %]", "p", "seconds per run")) + " |"]
    lines.append("|" + "---|" * 9)
    for arm, own in runs.items():
        cells = [arm, f"{own[0]['parameters']:,}", str(len(own))]
        cells.append(" / ".join(f"{scores(own, structure).mean():.4f}" for structure in structures))
        cells.append(interval(mean_with_interval(average_runs(scores(own)))))
        cells.append(", ".join(f"{run.mean():.4f}" for run in scores(own)))
        if arm == control or not {run["seed"] for run in own} & {run["seed"] for run in runs[control]}:
            cells += ["", ""]
        else:
            difference = paired_difference(*matched(runs, arm, control))
            cells += [interval(difference, signed=True), f"{difference.p:.3g}"]
        lines.append("| " + " | ".join([*cells, f"{np.mean([run['seconds'] for run in own]):.0f}"]) + " |")
    return "\n".join(lines)


def draw(runs: Runs, control: str, path: Path) -> None:
    """Draw every arm: dots are seeds, bars the 95 % interval over cases; right, the paired differences."""
    from matplotlib.figure import Figure

    arms = list(runs)[::-1]
    figure = Figure(figsize=(10, 0.5 * len(arms) + 1.4), layout="constrained")
    means, pairs = figure.subplots(1, 2, sharey=True)
    for y, arm in enumerate(arms):
        own = scores(runs[arm])
        estimate = mean_with_interval(average_runs(own))
        error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        means.errorbar(estimate.value, y, xerr=error, fmt="|", ms=14, color="#0072B2", capsize=3)
        means.plot(own.mean(axis=1), y + np.linspace(-0.12, 0.12, len(own)), "o", color="#D55E00", ms=4)
        if arm != control and {run["seed"] for run in runs[arm]} & {run["seed"] for run in runs[control]}:
            difference = paired_difference(*matched(runs, arm, control))
            error = [[difference.value - difference.low], [difference.high - difference.value]]
            fill = "#D55E00" if len(runs[arm]) > 1 else "white"
            pairs.errorbar(difference.value, y, xerr=error, fmt="D", mfc=fill, color="#D55E00", capsize=3, ms=6)
    means.set_yticks(range(len(arms)), [f"{arm}  ({len(runs[arm])})" for arm in arms])
    means.set_xlabel("mean Dice; dots: seeds, bar: 95 % interval over cases")
    pairs.axvline(0, color="black", lw=0.8)
    pairs.set_xlabel(f"against {control}, same seeds; hollow: one seed")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def write(name: str, runs: Runs, control: str) -> None:
    """Replace what stands between a benchmark's markers in docs/benchmarks.md, and draw its picture."""
    picture = PAGE.parent / "images" / f"{name}.png"
    draw(runs, control, picture)
    body = f"{table(runs, control)}\n\n![{name}](images/{name}.png)"
    replace_marked(name.replace("_", " "), body)
    print(body)


def replace_marked(name: str, body: str) -> None:
    """Replace what stands between the markers of a name in docs/benchmarks.md."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = PAGE.read_text().split(begin)
    _, tail = rest.split(end)
    PAGE.write_text(f"{head}{begin}\n{body}\n{end}{tail}")

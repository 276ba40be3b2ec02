"""Table and picture of a benchmark's arms against their controls, written into docs/benchmarks.md."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.evaluation.statistics import Difference, average_runs, mean_with_interval, paired_difference
from nnunet_kd.figures import new_figure, save_figure

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


def against(runs: Runs, arm: str, control: str) -> Difference | None:
    """Return the paired difference of an arm to its control over the seeds that both have; ``None`` without any."""
    seeds = {run["seed"] for run in runs[arm]} & {run["seed"] for run in runs.get(control, ())}
    if arm == control or not seeds:
        return None
    own, other = ([run for run in runs[name] if run["seed"] in seeds] for name in (arm, control))
    return paired_difference(average_runs(scores(own)), average_runs(scores(other)))


def interval(estimate: Any, *, signed: bool = False) -> str:  # noqa: ANN401  # Estimate or Difference
    """Show an estimate with its interval."""
    sign = "+" if signed else ""
    return f"{estimate.value:{sign}.4f} [{estimate.low:{sign}.4f}, {estimate.high:{sign}.4f}]"


def table(runs: Runs, controls: Mapping[str, str]) -> str:
    """Return the Markdown table, every arm against its control over the seeds both have."""
    structures = list(next(iter(next(iter(runs.values()))[0]["dice"].values())))
    head = ("arm", "parameters", "seeds", f"Dice {' / '.join(structures)}", "mean Dice [95 %]", "per seed")
    head += ("against", "difference, same seeds [95 %]", "p", "seconds per run")
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for arm, own in runs.items():
        cells = [arm, f"{own[0]['parameters']:,}", str(len(own))]
        cells.append(" / ".join(f"{scores(own, structure).mean():.4f}" for structure in structures))
        cells.append(interval(mean_with_interval(average_runs(scores(own)))))
        cells.append(", ".join(f"{run.mean():.4f}" for run in scores(own)))
        found = against(runs, arm, controls[arm])
        cells += [controls[arm], interval(found, signed=True), f"{found.p:.3g}"] if found else ["", "", ""]
        lines.append("| " + " | ".join([*cells, f"{np.mean([run['seconds'] for run in own]):.0f}"]) + " |")
    return "\n".join(lines)


def draw(runs: Runs, controls: Mapping[str, str], path: Path) -> None:
    """Draw every arm: dots are seeds, bars the 95 % interval over cases; right, the paired differences."""
    arms = list(runs)[::-1]
    figure = new_figure(figsize=(12, 0.5 * len(arms) + 1.4))
    means, pairs = figure.subplots(1, 2, sharey=True)
    for y, arm in enumerate(arms):
        own = scores(runs[arm])
        estimate = mean_with_interval(average_runs(own))
        error = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        means.errorbar(estimate.value, y, xerr=error, fmt="|", ms=14, color="#0072B2", capsize=3)
        means.plot(own.mean(axis=1), y + np.linspace(-0.12, 0.12, len(own)), "o", color="#D55E00", ms=4)
        if difference := against(runs, arm, controls[arm]):
            error = [[difference.value - difference.low], [difference.high - difference.value]]
            fill = "#D55E00" if len(runs[arm]) > 1 else "white"
            pairs.errorbar(difference.value, y, xerr=error, fmt="D", mfc=fill, color="#D55E00", capsize=3, ms=6)
    means.set_yticks(range(len(arms)), [f"{arm}  ({len(runs[arm])})" for arm in arms])
    means.set_xlabel("mean Dice")
    pairs.axvline(0, color="black", lw=0.8)
    pairs.set_xlabel("paired difference, same seeds")
    pairs.locator_params(axis="x", nbins=5)
    beside = pairs.secondary_yaxis("right")
    beside.set_yticks(range(len(arms)), ["" if arm == controls[arm] else f"to {controls[arm]}" for arm in arms])
    figure.suptitle("dots: seeds (their number); bars: 95 % interval over cases; hollow: one seed", fontsize="medium")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, dpi=130)


def write(name: str, runs: Runs, settings: Mapping[str, Any]) -> None:
    """Replace what stands between a benchmark's markers in docs/benchmarks.md, and draw its picture.

    Args:
        name: Of the benchmark.
        runs: Finished runs by arm.
        settings: Of the benchmark; an arm is compared with ``against`` where it has one, else with ``control``.
    """
    controls = {arm: settings["arms"][arm].get("against", settings["control"]) for arm in runs}
    draw(runs, controls, PAGE.parent / "images" / f"{name}.png")
    body = f"{table(runs, controls)}\n\n![{name}](images/{name}.png)"
    replace_marked(name.replace("_", " "), body)
    print(body)


def replace_marked(name: str, body: str) -> None:
    """Replace what stands between the markers of a name in docs/benchmarks.md."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = PAGE.read_text().split(begin)
    _, tail = rest.split(end)
    PAGE.write_text(f"{head}{begin}\n{body}\n{end}{tail}")

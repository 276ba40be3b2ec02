"""Tables and picture of the deployment benchmark, from its finished rounds."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from deployment_measure import CT_STUDENTS, HIPPOCAMPUS_STUDENTS, STOCK, TEACHER
from numpy.typing import NDArray
from study_report import PAGE, interval, replace_marked

from nnunet_kd.evaluation.statistics import mean_with_interval, paired_difference
from nnunet_kd.figures import new_figure, save_figure

Round = Mapping[str, Any]
PICTURE = "deployment.png"
N_MIRRORS = 8
MIRRORED = f"teacher, nnU-Net, {N_MIRRORS} mirrors (extrapolated)"
_OTHER, _OURS, _GUESSED = "#0072B2", "#D55E00", "#999999"
_EMPTY = ("", "", "")


def load(results: Path, part: str) -> list[Round]:
    """Read the finished rounds of a part in order."""
    rounds = [json.loads(path.read_text()) for path in results.glob(f"{part}_round*.json")]
    return sorted(rounds, key=lambda found: int(found["round"]))


def values(rounds: Sequence[Round], name: str, key: str) -> list[float]:
    """Return a figure of a command in every round."""
    return [float(found["commands"][name][key]) for found in rounds]


def ratios(rounds: Sequence[Round], first: str, second: str, key: str = "seconds") -> list[float]:
    """Return a command's figure over another's, round by round."""
    return [a / b for a, b in zip(values(rounds, first, key), values(rounds, second, key), strict=True)]


def spread(numbers: Sequence[float], digits: int) -> str:
    """Show median and range.

    Example:
        >>> spread([3.0, 1.0, 2.0], 1)
        '2.0 [1.0, 3.0]'
    """
    middle, low, high = (f"{number:.{digits}f}" for number in (median(numbers), min(numbers), max(numbers)))
    return middle if len(numbers) == 1 else f"{middle} [{low}, {high}]"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def times_table(rounds: Sequence[Round]) -> str:
    """Return seconds of whole commands on the real cases, and ratios within each round."""
    head = ("command, network", "seconds", "teacher / it", "student, nnU-Net / it", "peak memory [MB]", "model [MB]")
    rows = [
        [
            name,
            spread(values(rounds, name, "seconds"), 2),
            "" if name == TEACHER else spread(ratios(rounds, TEACHER, name), 1),
            spread(ratios(rounds, STOCK, name), 1) if name in HIPPOCAMPUS_STUDENTS else "",
            f"{max(values(rounds, name, 'peak_megabytes')):.0f}",
            f"{values(rounds, name, 'megabytes')[0]:.2f}",
        ]
        for name in rounds[0]["commands"]
    ]
    return _table(head, rows)


def case_dice(found: Round, name: str) -> NDArray[np.float64]:
    """Return the mean Dice over structures of each case, cases by name."""
    dice = found["commands"][name]["dice"]
    return np.array([np.mean(list(dice[case].values())) for case in sorted(dice)])


def scores_table(found: Round) -> str:
    """Return Dice and agreement of every command, paired over the cases."""
    structures = list(next(iter(found["commands"][TEACHER]["dice"].values())))
    head = ["command, network", f"Dice {' / '.join(structures)}", "mean Dice [95 %]", "against the teacher [95 %]", "p"]
    head += ["against student, nnU-Net [95 %]", "voxels as that one's", "in the worst case"]
    rows = []
    for name, command in found["commands"].items():
        own = case_dice(found, name)
        each = [np.mean([case[structure] for case in command["dice"].values()]) for structure in structures]
        cells = [name, " / ".join(f"{value:.4f}" for value in each), interval(mean_with_interval(own))]
        if name == TEACHER:
            cells += ["", ""]
        else:
            to_teacher = paired_difference(own, case_dice(found, TEACHER))
            cells += [interval(to_teacher, signed=True), f"{to_teacher.p:.2g}"]
        same = command["as_stock_student"]
        if same:
            to_stock = paired_difference(own, case_dice(found, STOCK))
            cells += [interval(to_stock, signed=True), _percent(same["equal"]), _percent(same["worst_case"])]
        else:
            cells += _EMPTY
        rows.append(cells)
    return _table(head, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.4f} %"


def mirrored_seconds(rounds: Sequence[Round]) -> list[float]:
    """Return what the teacher would take with eight mirrors: the network's part eight times, the rest once."""
    return [
        found["commands"][TEACHER]["seconds"] + (N_MIRRORS - 1) * found["commands"][TEACHER]["network"][1]
        for found in rounds
    ]


def ct_table(rounds: Sequence[Round]) -> str:
    """Return seconds and memory on the volume of the size of a CT scan."""
    head = ("command, network", "seconds", "teacher / it", "student, nnU-Net / it", "peak memory [MB]")
    head += ("memory, of student, nnU-Net", "voxels as student, nnU-Net")
    rows = []
    if all(found["commands"][TEACHER]["network"] for found in rounds):
        rows.append([MIRRORED, spread(mirrored_seconds(rounds), 1), *[""] * 5])
    for name, command in rounds[0]["commands"].items():
        same = command["as_stock_student"]
        ours = name in CT_STUDENTS
        rows.append(
            [
                name,
                spread(values(rounds, name, "seconds"), 1),
                "" if name == TEACHER else spread(ratios(rounds, TEACHER, name), 1),
                spread(ratios(rounds, STOCK, name), 1) if ours else "",
                spread(values(rounds, name, "peak_megabytes"), 0),
                spread(ratios(rounds, name, STOCK, "peak_megabytes"), 2) if ours else "",
                _percent(same["equal"]) if same else "",
            ]
        )
    return _table(head, rows)


def conditions(rounds: Sequence[Round]) -> str:
    """Say on what and how often it was measured, and how busy the machine was."""
    last = rounds[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    loads = ", ".join(f"{found['load']:.1f}" for found in rounds)
    return (
        f"Medians [ranges] of {len(rounds)} rounds, ratios within a round; load before each: {loads}. "
        f"{last['hardware']}; {versions}."
    )


def _hippocampus(rounds: Sequence[Round]) -> str:
    return "\n\n".join([times_table(rounds), scores_table(rounds[0]), conditions(rounds)])


def _ct(rounds: Sequence[Round]) -> str:
    return "\n\n".join([ct_table(rounds), conditions(rounds)])


SECTIONS: dict[str, tuple[str, Callable[[Sequence[Round]], str]]] = {
    "hippocampus": ("deployment", _hippocampus),
    "ct": ("deployment ct", _ct),
}


def planner_table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return what the planner predicted for each budget beside what the trained student took."""
    head = (
        "budget [s]",
        "student",
        "parameters",
        "predicted [s]",
        "measured [s]",
        "measured / predicted",
        "start-up [s]",
    )
    rows = []
    for each in sorted(found, key=lambda each: -float(each["budget"])):
        predicted, case = each["predicted"], each["measured"]["case"]
        cells = [f"{each['budget']:g}", predicted["student"], f"{each['parameters']:,}", f"{predicted['seconds']:.4f}"]
        cells.append(f"{case['median']:.4f} [{case['low']:.4f}, {case['high']:.4f}]")
        cells.append(f"{case['median'] / predicted['seconds']:.2f}")
        rows.append([*cells, f"{each['measured']['start_up']['median']:.2f}"])
    n = found[0]["measured"]["case"]["n"]
    note = f"Medians [quartiles] of {n} predictions of the planner's case in new processes. {found[0]['hardware']}."
    return f"{_table(head, rows)}\n\n{note}"


def draw(parts: Mapping[str, Sequence[Round]], path: Path) -> None:
    """Draw seconds of both parts and the memory of the large volume; black: range over rounds."""
    panels = [(part, key) for part in parts for key in ("seconds", "peak_megabytes")]
    figure = new_figure(figsize=(13, 0.4 + 2.4 * len(parts)))
    axes = figure.subplots(len(parts), 2, squeeze=False)
    titles = {"hippocampus": "hippocampus, {n_cases} cases", "ct": "CT-sized volume, no mirroring"}
    for axis, (part, key) in zip(axes.flat, panels, strict=True):
        rounds = parts[part]
        bars = {name: values(rounds, name, key) for name in rounds[0]["commands"]}
        if part == "ct" and key == "seconds" and all(found["commands"][TEACHER]["network"] for found in rounds):
            bars = {MIRRORED: mirrored_seconds(rounds), **bars}
        _bars(axis, bars, logarithmic=key == "seconds")
        axis.set_title(titles[part].format(**rounds[0]), loc="left", fontsize="medium")
        axis.set_xlabel("seconds of the whole command (logarithmic)" if key == "seconds" else "peak memory [MB]")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path, dpi=130)


def _bars(axis: Any, bars: Mapping[str, Sequence[float]], *, logarithmic: bool) -> None:  # noqa: ANN401  # untyped
    """Draw bars, or dots on a logarithmic axis, which has no origin for bars to start from."""
    for row, (name, numbers) in enumerate(bars.items()):
        middle = median(numbers)
        colour = _GUESSED if name == MIRRORED else _OTHER if "nnU-Net" in name else _OURS
        error = [[middle - min(numbers)], [max(numbers) - middle]]
        if logarithmic:
            axis.errorbar(middle, row, xerr=error, fmt="o", ms=9, color=colour, ecolor="black", capsize=4)
        else:
            axis.barh(row, middle, color=colour, xerr=error, capsize=4)
        text = f"{middle:.3g} s" if logarithmic else f"{middle:.0f}"
        axis.annotate(text, (max(numbers), row), (8, 0), va="center", textcoords="offset points")
    axis.set_yticks(range(len(bars)), list(bars))
    axis.set_ylim(len(bars) - 0.4, -0.6)
    axis.spines[["top", "right"]].set_visible(False)
    if logarithmic:
        axis.set_xscale("log")
        axis.grid(axis="x", which="both", color="#DDDDDD", lw=0.6)
        axis.set_axisbelow(True)
    axis.margins(x=0.2)


def write(results: Path, *, into_docs: bool) -> None:
    """Print the tables and draw the picture of what is measured.

    Args:
        results: Folder of results.
        into_docs: Replace what docs/benchmarks.md has, and its picture; else the picture goes into ``results``.
    """
    parts = {part: rounds for part in SECTIONS if (rounds := load(results, part))}
    planned = [json.loads(path.read_text()) for path in results.glob("planner_*.json")]
    if not parts and not planned:
        raise SystemExit(f"nothing is measured in {results} yet; type: python benchmarks/deployment.py run")
    bodies = {SECTIONS[part][0]: SECTIONS[part][1](rounds) for part, rounds in parts.items()}
    if parts:
        draw(parts, (PAGE.parent / "images" if into_docs else results) / PICTURE)
        bodies[SECTIONS[next(iter(parts))][0]] += f"\n\n![deployment](images/{PICTURE})"
    if planned:
        bodies["deployment planner"] = planner_table(planned)
    for marker, body in bodies.items():
        if into_docs:
            replace_marked(marker, body)
        print(f"{body}\n")

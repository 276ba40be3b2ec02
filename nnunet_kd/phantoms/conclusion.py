"""What a demo has shown, in plain words."""

import json
from collections.abc import Mapping
from typing import Any

from nnunet_kd.phantoms.demo import ARMS
from nnunet_kd.phantoms.demo_folder import DemoFolder


def conclusion(folder: DemoFolder) -> str:
    """Return the table, one verdict, and the places of report and plot."""
    content = json.loads((folder.report / "report.json").read_text(encoding="utf-8"))
    steps = folder.state["n_steps"]
    minutes = sum(folder.finished.values()) / 60
    return "\n".join(
        [
            "",
            *table(content),
            "",
            verdict(content),
            f"This was a short schedule on a CPU: {steps['teacher']} training steps for the teacher and "
            f"{steps['students']} for each student, where nnU-Net takes 250000. It shows the way, not what the method "
            "can reach.",
            f"{minutes:.1f} minutes. Report: {folder.report / 'report.md'}, plot: {folder.report / 'comparison.png'}",
        ]
    )


def table(content: Mapping[str, Any]) -> list[str]:
    """Return one line per arm: parameters and mean Dice with its interval."""
    lines = [f"{'':<12}{'parameters':>12}{'Dice':>8}   95 % interval over {len(content['cases'])} held-out cases"]
    for arm in ARMS:
        mean = _row(content, arm)["mean"]
        parameters = content["costs"][arm]["parameters"]
        lines.append(f"{arm:<12}{parameters:>12,}{mean['value']:>8.3f}   {mean['low']:.3f} to {mean['high']:.3f}")
    return lines


def verdict(content: Mapping[str, Any]) -> str:
    """Say whether distillation gained anything, and no more than the interval allows."""
    row = _row(content, "distilled")
    gain, low, high = (row["difference"][key] for key in ("value", "low", "high"))
    seen = f"{gain:+.3f} Dice against the same student alone (95 % interval {low:+.3f} to {high:+.3f})"
    if low > 0:
        return f"Distillation helped: {seen}{_share_of_gap(content)}."
    if high < 0:
        return f"Distillation did harm here: {seen}."
    return f"No gain from distillation can be told from chance here: {seen}."


def _share_of_gap(content: Mapping[str, Any]) -> str:
    share = _row(content, "distilled")["share"]
    if share is None or share["value"] is None:  # there is none where the teacher is no better
        return ""
    times = content["costs"]["teacher"]["parameters"] / content["costs"]["distilled"]["parameters"]
    return f", {100 * share['value']:.0f} % of the way to its {times:.0f} times larger teacher"


def _row(content: Mapping[str, Any], arm: str) -> Mapping[str, Any]:
    """Return the row of the mean Dice over structures, or of the only structure."""
    rows = [row for row in content["rows"] if row["arm"] == arm and row["metric"] == "dice"]
    found: Mapping[str, Any] = rows[0]  # the headline comes first
    return found

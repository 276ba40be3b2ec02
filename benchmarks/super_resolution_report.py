"""Table and picture of super-resolution on one subject: description slice by slice, no interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recon_study import TEACHER, ZERO_FILLED
from study_report import PAGE, replace_marked

from nnunet_kd.figures import new_figure, save_figure

Arms = Mapping[str, Sequence[Mapping[str, Any]]]
CONTROL = "student"


def volume(runs: Sequence[Mapping[str, Any]], metric: str) -> NDArray[np.float64]:
    """Return a metric of the volume, per run."""
    return np.array([run["scores"]["volume"][metric] for run in runs])


def slices(runs: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return the PSNR of every slice, mean over runs."""
    return np.array([run["scores"]["PSNR of slices"] for run in runs]).mean(axis=0)


def row(arms: Arms, arm: str, trained_on: str, published: Mapping[str, str]) -> list[str]:
    """Return the cells of one arm."""
    own = arms[arm]
    psnr = volume(own, "PSNR")
    cells = [trained_on, arm, f"{own[0]['parameters']:,}" if "parameters" in own[0] else "", str(len(own))]
    cells += [f"{psnr.mean():.2f}", f"{volume(own, 'SSIM').mean():.4f}", ", ".join(f"{value:.2f}" for value in psnr)]
    if arm == CONTROL or CONTROL not in arms:
        cells += ["", ""]
    else:
        difference = slices(own) - slices(arms[CONTROL])
        low, middle, high = np.percentile(difference, [0, 50, 100])
        cells.append(f"{middle:+.2f} ({low:+.2f} to {high:+.2f})")
        cells.append(f"{(difference > 0).sum()} of {difference.size}")
    return [*cells, published.get(arm, "")]


def table(found: Mapping[str, Arms], published: Mapping[str, str]) -> str:
    """Return the Markdown table."""
    head = ["trained on", "arm", "parameters", "seeds", "PSNR [dB]", "SSIM", "PSNR per seed"]
    head += ["slices minus student [dB], median (smallest to largest)", "slices above student"]
    head += ["published PSNR / SSIM"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    rows = [row(arms, arm, trained_on, published) for trained_on, arms in found.items() for arm in arms]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def draw(found: Mapping[str, Arms], path: Any) -> None:  # noqa: ANN401  # a Path
    """Draw the differences to the student alone over the slices, one line per arm."""
    shown = {trained_on: arms for trained_on, arms in found.items() if CONTROL in arms}
    figure = new_figure(figsize=(max(6.4, 4.6 * len(shown)), 3.8))
    panels = figure.subplots(1, max(1, len(shown)), squeeze=False)[0]
    colours = {TEACHER: "#0072B2", "student, distilled": "#D55E00", "student, random teacher": "#009E73"}
    for axes, (trained_on, arms) in zip(panels, shown.items(), strict=True):
        for arm, own in arms.items():
            if arm not in (CONTROL, ZERO_FILLED):
                difference = slices(own) - slices(arms[CONTROL])
                axes.plot(
                    range(1, difference.size + 1), difference, "o-", ms=3, lw=1, color=colours.get(arm), label=arm
                )
        axes.axhline(0, color="black", lw=0.8)
        axes.set_xlabel("slice of the test volume, from the feet")
        axes.set_title(f"trained on the {trained_on}; seeds: {len(arms[CONTROL])}", fontsize=10)
    panels[0].set_ylabel("PSNR minus that of\nthe student alone [dB]")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.suptitle("one subject", fontsize=11)
    save_figure(figure, path, dpi=130)


def write(found: Mapping[str, Arms], settings: Mapping[str, Any]) -> None:
    """Replace what stands between the markers in docs/benchmarks.md, and draw the picture."""
    draw(found, PAGE.parent / "images" / "super_resolution.png")
    body = f"{table(found, settings['published'])}\n\n![super resolution](images/super_resolution.png)"
    replace_marked("super resolution", body)
    print(body)

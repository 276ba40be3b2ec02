"""Tables, aims and picture of the benchmark at extreme accelerations."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from study_report import PAGE, replace_marked

from nnunet_kd.evaluation.statistics import average_runs, paired_difference
from nnunet_kd.figures import new_figure, save_figure

Arms = Mapping[str, Sequence[Mapping[str, Any]]]
BASELINE, UNET, TEXTURE = "baseline", "U-Net", "TextureNet"
ABLATION = ("one token, AdaIN", "tokens, AdaIN", "tokens, spatial", "+ attention", "+ high-pass proxy", TEXTURE)
ABLATED_AT = "8"
WITHIN = 0.1  # dB
GENERATED = ("mean", "sample")


def kinds(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which images an arm has: ``image``, or ``mean`` and ``sample``."""
    return list(next(iter(runs[0]["scores"].values())))


def values(runs: Sequence[Mapping[str, Any]], factor: str, kind: str, metric: str) -> NDArray[np.float64]:
    """Return a metric per run and volume, volumes by name."""
    found = [run["scores"][factor][kind] for run in runs]
    return np.array([[scores[case][metric] for case in sorted(scores)] for scores in found])


def patients(runs: Sequence[Mapping[str, Any]], factor: str, kind: str) -> list[str]:
    """Return the patient of every volume."""
    return [case.split("_")[0] for case in sorted(runs[0]["scores"][factor][kind])]


def label(arm: str, kind: str) -> str:
    """Return how an image of an arm is called."""
    return arm if kind == "image" else f"{arm}, {'mean of samples' if kind == 'mean' else 'one sample'}"


def difference(arms: Arms, factor: str, arm: str, kind: str) -> str:
    """Return PSNR minus the baseline's of the same seeds, paired over volumes, patients resampled."""
    seeds = {run["seed"] for run in arms[arm]} & {run["seed"] for run in arms.get(BASELINE, ())}
    if arm == BASELINE or not seeds:
        return ""
    own, other = (
        average_runs(values([run for run in arms[name] if run["seed"] in seeds], factor, which, "PSNR"))
        for name, which in ((arm, kind), (BASELINE, "image"))
    )
    found = paired_difference(own, other, groups=patients(arms[arm], factor, kind))
    return f"{found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def row(arms: Arms, factor: str, arm: str, kind: str) -> str:
    """Return one line of a table."""
    runs = arms[arm]
    psnr = values(runs, factor, kind, "PSNR").mean(axis=1)
    mean = {metric: values(runs, factor, kind, metric).mean() for metric in ("SSIM", "spectrum", "fine detail")}
    seeds = ", ".join(f"{value:.2f}" for value in psnr) if len(psnr) > 1 else ""
    cells = [f"{factor}x", label(arm, kind), f"{runs[0].get('parameters', 0):,}", f"{psnr.mean():.2f}", seeds]
    cells += [difference(arms, factor, arm, kind), f"{mean['SSIM']:.4f}", f"{mean['spectrum']:.2f}"]
    return "| " + " | ".join([*cells, f"{mean['fine detail']:+.2f}"]) + " |"


def table(arms: Arms, factors: Sequence[str], names: Sequence[str]) -> str:
    """Return a Markdown table of some arms."""
    head = ["R", "arm", "parameters", "PSNR [dB]", "per seed", "minus baseline, same seeds [dB, 95 %]", "SSIM"]
    head += ["distance of the power spectra [dB]", "fine detail [dB]"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    shown = [(arm, kind) for arm in names if arm in arms for kind in kinds(arms[arm])]
    return "\n".join([*lines, *(row(arms, factor, arm, kind) for factor in factors for arm, kind in shown)])


def _mean(arms: Arms, factor: str, arm: str, kind: str, metric: str) -> float:
    return float(values(arms[arm], factor, kind, metric).mean())


def aims(arms: Arms, factors: Sequence[str]) -> Iterator[str]:
    """Say of every aim whether it was met, with its numbers."""

    def line(text: str, *, met: bool) -> str:
        return f"- {'met' if met else '**missed**'}: {text}"

    if {BASELINE, UNET} <= set(arms):
        for factor in factors:
            gain = _mean(arms, factor, BASELINE, "image", "PSNR") - _mean(arms, factor, UNET, "image", "PSNR")
            yield line(f"baseline above U-Net at {factor}x, by {gain:+.2f} dB", met=gain > 0)
    if {BASELINE, TEXTURE} <= set(arms):
        own = {BASELINE: [run for run in arms[BASELINE] if run["seed"] == arms[TEXTURE][0]["seed"]]}
        both = {**arms, **own}
        for factor in factors:
            change = _mean(both, factor, TEXTURE, "mean", "PSNR") - _mean(both, factor, BASELINE, "image", "PSNR")
            text = f"TextureNet's mean within {WITHIN} dB of the baseline it starts from at {factor}x: {change:+.3f} dB"
            yield line(text, met=change >= -WITHIN)
        for factor in factors[-2:]:
            found, before = (
                _mean(both, factor, arm, kind, "spectrum") for arm, kind in ((TEXTURE, "sample"), (BASELINE, "image"))
            )
            text = f"TextureNet's sample nearer to the target's power spectrum at {factor}x: {found:.2f} dB off"
            yield line(f"{text}, baseline {before:.2f} dB", met=found < before)


def draw(arms: Arms, factors: Sequence[str], path: Any) -> None:  # noqa: ANN401  # a Path
    """Draw PSNR and the distance of the power spectra over the acceleration."""
    figure = new_figure(figsize=(11, 4.2))
    panels = figure.subplots(1, 2)
    shown = [(arm, kind) for arm in arms if arm not in ABLATION[:-1] for kind in kinds(arms[arm])]
    colours = ["#999999", "#E69F00", "#0072B2", "#56B4E9", "#009E73", "#F0E442", "#CC79A7", "#D55E00"]
    each = dict(zip(dict.fromkeys(arm for arm, _ in shown), colours, strict=False))
    for axes, metric, title in zip(
        panels, ("PSNR", "spectrum"), ("PSNR [dB]", "distance of the power spectra [dB]"), strict=True
    ):
        for arm, kind in shown:
            heights = [_mean(arms, factor, arm, kind, metric) for factor in factors]
            style = {"ls": "--" if kind == "sample" else "-", "marker": "o", "ms": 4, "color": each[arm]}
            axes.plot(range(len(factors)), heights, label=label(arm, kind), **style)
        axes.set_xticks(range(len(factors)), [f"{factor}x" for factor in factors])
        axes.set_xlabel("acceleration")
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    save_figure(figure, path, dpi=130)


def write(arms: Arms, settings: Mapping[str, Any]) -> None:
    """Replace what stands between the markers in docs/benchmarks.md, and draw the picture."""
    factors = list(settings["accelerations"])
    draw(arms, factors, PAGE.parent / "images" / "extreme_acceleration.png")
    ablated = [arm for arm in (BASELINE, *ABLATION) if arm in arms]
    pieces = [
        table(arms, factors, [arm for arm in arms if arm not in ABLATION[:-1]]),
        "\n".join(aims(arms, factors)),
        "![extreme_acceleration](images/extreme_acceleration.png)",
    ]
    if set(ABLATION) <= set(arms):
        pieces += [f"What each part of TextureNet does, at {ABLATED_AT}x:", table(arms, [ABLATED_AT], ablated)]
    body = "\n\n".join(piece for piece in pieces if piece)
    replace_marked("extreme acceleration", body)
    print(body)

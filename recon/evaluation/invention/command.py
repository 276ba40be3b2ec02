"""``nnunet_kd recon hallucination_report``: what reconstructions invented, measured where the truth is known."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from nnunet_kd.recon.evaluation.evaluate_command import NAMES, check_options

EXAMPLE = (
    "nnunet_kd recon hallucination_report -r kspaceTs --arm baseline@8=pred_baseline_x8 "
    "--arm texture@8=pred_texture_x8_s0,pred_texture_x8_s1 --baseline baseline -o report"
)
DEFAULT = ("PSNR", "SSIM", "NMSE", "HaarPSI")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-r", "--reference", type=Path, required=True, metavar="FOLDER", help="case files: targets and full k-space")
    add(
        "--arm",
        action="append",
        required=True,
        metavar="NAME[@R]=PRED[,PRED]",
        help="an arm, its acceleration, and its folders of reconstructions, one per sample",
    )
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="report folder to make")
    add(
        "--baseline", metavar="ARM", help="added detail is against this arm (default: the mean of an arm's own samples)"
    )
    add(
        "--metrics",
        nargs="+",
        choices=NAMES,
        default=list(DEFAULT),
        metavar="NAME",
        help=f"of {', '.join(NAMES)} (default: {' '.join(DEFAULT)})",
    )
    add("--crop", type=int, metavar="N", help="examine the central N x N pixels (default: the target)")
    add("-np", dest="n_workers", type=int, metavar="N", help="processes (default: as many as pay)")
    add("--overwrite", action="store_true", help="replace an earlier report")
    masks = parser.add_argument_group("masks, where neither the predictions' record nor dataset.json know them")
    masks.add_argument("--mask", metavar="NAME", help="kind of mask")
    masks.add_argument("--acceleration", type=float, metavar="R", help="nominal acceleration (default: the arm's)")
    masks.add_argument("--center_fraction", type=float, metavar="SHARE", help="fully sampled share of the centre")
    scan = parser.add_argument_group("local ring correlation")
    scan.add_argument("--patch", type=int, default=24, metavar="N", help="side of the patches (default: 24)")
    scan.add_argument("--stride", type=int, default=6, metavar="N", help="pixels between patches (default: 6)")
    scan.add_argument("--threshold", type=float, default=0.75, metavar="C", help="correlation (default: 0.75)")
    scan.add_argument("--cutoff", type=float, default=0.5, metavar="F", help="share of Nyquist (default: 0.5)")
    scan.add_argument(
        "--floor",
        type=float,
        default=0.03,
        metavar="A",
        help="least added detail, share of the maximum (default: 0.03)",
    )


def run(options: argparse.Namespace) -> None:
    """Examine, write the report and print it."""
    check_options(options)

    from nnunet_kd.recon.evaluation.invention.arms import parse_arm
    from nnunet_kd.recon.evaluation.invention.report import MARKDOWN, Inquiry, inquire
    from nnunet_kd.recon.evaluation.invention.scan import ScanSettings

    inquire(
        Inquiry(
            arms=[parse_arm(text) for text in options.arm],
            reference=options.reference,
            output=options.output,
            baseline=options.baseline,
            metrics=tuple(options.metrics),
            sampling=_sampling(options),
            crop=options.crop,
            scan=ScanSettings(
                patch=options.patch,
                stride=options.stride,
                threshold=options.threshold,
                cutoff=options.cutoff,
                floor=options.floor,
            ),
            overwrite=options.overwrite,
            n_processes=options.n_workers,
        )
    )
    print((options.output / MARKDOWN).read_text(encoding="utf-8"))
    print(f"report: {options.output}")


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    named = {name: getattr(options, name) for name in ("mask", "acceleration", "center_fraction")}
    return {name: value for name, value in named.items() if value is not None}

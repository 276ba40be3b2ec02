"""``nnunet_kd recon evaluate``: scores of a folder of reconstructions."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd recon evaluate -i predictions -r $nnUNet_raw/Dataset101_Knee/kspaceTs --crop 320"

NAMES = ("PSNR", "SSIM", "NMSE", "HFEN", "MSE", "HFN", "HaarPSI", "GMSD", "VIF")
DEFAULT = NAMES[:4]


def add_metric_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``evaluate`` and ``compare`` share."""
    add = parser.add_argument
    add(
        "--metrics",
        nargs="+",
        choices=NAMES,
        default=list(DEFAULT),
        metavar="NAME",
        help=f"of {', '.join(NAMES)} (default: {' '.join(DEFAULT)}); PSNR, SSIM, NMSE as in fastMRI's evaluate.py",
    )
    add("--crop", type=int, metavar="N", help="compare the central N x N pixels (fastMRI: 320; default: the target)")
    add("-np", dest="n_workers", type=int, metavar="N", help="processes (default: as many as pay)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-i", dest="predictions", type=Path, required=True, metavar="FOLDER", help="what recon predict wrote")
    add("-r", dest="reference", type=Path, required=True, metavar="FOLDER", help="files with the targets")
    add(
        "-o",
        dest="output",
        type=Path,
        metavar="FILE",
        help="default: summary.json beside the predictions; a .png beside it",
    )
    add("--report_txt", type=Path, metavar="FILE", help="also KD-MRI's line of text (plus-minus two deviations)")
    add_metric_arguments(parser)


def check_options(options: argparse.Namespace) -> None:
    """Refuse sizes that mean nothing.

    Raises:
        UsageError: One line.
    """
    if options.crop is not None and options.crop < 7:
        raise UsageError(f"expected at least 7 pixels (the window of the SSIM) for --crop, got {options.crop}")
    if options.n_workers is not None and options.n_workers < 0:
        raise UsageError(f"expected 0 or more processes for -np, got {options.n_workers}")


def run(options: argparse.Namespace) -> None:
    """Score, write the summary and a picture, and print the means."""
    from nnunet_kd.planning.model_folder import write_json_atomically
    from nnunet_kd.recon.data.kd_mri_export import write_report
    from nnunet_kd.recon.evaluation.measurement import draw_middle
    from nnunet_kd.recon.evaluation.summary import FILE, STRUCTURE, evaluate_folder
    from nnunet_kd.recon.evaluation.volumes import volume_files

    check_options(options)
    target = options.output or options.predictions / FILE
    if not target.parent.is_dir():
        raise UsageError(f"expected a folder for -o, found none at '{target.parent}'")
    reference, predictions = volume_files(options.reference), volume_files(options.predictions)
    summary = evaluate_folder(reference, predictions, options.metrics, crop=options.crop, n_workers=options.n_workers)
    write_json_atomically(summary, target)
    if options.report_txt is not None:
        cases = [case["metrics"][STRUCTURE] for case in summary["metric_per_case"]]
        write_report({name: [case[name] for case in cases] for name in options.metrics}, options.report_txt)
    mean, spread = summary["mean"][STRUCTURE], summary["std"][STRUCTURE]
    print(f"{len(summary['metric_per_case'])} volumes")
    for name in options.metrics:
        print(f"{name:<8} {mean[name]:.4g}  (standard deviation over volumes {spread[name]:.3g})")
    picture = target.with_suffix(".png")
    draw_middle(summary, picture, metric=options.metrics[0], crop=options.crop)
    print(f"summary: {target}, picture: {picture}")

"""``nnunet_kd recon export``: a trained network whose convolutions run in OpenVINO."""

import argparse
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd recon export -m Dataset101_Knee/DCCNNKDTrainer__nnUNetReconKDPlans__2d -f 0 -o knee_bundle"


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-m", dest="model", type=Path, required=True, metavar="MODEL_FOLDER", help="trained model, with fold_0 in it")
    add("-f", dest="fold", type=_fold, required=True, metavar="FOLD", help="whose weights")
    add("-o", dest="output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: checkpoint_final.pth")
    add("--precision", choices=("f32", "bf16"), default="f32", help="of the convolutions (default: f32)")
    add("--cases", type=Path, nargs="+", default=[], metavar="FILE", help="case files to compare on (a phantom)")
    add(
        "--tolerance",
        type=float,
        metavar="SHARE",
        help="largest difference of an image, share of its largest intensity (default: f32 1e-4, bf16 0.05)",
    )
    add("--threads", type=int, metavar="N", help="cores to use (default: all)")
    add("--overwrite", action="store_true", help="replace an earlier bundle")


def run(options: argparse.Namespace) -> None:
    """Check the model, write the bundle and print its figures and how to predict with it."""
    from nnunet_kd.recon.deployment.export import ExportSettings, export_model

    if options.tolerance is not None and not options.tolerance >= 0:
        raise UsageError(f"expected a share of at least 0 for --tolerance, got {options.tolerance}")
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"expected at least 1 for --threads, got {options.threads}")
    settings = ExportSettings(
        precision=options.precision,
        cases=tuple(options.cases),
        tolerance=options.tolerance,
        threads=options.threads,
    )
    bundle, report = export_model(
        options.model,
        options.fold,
        options.output,
        settings,
        checkpoint=options.checkpoint,
        overwrite=options.overwrite,
    )
    print(f"wrote {bundle.path}: {bundle.precision}, fold {bundle.fold}, {len(bundle.parts)} parts run by OpenVINO")
    print("\n".join(_figures(report)))
    print(f"predict: nnunet_kd recon predict -i KSPACE -o PREDICTIONS -m {bundle.path}")


def _figures(report: dict[str, Any]) -> list[str]:
    lines = [f"compared with PyTorch on {report['n_slices']} slices of {report['images_from']}:"]
    for precision, figures in report["precisions"].items():
        lines.append(
            f"  {precision}: largest difference {figures['max_difference']:.3g} of the largest intensity, "
            f"mean {figures['mean_difference']:.3g}"
        )
    return lines

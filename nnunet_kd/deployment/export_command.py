"""The verb ``export``: a model as a bundle that runs without PyTorch."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_kd.deployment.bundle import Bundle

EXAMPLE = (
    "nnunet_kd export -m $nnUNet_results/Dataset004_Hippocampus/KDTrainer__nnUNetKDPlans__3d_fullres "
    "-f 0 -o hippocampus_bundle"
)


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got '{text}'")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got '{text}'")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``nnunet_kd export``."""
    add = parser.add_argument
    add("-m", dest="model", type=Path, required=True, metavar="MODEL_FOLDER", help="trained model, with fold_0 in it")
    add("-f", dest="folds", type=_fold, nargs="+", metavar="FOLD", help="folds to average (default: all trained)")
    add("-o", dest="output", type=Path, required=True, metavar="BUNDLE", help="folder to write")
    add(
        "-chk", dest="checkpoint", default="checkpoint_final.pth", help="checkpoint of each fold (default: %(default)s)"
    )
    add("--format", choices=("openvino", "onnx"), default="openvino", help="runtime (default: %(default)s)")
    add(
        "--precision",
        choices=("f32", "bf16", "int8"),
        default="f32",
        help="bf16: chosen when the network is run, for processors that have it; int8: in the file (default: f32)",
    )
    add("--half-weights", action="store_true", help="store weights in float16: half the size, rounded weights")
    add("--cases", type=Path, metavar="FOLDER", help="images CASE_0000 to compare on (default: preprocessed cases)")
    add("--labels", type=Path, metavar="FOLDER", help="label maps of those cases, for Dice")
    add("--patches", type=_count, default=8, metavar="N", help="patches to compare on (default: %(default)s)")
    add("--tolerance", type=_share, metavar="SHARE", help="share of voxels that may have another label")
    add(
        "--logit-tolerance",
        type=_not_negative,
        metavar="D",
        help="largest difference of a logit (default: f32 0.1, with onnx 0.001)",
    )
    add(
        "--max-drop",
        type=_share,
        metavar="DICE",
        help="largest drop of the mean Dice; with int8, layers go back to float32 until it is kept",
    )
    add("--threads", type=_count, metavar="N", help="cores to use (default: all)")
    add("--overwrite", action="store_true", help="replace an earlier bundle")


def run(options: argparse.Namespace) -> None:
    """Check the model, write the bundle and print its figures and how to predict with it."""
    from nnunet_kd.deployment.export import ExportSettings, export_model
    from nnunet_kd.deployment.parity import Tolerance, default_tolerance
    from nnunet_kd.planning.model_folder import open_model_folder

    default = default_tolerance(options.format, options.precision)
    tolerance = Tolerance(
        voxels=default.voxels if options.tolerance is None else options.tolerance,
        logit=default.logit if options.logit_tolerance is None else options.logit_tolerance,
        dice=options.max_drop,
    )
    settings = ExportSettings(
        runtime=options.format,
        precision=options.precision,
        half_weights=options.half_weights,
        cases=options.cases,
        labels=options.labels,
        n_patches=options.patches,
        tolerance=tolerance,
        threads=options.threads,
    )
    bundle, report = export_model(
        open_model_folder(options.model),
        options.output,
        settings,
        folds=options.folds,
        checkpoint_name=options.checkpoint,
        overwrite=options.overwrite,
    )
    print(_summary(bundle, report))


def _summary(bundle: "Bundle", report: dict[str, Any]) -> str:
    folds = " ".join(map(str, bundle.folds))
    lines = [
        f"wrote {bundle.path} ({bundle.megabytes:.2f} MB): {bundle.runtime}, {bundle.precision}, folds {folds}",
        f"compared with PyTorch on {report['n_patches']} patches, {report['patches_from']}:",
    ]
    for precision, figures in report["precisions"].items():
        lines.append(
            f"  {precision}: largest logit difference {figures['max_logit_difference']:.3g}, "
            f"equal voxels {100 * figures['voxel_agreement']:.3f} %, drop of mean Dice {figures['dice_drop']:.5f} "
            f"(against {report['dice_against']})"
        )
    if bundle.plan.previous_stage:
        lines.append(f"note: the second stage of a cascade; export and predict {bundle.plan.previous_stage} first")
    lines.append(f"predict: nnunet_kd predict -i IMAGES -o PREDICTIONS -m {bundle.path}")
    return "\n".join(lines)

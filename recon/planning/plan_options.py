"""The options of ``nnunet_kd recon plan``, and what they ask for."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any, get_args

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.named_options import parse_named_options
from nnunet_kd.recon.planning.distillation import METHODS
from nnunet_kd.recon.planning.networks import NETWORKS, SizeRequest
from nnunet_kd.recon.planning.plan_blocks import LR_SCHEDULES, OPTIMIZERS, PRECISIONS, SCHEDULES, SCHEMES, SCOPES

SIZES = ("cascades", "blocks", "convs", "channels", "layers", "pools", "scales", "tokens")
# option: (argparse's name, kind, help)
_TRAINING: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "num_epochs": (int, "epochs of the whole run, both stages included (150)"),
    "num_iterations_per_epoch": (int, "steps per epoch (one pass over the slices)"),
    "initial_lr": (float, "first learning rate (1e-3)"),
    "lr_step": (int, "epochs between two drops of the rate, for --lr-schedule step (40)"),
    "lr_gamma": (float, "factor of such a drop (0.1)"),
    "seed": (int, "of initialisation and sampling (random)"),
}
_FLAGS = {"num_epochs": "--epochs", "num_iterations_per_epoch": "--iterations", "initial_lr": "--lr"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add = parser.add_argument
    add("-d", metavar="ID", required=True, help="raw data set with a fingerprint, number or name")
    add("-p", metavar="PLANS", help="name of the plans (default: nnUNetReconPlans, nnUNetReconKDPlans, ...)")
    add("--published", action="store_true", help="KD-MRI's setting to the letter, for comparison with its tables")
    add("--overwrite", action="store_true", help="replace plans of that name")
    add("--gpu-memory", type=float, default=8.0, metavar="GB", help="budget that sets the batch size (default: 8)")
    add("--batch-size", type=int, metavar="N", help="slices per step, instead of what the budget allows")
    _add_teacher_arguments(parser.add_argument_group("student"))
    _add_network_arguments(parser.add_argument_group("network"))
    _add_data_arguments(parser.add_argument_group("masks and scale (default: those of dataset.json)"))
    _add_training_arguments(parser.add_argument_group("recipe"))


def _add_teacher_arguments(group: Any) -> None:  # noqa: ANN401  # argparse's group class is private
    add = group.add_argument
    add(
        "--teacher",
        metavar="MODEL_FOLDER",
        nargs="+",
        default=[],
        help="plan a student of it: folder with fold_X in it, absolute or relative to nnUNet_results",
    )
    add("--method", choices=list(METHODS), help="; ".join(f"{name}: {text}" for name, text in METHODS.items()))
    add("--losses", nargs="+", metavar="NAME[:KEY=VALUE,...]", help="distillation terms instead of a method's")
    add("--folds", nargs="+", default=["same"], metavar="FOLD", help="of the teacher: same (default), all, or numbers")
    add("-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint in each fold (%(default)s)")
    add("--random-teacher", action="store_true", help="give the teacher random weights: a control")
    add("--schedule", choices=SCHEDULES, help="joint or staged (default: the method's)")


def _add_network_arguments(group: Any) -> None:  # noqa: ANN401
    group.add_argument("--network", choices=list(NETWORKS), help="default: dc_cnn; vdsr for super-resolution")
    for size in SIZES:
        group.add_argument(f"--{size}", type=int, metavar="N", help=f"{size} of the network")
    group.add_argument("--baseline", metavar="FOLDER[:FOLD]", help="model folder that texture_net starts from")
    group.add_argument("--shrink", type=int, metavar="N", help="divide the channels by N, at least 4 remain")


def _add_data_arguments(group: Any) -> None:  # noqa: ANN401
    from nnunet_kd.recon.physics.masks.settings import MaskName

    add = group.add_argument
    add("--mask", choices=list(get_args(MaskName)), help="family of masks")
    add("--acceleration", type=float, nargs="+", metavar="R", help="nominal; of several one is drawn each time")
    add("--center-fraction", type=float, nargs="+", metavar="F", help="fully sampled share about the centre")
    add("--axis", choices=["columns", "rows"], help="what a mask of lines samples as a whole")
    add("--mask-file", metavar="FILE", help="one mask for all: .npy, .mat or .h5")
    add("--normalisation", choices=list(SCHEMES), help="of the zero-filled image (default: max)")
    add("--percentile", type=float, metavar="P", help="for --normalisation percentile (99.9)")
    add("--scope", choices=list(SCOPES), help="whether a slice or a volume has one scale (default: slice)")


def _add_training_arguments(group: Any) -> None:  # noqa: ANN401
    group.add_argument(
        "--loss", metavar="NAME[:KEY=VALUE,...]", help="on the true images: l1, ssim, l1_ssim, ms_ssim_l1"
    )
    for name, (kind, text) in _TRAINING.items():
        flag = _FLAGS.get(name, "--" + name.replace("_", "-"))
        group.add_argument(flag, dest=name, type=kind, metavar="N" if kind is int else "X", help=text)
    group.add_argument("--optimizer", choices=list(OPTIMIZERS), help="default: Adam")
    group.add_argument("--lr-schedule", choices=list(LR_SCHEDULES), help="default: step")
    precisions = [name for name in PRECISIONS if name]
    group.add_argument("--precision", choices=precisions, help="of convolutions on a CPU (bfloat16 where native)")


def size_request(options: argparse.Namespace) -> SizeRequest:
    """Return what was asked for of the network."""
    sizes = {size: getattr(options, size) for size in SIZES if getattr(options, size) is not None}
    return SizeRequest(network=options.network, sizes=sizes, shrink=options.shrink)


def training_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for of the recipe, by name."""
    names = (*_TRAINING, "optimizer", "lr_schedule", "schedule", "precision")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def sampling_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for of the masks, by name."""
    asked = {
        "mask": "file" if options.mask_file else options.mask,
        "file": options.mask_file,
        "acceleration": options.acceleration,
        "center_fraction": options.center_fraction,
        "axis": options.axis,
    }
    settings = {name: value for name, value in asked.items() if value is not None}
    if "acceleration" in settings:
        settings.setdefault("center_fraction", None)  # that of dataset.json belongs to another acceleration
    return settings


def normalisation_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return what was asked for of the scale, by name."""
    asked = {"scheme": options.normalisation, "percentile": options.percentile, "scope": options.scope}
    return {name: value for name, value in asked.items() if value is not None}


def supervised_loss(options: argparse.Namespace) -> dict[str, Any] | None:
    """Return the loss on the true images.

    Raises:
        UsageError: If it is not written as ``NAME:KEY=VALUE,...``.
    """
    if options.loss is None:
        return None
    name, values = parse_named_options(options.loss, "--loss", "l1_ssim:share=0.5")
    return {"name": name, **values}


def check_options(options: argparse.Namespace) -> None:
    """Refuse options that mean nothing together.

    Raises:
        UsageError: Says which.
    """
    learns = bool(options.teacher)
    if learns and options.method == "sft":
        raise UsageError("--method sft plans a teacher, which has no --teacher; leave --teacher out")
    if not learns and (options.losses or options.method not in (None, "sft")):
        raise UsageError("expected --teacher MODEL_FOLDER for --method and --losses; --method none takes one too")
    if options.losses and options.method:
        raise UsageError("--method and --losses exclude each other; a method has its own losses")
    data = sampling_settings(options) or normalisation_settings(options)
    if learns and data:
        raise UsageError(f"--teacher: a student sees its teacher's data; leave {', '.join(data)} out")
    if learns and options.baseline is not None:
        raise UsageError("--baseline and --teacher exclude each other; leave one out")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch-size: expected a whole number >= 1, got {options.batch_size}")
    if options.random_teacher and not learns:
        raise UsageError("--random-teacher: expected --teacher MODEL_FOLDER, whose network it takes")

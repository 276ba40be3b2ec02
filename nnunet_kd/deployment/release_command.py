"""The verb ``release``: a model folder or zip that stock nnU-Net predicts."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nnunet_kd.deployment.release import Release

EXAMPLE = (
    "nnunet_kd release -m $nnUNet_results/Dataset004_Hippocampus/KDTrainer__nnUNetKDPlans__3d_fullres "
    "-f 0 1 2 3 4 -o student.zip"
)


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``nnunet_kd release``."""
    parser.add_argument(
        "-m",
        dest="model",
        type=Path,
        required=True,
        metavar="MODEL_FOLDER",
        help="trained model, the folder with fold_0",
    )
    parser.add_argument(
        "-f", dest="folds", type=_fold, nargs="+", metavar="FOLD", help="folds to pack (default: all that are trained)"
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        required=True,
        metavar="OUT",
        help="a name ending in .zip, or a folder that gets DatasetXXX_Name/MODEL as nnUNet_results has it",
    )
    parser.add_argument(
        "-chk", dest="checkpoint", default="checkpoint_final.pth", help="checkpoint of each fold (default: %(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier release")


def run(options: argparse.Namespace) -> None:
    """Check the model, write the release and print how to predict with it."""
    # imported here: torch and nnU-Net take seconds, and the help needs neither
    from nnunet_kd.deployment.release import check_target, prepare_release, write_release
    from nnunet_kd.planning.model_folder import open_model_folder

    model = open_model_folder(options.model)
    release = prepare_release(model, folds=options.folds, checkpoint_name=options.checkpoint)
    target = check_target(options.output, release, source=model.path, overwrite=options.overwrite)
    write_release(release, target)
    print(_summary(release, target))


def _summary(release: "Release", target: Path) -> str:
    trainer, plans, configuration = release.folder_name.split("__")
    number = int(release.dataset_name[len("Dataset") : len("Dataset") + 3])
    folds = " ".join(map(str, release.checkpoints))
    flags = f"-d {number} -tr {trainer} -p {plans} -c {configuration} -f {folds}"
    lines = [f"wrote {target} ({_megabytes(target):.1f} MB): {release.folder_name}, folds {folds}"]
    if release.needs:
        lines.append(
            f"note: its network is not nnU-Net's own, so that prediction needs the package {', '.join(release.needs)}"
        )
    if target.is_file():
        lines.append(f"install: nnUNetv2_install_pretrained_model_from_zip {target}")
    previous = ""
    if release.previous_stage:
        previous = f" -prev_stage_predictions PREDICTIONS_OF_{release.previous_stage}"
        lines.append(f"note: the second stage of a cascade; release and predict {release.previous_stage} first")
    lines.append(f"predict: nnUNetv2_predict {flags} -i IMAGES -o PREDICTIONS{previous}")
    return "\n".join(lines)


def _megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6

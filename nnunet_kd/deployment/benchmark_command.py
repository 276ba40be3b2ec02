"""The verb ``benchmark``: what models cost from file to file, side by side in one run."""

import argparse
from pathlib import Path

from nnunet_kd.errors import UsageError

EXAMPLE = (
    "nnunet_kd benchmark -m teacher=$nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres "
    "-m student=hippocampus_bundle -i imagesTs -o benchmark --cases 5"
)


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``nnunet_kd benchmark``."""
    add = parser.add_argument
    add(
        "-m",
        dest="models",
        nargs="+",
        action="extend",
        required=True,
        metavar="MODEL",
        help="bundles and trained model folders, FOLDER or NAME=FOLDER; the first is what others are compared with",
    )
    add("-i", dest="images", type=Path, required=True, metavar="IMAGES", help="folder of images CASE_0000 and so on")
    add("-o", dest="output", type=Path, required=True, metavar="REPORT", help="folder to write")
    add("--repeats", type=int, default=3, metavar="N", help="rounds, each with new processes (default: %(default)s)")
    add("--cases", type=int, metavar="N", help="the first N cases by name (default: all)")
    add("--threads", type=int, metavar="N", help="cores for each model (default: left to the libraries)")
    add("--step_size", type=float, metavar="S", help="distance of tiles as a share of the patch (default: 0.5)")
    add("--mirroring", action="store_true", help="average over mirrored images, in 3-D up to 8 times the work")
    add("--resampling", choices=("exact", "fast"), default="exact", help="of bundles (default: %(default)s)")
    add("-f", dest="folds", type=_fold, nargs="+", metavar="FOLD", help="folds of model folders (default: all trained)")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="NAME", help="checkpoint of model folders")
    add("--overwrite", action="store_true", help="replace an earlier benchmark")


def run(options: argparse.Namespace) -> None:
    """Check models and cases, measure, write the report and print its tables."""
    from nnunet_kd.deployment.benchmark import BenchmarkSettings
    from nnunet_kd.deployment.benchmark_models import choose_cases, open_contender, split_names
    from nnunet_kd.deployment.benchmark_report import FILES, check_output, run_benchmark

    settings = BenchmarkSettings(
        repeats=options.repeats,
        threads=options.threads,
        step_size=options.step_size,
        mirroring=options.mirroring,
        resampling=options.resampling,
    )
    if options.cases is not None and options.cases < 1:
        raise UsageError(f"expected at least 1 case, got {options.cases}; leave --cases out for all")
    output = options.output.expanduser()
    check_output(output, overwrite=options.overwrite)
    contenders = {
        name: open_contender(path, folds=options.folds, checkpoint=options.checkpoint)
        for name, path in split_names(options.models).items()
    }
    _check_options(options, {contender.kind for contender in contenders.values()})
    cases = choose_cases(contenders, options.images.expanduser(), options.cases)
    run_benchmark(contenders, cases, settings, output)
    print((output / FILES["markdown"]).read_text(encoding="utf-8"))
    print(f"report: {output}")


def _check_options(options: argparse.Namespace, kinds: set[str]) -> None:
    if options.folds is not None and "folder" not in kinds:
        raise UsageError("-f belongs to model folders, a bundle has its folds in it; leave it out")
    if options.resampling != "exact" and "bundle" not in kinds:
        raise UsageError("--resampling belongs to bundles, nnU-Net resamples as its plans say; leave it out")

"""The verb ``predict``: label maps from a bundle, with nnU-Net's folders and options and without nnU-Net."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.cases import Fault
    from nnunet_kd.deployment.prediction.case_files import CaseFiles
    from nnunet_kd.deployment.prediction.overlap import Outcome
    from nnunet_kd.deployment.prediction.run import Backend, Job

EXAMPLE = "nnunet_kd predict -i imagesTs -o predictions -m hippocampus_bundle"
INTERRUPTED = 130  # what shells report of a program that ctrl-C ended
_FOR_TORCH = {"folds": "-f", "checkpoint": "-chk", "device": "-device"}


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``nnunet_kd predict``."""
    add = parser.add_argument
    add(
        "-i",
        dest="input",
        nargs="+",
        required=True,
        metavar="IN",
        help="folder of images CASE_0000 and so on; or the files of one case, one per channel",
    )
    add("-o", dest="output", type=Path, required=True, metavar="OUT", help="folder; for one case also its label map")
    add("-m", dest="model", type=Path, required=True, metavar="BUNDLE", help="bundle by nnunet_kd export")
    add("-step_size", type=float, metavar="S", help="distance of tiles as a share of the patch (default: 0.5)")
    mirroring = parser.add_mutually_exclusive_group()
    mirroring.add_argument(
        "--mirroring", action="store_true", help="average over mirrored images, in 3-D up to 8 times the work"
    )
    mirroring.add_argument("--disable_tta", action="store_true", help="no mirroring, which is the default here")
    add(
        "--resampling",
        choices=("exact", "fast"),
        help="exact: as nnU-Net computes (default); fast: single precision, see the documentation",
    )
    add("--save_probabilities", action="store_true", help="also CASE.npz and CASE.pkl, as nnU-Net writes them")
    add("-prev_stage_predictions", type=Path, metavar="FOLDER", help="label maps of a cascade's first stage")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--continue_prediction", action="store_true", help="keep label maps that exist and are whole")
    kept.add_argument("--overwrite", action="store_true", help="replace label maps that exist")
    add("-num_parts", type=int, default=1, metavar="N", help="share the cases among N runs (default: 1)")
    add("-part_id", type=int, default=0, metavar="K", help="which of them this is, from 0 (default: 0)")
    add("--threads", type=_count, metavar="N", help="cores for the network (default: all)")
    add("-np", dest="n_workers", type=_count, default=1, metavar="N", help="threads that read, and write (default: 1)")
    add("--verbose", action="store_true", help="seconds of every case, tracebacks of faults")
    add("--disable_progress_bar", action="store_true", help="for logs")
    add("--backend", choices=("openvino", "onnx", "torch"), help="default: what the bundle was exported for")
    torch = parser.add_argument_group("with --backend torch, -m is a trained model folder")
    torch.add_argument("-f", dest="folds", type=_fold, nargs="+", metavar="FOLD", help="folds (default: all trained)")
    torch.add_argument("-chk", dest="checkpoint", metavar="NAME", help="default: checkpoint_final.pth")
    torch.add_argument("-device", choices=("cpu", "cuda", "mps"), help="default: cpu")


def run(options: argparse.Namespace) -> int:
    """Check everything, predict, and report the faulty cases at the end."""
    start = perf_counter()
    from nnunet_kd.deployment.prediction.case_files import find_cases, part_of, split_list
    from nnunet_kd.deployment.prediction.records import check_same_settings, record_name
    from nnunet_kd.deployment.prediction.run import Job
    from nnunet_kd.hardware import n_cores

    backend = _open_torch(options) if options.backend == "torch" else _open_bundle(options)
    _check_stage(backend, options.prev_stage_predictions)
    sources = split_list(options.input)
    output = options.output.expanduser()
    found = find_cases(sources, output, ending=backend.file_ending, previous=options.prev_stage_predictions)
    cases = part_of(found, options.num_parts, options.part_id)
    into_folder = output == cases[0].output.parent if cases else sources[0].is_dir()
    if into_folder and not options.overwrite:
        check_same_settings(output, backend.identity())
    todo = _todo(cases, options)
    print(_announcement(backend, cases, todo))
    if not todo:
        return 0
    job = Job(
        cases=todo,
        output=output,
        record=record_name(options.num_parts, options.part_id) if into_folder else None,
        threads=options.threads or (None if options.backend == "torch" else n_cores()),
        n_workers=options.n_workers,
        start=start,
    )
    return _predict(job, backend, options)


def _open_bundle(options: argparse.Namespace) -> "Backend":
    from nnunet_kd.deployment.bundle import is_bundle
    from nnunet_kd.deployment.predictor import Predictor

    if given := [flag for name, flag in _FOR_TORCH.items() if getattr(options, name) is not None]:
        raise UsageError(f"{given[0]} belongs to --backend torch, a bundle has its folds in it; leave it out")
    if not is_bundle(options.model.expanduser()) and (options.model.expanduser() / "plans.json").is_file():
        raise UsageError(
            f"{options.model} is a model folder, no bundle; type: nnunet_kd export -m {options.model} -o BUNDLE, or "
            "--backend torch"
        )
    return Predictor.open(
        options.model,
        threads=options.threads,
        mirroring=options.mirroring,
        step_size=options.step_size,
        resampling=options.resampling or "exact",
        runtime=options.backend,
        save_probabilities=options.save_probabilities,
    )


def _open_torch(options: argparse.Namespace) -> "Backend":
    from nnunet_kd.deployment.inference.sliding_window import WindowSettings
    from nnunet_kd.deployment.prediction.stock import StockPredictor

    if options.resampling is not None:
        raise UsageError("--resampling belongs to bundles, nnU-Net resamples as its plans say; leave it out")
    step_size = WindowSettings(step_size=0.5 if options.step_size is None else options.step_size).step_size
    return StockPredictor.open(
        options.model,
        folds=options.folds,
        checkpoint=options.checkpoint or "checkpoint_final.pth",
        device=options.device or "cpu",
        mirroring=options.mirroring,
        step_size=step_size,
        threads=options.threads,
        save_probabilities=options.save_probabilities,
    )


def _check_stage(backend: "Backend", previous: Path | None) -> None:
    if backend.previous_stage and previous is None:
        raise UsageError(
            f"expected the label maps of {backend.previous_stage} for this cascade; predict them first and type: "
            "-prev_stage_predictions FOLDER"
        )
    if previous is not None and not backend.previous_stage:
        raise UsageError("-prev_stage_predictions belongs to a cascade, this model is none; leave it out")
    if previous is not None and not previous.exists():
        raise UsageError(f"expected a folder for -prev_stage_predictions, found none at {previous}; check the path")


def _todo(cases: "Sequence[CaseFiles]", options: argparse.Namespace) -> "list[CaseFiles]":
    from nnunet_kd.deployment.prediction.case_files import is_finished

    if options.continue_prediction:
        return [case for case in cases if not is_finished(case, probabilities=options.save_probabilities)]
    if not options.overwrite and (there := [case for case in cases if case.output.exists()]):
        raise UsageError(
            f"{len(there)} of {len(cases)} label maps exist, such as {there[0].output}; type --continue_prediction to "
            "keep or --overwrite to replace them"
        )
    return list(cases)


def _announcement(backend: "Backend", cases: "Sequence[CaseFiles]", todo: "Sequence[CaseFiles]") -> str:
    facts = backend.identity()
    mirroring = "on" if facts["mirroring"] else "off (nnUNetv2_predict: on; here with --mirroring)"
    kept = f", {len(cases) - len(todo)} are there" if len(todo) < len(cases) else ""
    return (
        f"{len(todo)} cases to predict{kept}\n"
        f"{facts['model']}: {facts['backend']}, {facts['precision']}, step size {facts['step_size']:g}, mirroring "
        f"{mirroring}, {facts['resampling']} resampling"
    )


def _predict(job: "Job", backend: "Backend", options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_kd.deployment.prediction.run import predict_cases

    faults: list[Fault] = []
    bar = tqdm(total=len(job.cases), desc="predict", unit="case", disable=options.disable_progress_bar)
    try:
        with bar:
            for outcome in predict_cases(job, backend):
                bar.update()
                if outcome.fault is not None:
                    faults.append(outcome.fault)
                if options.verbose:
                    bar.write(_line(outcome))
    except KeyboardInterrupt:
        print("nnunet_kd predict: stopped; what is written is whole, go on with --continue_prediction", file=sys.stderr)
        return INTERRUPTED
    finally:
        for fault in faults:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
            if options.verbose and fault.trace:
                print(fault.trace, file=sys.stderr)
    n_good = len(job.cases) - len(faults)
    print(f"{n_good} label maps in {job.output}, {perf_counter() - job.start:.1f} s")
    if faults:
        raise UsageError(
            f"{len(faults)} of {len(job.cases)} cases failed, named above; mend them and type --continue_prediction"
        )
    return 0


def _line(outcome: "Outcome") -> str:
    seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in outcome.seconds.items())
    return f"{outcome.case.name}: {'failed' if outcome.fault else 'done'} ({seconds} s)"

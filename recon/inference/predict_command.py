"""``nnunet_kd recon predict``: volumes from k-space."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.recon.inference.predictor import Predictor
    from nnunet_kd.recon.inference.run import Job

EXAMPLE = (
    "nnunet_kd recon predict -i $nnUNet_raw/Dataset101_Knee/kspaceTs -o predictions "
    "-m Dataset101_Knee/DCCNNTrainer__nnUNetReconPlans__2d -f 0"
)

MOST_THREADS = 1024  # far more than that end the process
LARGEST_SEED = 2**32 - 1
MOST_SAMPLES = 1000  # those of a batch of slices are held in memory


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got '{text}'")
    return text if text == "all" else int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got '{text}'")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) > LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to {LARGEST_SEED}, got '{text}'")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-i", dest="input", type=Path, nargs="+", required=True, metavar="IN", help="folder of case files, or files")
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="folder of reconstructions")
    add("-m", dest="model", type=Path, required=True, metavar="FOLDER", help="model folder or exported bundle")
    add("-f", dest="folds", type=_fold, nargs="+", metavar="FOLD", help="folds to average (default: all trained)")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="NAME", help="default: checkpoint_final.pth")
    add("-device", choices=("cpu", "cuda", "mps"), default="cpu", help="default: cpu")
    add(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the convolutions (default: float32)"
    )
    add("--batch_size", type=_count, metavar="N", help="slices at once (default: the plans')")
    add("--threads", type=_count, metavar="N", help="cores (default: all)")
    add("--zero_filled", action="store_true", help="no network: the zero-filled images, as a baseline")
    drawn = parser.add_argument_group("generative networks (default: the mean of 4 samples)")
    drawn.add_argument("--samples", type=_count, metavar="N", help="write N samples, their mean and their spread")
    drawn.add_argument("--seed", type=_seed, metavar="S", help="of the first sample (default: 0)")
    masks = parser.add_argument_group("fully sampled data: other masks than the plans'")
    masks.add_argument("--mask", metavar="NAME", help="kind of mask")
    masks.add_argument("--acceleration", type=float, metavar="R", help="nominal acceleration")
    masks.add_argument("--center_fraction", type=float, metavar="SHARE", help="fully sampled share of the centre")
    kept = parser.add_mutually_exclusive_group()
    kept.add_argument("--continue_prediction", action="store_true", help="keep reconstructions that exist")
    kept.add_argument("--overwrite", action="store_true", help="replace reconstructions that exist")
    add("-num_parts", type=_count, default=1, metavar="N", help="share the cases among N runs (default: 1)")
    add("-part_id", type=int, default=0, metavar="K", help="which of them this is, from 0 (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Check everything, reconstruct, and report the faulty cases at the end."""
    from nnunet_kd.recon.inference.run import find_jobs, recorded_cases

    if not 0 <= options.part_id < options.num_parts:
        raise UsageError(
            f"expected -part_id from 0 to -num_parts less 1, got -num_parts {options.num_parts} "
            f"-part_id {options.part_id}; count from 0"
        )
    jobs = _todo(find_jobs(options.input, options.output)[options.part_id :: options.num_parts], options)
    recorded_cases(options.output)  # a damaged record is refused now, not after hours
    predictor = _open(options)
    print(f"{len(jobs)} cases, {sum(job.n_slices for job in jobs)} slices to reconstruct")
    return _reconstruct(predictor, jobs, options) if jobs else 0


def _todo(jobs: list[Job], options: argparse.Namespace) -> list[Job]:
    there = [job for job in jobs if job.target.exists()]
    if options.continue_prediction:
        return [job for job in jobs if job not in there]
    if there and not options.overwrite:
        raise UsageError(
            f"{len(there)} of {len(jobs)} reconstructions exist, such as {there[0].target}; type "
            "--continue_prediction to keep or --overwrite to replace them"
        )
    return jobs


def _sampling(options: argparse.Namespace) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    if options.mask is not None:
        changed["mask"] = options.mask
    if options.acceleration is not None:
        changed["acceleration"] = options.acceleration
    if options.center_fraction is not None:
        changed["center_fraction"] = options.center_fraction
    return changed


def _open(options: argparse.Namespace) -> Predictor:
    import torch

    from nnunet_kd.recon.inference.models import open_predictor, zero_filling
    from nnunet_kd.recon.inference.samples import SampleRequest, check_samples
    from nnunet_kd.recon.training.models import open_recon_model

    asked = options.samples is not None or options.seed is not None
    if options.samples is not None and options.samples > MOST_SAMPLES:
        raise UsageError(f"--samples: expected at most {MOST_SAMPLES}, got {options.samples}; draw more with --seed")
    samples = SampleRequest(n_samples=options.samples, seed=options.seed or 0) if asked else None
    if options.threads is not None:
        if options.threads > MOST_THREADS:
            raise UsageError(f"--threads: expected at most {MOST_THREADS}, got {options.threads}")
        torch.set_num_threads(options.threads)
    if options.zero_filled:
        check_samples(samples, [])
        model = open_recon_model(options.model)
        return zero_filling(model.plans, model.configuration, _sampling(options))
    return open_predictor(
        options.model,
        folds=options.folds,
        checkpoint=options.checkpoint,
        device=options.device,
        sampling=_sampling(options),
        precision=options.precision,
        batch_size=options.batch_size,
        samples=samples,
    )


def _reconstruct(predictor: Predictor, jobs: list[Job], options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from nnunet_kd.recon.inference.run import run_jobs, write_record
    from nnunet_kd.recon.inference.samples import sample_folder, write_samples

    options.output.mkdir(parents=True, exist_ok=True)
    with tqdm(total=sum(job.n_slices for job in jobs), desc="reconstruct", unit="slice") as bar:
        entries, faults = run_jobs(predictor, jobs, bar.update, write=write_samples if options.samples else None)
    facts = {
        "model": "zero-filled" if options.zero_filled else str(options.model),
        "folds": options.folds,
        "checkpoint": options.checkpoint,
        "precision": options.precision,
        "sampling": _sampling(options) or "as planned",
        **({"samples": list(predictor.seeds)} if options.samples else {}),
    }
    if entries:
        write_record(options.output, facts, entries)
        for seed in predictor.seeds if options.samples else ():
            write_record(sample_folder(options.output, seed), {**facts, "seed": seed}, entries)
        rates = [entry["true_acceleration"] for entry in entries.values()]
        print(f"{len(entries)} volumes in {options.output}; true acceleration {min(rates):.2f} to {max(rates):.2f}")
    for fault in faults:
        print(f"  {fault.case}: {fault.message}", file=sys.stderr)
    if faults:
        raise UsageError(
            f"{len(faults)} of {len(jobs)} cases failed, named above; mend them and type --continue_prediction"
        )
    return 0

"""The sub-verb ``train``: one fold of one configuration, with the arguments of nnUNetv2_train."""

import argparse
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    import torch

    from nnunet_kd.distillation.ranks import Place
    from nnunet_kd.recon.training.trainer import ReconTrainer

EXAMPLE = "nnunet_kd recon train 1 2d 0 -tr DCCNNTrainer"
PLANS, STUDENT_PLANS = "nnUNetReconPlans", "nnUNetReconKDPlans"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add data set, configuration, fold and options."""
    parser.add_argument("dataset", metavar="DATASET", help="number or name")
    parser.add_argument("configuration", metavar="CONFIGURATION", help="e.g. 2d")
    parser.add_argument("fold", metavar="FOLD", help="0 to 4, or all")
    parser.add_argument("-tr", default="DCCNNTrainer", metavar="TRAINER", help="default: %(default)s")
    parser.add_argument("-p", metavar="PLANS", help=f"default: {PLANS}, of trainers with KD {STUDENT_PLANS}")
    parser.add_argument("--c", action="store_true", help="continue from the last checkpoint")
    parser.add_argument("--val", action="store_true", help="validate the trained network only")
    parser.add_argument("-device", choices=("cpu", "cuda", "mps"), help="default: cuda, where there is none the CPU")
    parser.add_argument("-num_gpus", type=int, default=1, metavar="N", help="processes on this machine, also on CPUs")


def run(options: argparse.Namespace) -> int:
    """Train, or start the processes that do.

    Raises:
        UsageError: If data, plans, trainer, teachers or checkpoints do not suit each other.
    """
    import torch

    from nnunet_kd.recon.training.ranks import started_by_torchrun

    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.c and options.val:
        raise UsageError("expected one of --c and --val, got both; leave one out")
    if options.num_gpus < 1:
        raise UsageError(f"-num_gpus: expected at least 1, got {options.num_gpus}")
    if options.num_gpus > 1 and not started_by_torchrun():
        return _start_processes(options)
    return _train(options)


def _train(options: argparse.Namespace) -> int:
    import torch.distributed as dist

    from nnunet_kd.recon.training.ranks import ALONE, choose_device, join_ranks, started_by_torchrun

    place, device = ALONE, None
    try:
        if started_by_torchrun():
            place, device = join_ranks(options.device, f"nnunet_kd recon train ... -num_gpus {options.num_gpus}")
        trainer = _trainer(options, device or choose_device(options.device), place)
        _work(trainer, options)
    except UsageError:
        if place.local_rank != 0:  # the line is printed once
            return 2
        raise
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
    return 0


def _trainer(options: argparse.Namespace, device: "torch.device", place: "Place") -> "ReconTrainer":
    from nnunet_kd.recon.training.run import find_run
    from nnunet_kd.recon.training.trainers import find_trainer

    trainer = find_trainer(options.tr)
    plans = options.p or (STUDENT_PLANS if trainer.distils else PLANS)
    run = find_run(options.dataset, options.configuration, options.fold, options.tr, plans)
    return trainer(run, device, place)


def _work(trainer: "ReconTrainer", options: argparse.Namespace) -> None:
    from nnunet_kd.recon.training.final_validation import load_trained, validate_finally
    from nnunet_kd.recon.training.log import LogFile
    from nnunet_kd.recon.training.loop import Loop

    if options.val:
        path = load_trained(trainer)
        say = LogFile(trainer.run.fold_folder, silent=trainer.place.rank != 0)
        say(f"Validating {path.name}")
    else:
        loop = Loop(trainer)
        loop.run(continues=options.c)
        say = loop.say
    validate_finally(trainer, say)


def _start_processes(options: argparse.Namespace) -> int:
    """Check what can be checked here, then let torchrun start this command once per process."""
    import torch

    from nnunet_kd.recon.training.ranks import ALONE, check_share

    n = options.num_gpus
    if options.device == "mps":
        raise UsageError("-num_gpus: expected 1 with -device mps; leave it out")
    if options.device == "cuda" and torch.cuda.device_count() < n:
        found = torch.cuda.device_count()
        raise UsageError(f"-num_gpus: expected at most {found}, the GPUs found, got {n}; or type -device cpu")
    trainer = _trainer(options, torch.device("cpu"), ALONE)
    check_share(trainer.run.configuration.batch_size, n)
    words = [options.dataset, options.configuration, options.fold, "-tr", options.tr, "-device", options.device]
    words += [*(["-p", options.p] if options.p else []), *(["--c"] if options.c else []), "-num_gpus", str(n)]
    words += ["--val"] if options.val else []
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    command = [*torchrun, "-m", "nnunet_kd", "recon", "train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    status = subprocess.run(command, env=environment, check=False).returncode
    if status:
        raise UsageError(f"a process ended with status {status}, see above; continue with --c")
    return 0

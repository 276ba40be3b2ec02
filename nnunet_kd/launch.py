"""Train on many processes and machines: torchrun starts this module with nnUNetv2_train's arguments.

nnU-Net's own ``-num_gpus`` ends at one machine and at CUDA. Here torchrun starts the processes, on one
machine or several, and starts them again after a loss (``--max-restarts``).
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_kd import discovery
from nnunet_kd.distillation.ranks import (
    Place,
    Stopped,
    exchange,
    lost_contact,
    meet,
    open_store,
    read_place,
    silent_ranks,
    stop_on_sigterm,
)
from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store  # type: ignore[attr-defined]  # not in its __all__

PROGRAM = "-m nnunet_kd.launch"
EXAMPLE = f"torchrun --nproc-per-node 2 {PROGRAM} 4 3d_fullres 0 -tr KDTrainer -p nnUNetKDPlans"
TIMEOUT = timedelta(hours=1)  # of a collective call: in the final validation ranks meet every 20 cases only
EXCLUSIVE = (("--c", "--val"), ("--c", "-pretrained_weights"), ("--val_best", "--disable_checkpointing"))


@dataclass(frozen=True, kw_only=True)
class Start:
    """What all ranks agreed on before training.

    Attributes:
        device: Of this process; its type is the same on all ranks.
        resumes: Whether training continues from a checkpoint.
    """

    device: "torch.device"
    resumes: bool


def build_parser() -> argparse.ArgumentParser:
    """Return the parser: nnUNetv2_train's arguments and defaults, whose own parser cannot be reached."""
    parser = argparse.ArgumentParser(prog="nnunet_kd.launch", description=__doc__, epilog=f"example: {EXAMPLE}")
    parser.add_argument("dataset_name_or_id", help="data set name or number")
    parser.add_argument("configuration", help="e.g. 3d_fullres")
    parser.add_argument("fold", help="0 to 4, or all")
    parser.add_argument("-tr", default="nnUNetTrainer", help="trainer: KDTrainer or another of this package")
    parser.add_argument("-p", default="nnUNetPlans", help="plans (default: %(default)s)")
    parser.add_argument("-pretrained_weights", metavar="FILE", help="checkpoint to start from")
    parser.add_argument("-num_gpus", type=int, help="not here: torchrun --nproc-per-node says it")
    parser.add_argument("--npz", action="store_true", help="save the final validation's probabilities")
    parser.add_argument("--c", action="store_true", help="continue; implied when torchrun restarts")
    parser.add_argument("--val", action="store_true", help="validate only")
    parser.add_argument("--val_best", action="store_true", help="validate checkpoint_best, not the final one")
    parser.add_argument("--disable_checkpointing", action="store_true", help="write no checkpoints")
    parser.add_argument("-device", default="cuda", choices=("cpu", "cuda"), help="cuda falls back to the CPU")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Refuse what does not go together.

    Raises:
        UsageError: With what to type instead.
    """
    if options.num_gpus is not None:
        raise UsageError(
            "-num_gpus: expected torchrun to start the processes; leave it out and type: "
            f"torchrun --nproc-per-node {options.num_gpus} {PROGRAM} ..."
        )
    if options.fold != "all" and not options.fold.isdecimal():
        raise UsageError(f"fold: expected a number or 'all', got '{options.fold}'; type e.g. 0")
    for pair in EXCLUSIVE:
        if all(getattr(options, flag.lstrip("-")) for flag in pair):
            raise UsageError(f"expected one of {' and '.join(pair)}, got both; leave one out")


def check_trainer(name: str) -> None:
    """Refuse trainers that know only one machine.

    Raises:
        UsageError: If nnU-Net finds no such trainer or it is none of ours.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_kd.distillation.trainer import DistillationTrainer

    try:
        found = recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        raise UsageError(f"-tr: nnU-Net finds no trainer '{name}'; type: -tr KDTrainer") from None
    if not issubclass(found, DistillationTrainer):
        raise UsageError(
            f"-tr: expected a DistillationTrainer, got {name}, which knows one machine's GPUs only; type -tr KDTrainer "
            "(without a teacher: nnunet_kd plan --method none) or train it with nnUNetv2_train -num_gpus"
        )


def check_batch(batch_size: int, world_size: int, *, batch_dice: bool) -> None:
    """Refuse batches that nnU-Net's rule cannot split over the ranks.

    Raises:
        UsageError: If a rank would get no sample, or unequal shares meet a Dice over the whole batch,
            for which nnU-Net gathers tensors of equal shape.
    """
    if world_size > batch_size:
        raise UsageError(
            f"expected at most {batch_size} processes, the batch size of these plans, got {world_size}; type a smaller "
            "--nnodes or --nproc-per-node, or raise batch_size in the plans"
        )
    if batch_dice and batch_size % world_size:
        raise UsageError(
            f"expected equal shares of the batch of {batch_size}, for these plans have batch_dice, got {world_size} "
            f"processes; type --nnodes and --nproc-per-node so that their product divides {batch_size}"
        )


def find_fold(options: argparse.Namespace, world_size: int) -> Path:
    """Check the plans against the number of ranks and return the folder that nnU-Net will write to.

    Raises:
        UsageError: If data set, plans or configuration are missing, or the batch cannot be split.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_kd.planning.model_folder import find_dataset_folder, nnunet_folder, read_json

    dataset = find_dataset_folder(options.dataset_name_or_id)
    plans = read_json(dataset / f"{options.p}.json")
    if options.configuration not in plans["configurations"]:
        names = ", ".join(plans["configurations"])
        raise UsageError(f"expected a configuration of {options.p} ({names}), got {options.configuration}; type one")
    configuration = PlansManager(plans).get_configuration(options.configuration)
    check_batch(configuration.batch_size, world_size, batch_dice=configuration.batch_dice)
    model = f"{options.tr}__{plans['plans_name']}__{options.configuration}"
    return nnunet_folder("nnUNet_results") / dataset.name / model / f"fold_{options.fold}"


def choose_device(name: str, place: Place) -> "torch.device":
    """Return the device of this process and set its number of threads.

    Raises:
        UsageError: If this machine has fewer GPUs than processes.
    """
    import torch

    if name == "cuda" and torch.cuda.is_available():
        n_gpus = torch.cuda.device_count()
        if place.local_world_size > n_gpus:
            raise UsageError(f"expected a GPU per process, found {n_gpus}; type: torchrun --nproc-per-node {n_gpus}")
        torch.cuda.set_device(place.local_rank)
        torch.set_num_threads(1)
        torch.backends.cudnn.benchmark = True  # as nnUNetv2_train does
        return torch.device("cuda", place.local_rank)
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.local_world_size))
    return torch.device("cpu")


def continues(options: argparse.Namespace, place: Place, *, attempt: int, saved: Sequence[str]) -> bool:
    """Tell whether to continue from a checkpoint.

    Args:
        options: The command line.
        place: Of this process.
        attempt: The highest number of restarts over all machines: torchrun does not count alike on all.
        saved: Names of the checkpoints that exist.

    Raises:
        UsageError: If a restart could take an earlier training's checkpoint for this one's.
    """
    if options.c or options.val:
        return bool(options.c)
    if attempt == 0 and place.max_restarts > 0 and saved:
        raise UsageError(
            f"expected a fold without checkpoints, found {', '.join(saved)}, which a restart would take for its own; "
            "type --c to continue that training, or delete the fold's folder"
        )
    return attempt > 0 and bool(saved)


def saved_checkpoints(fold: Path) -> list[str]:
    """Return the names of a fold's checkpoints, in the order in which training continues from them."""
    from nnunet_kd.distillation.base_trainer import CHECKPOINTS

    return [name for name in CHECKPOINTS if (fold / name).is_file()]


def join(options: argparse.Namespace, place: Place, store: "Store", fold: Path) -> tuple["Store", Start]:
    """Meet the other ranks and agree with them on how to start.

    Raises:
        UsageError: If the machines do not see the same devices and checkpoints.
    """
    device = choose_device(options.device, place)
    saved = saved_checkpoints(fold)
    clean, seen = meet(store, place, [device.type, saved, place.attempt])
    if any(other[:2] != [device.type, saved] for other in seen):
        raise UsageError(
            f"expected the same devices and checkpoints everywhere, got {seen}; share nnUNet_results between the "
            "machines, or type -device cpu where only some have GPUs"
        )
    # a machine counts its own failures only, so the highest count tells
    resumes = continues(options, place, attempt=max(other[2] for other in seen), saved=saved)
    return clean, Start(device=device, resumes=resumes)


def train(options: argparse.Namespace, place: Place, store: "Store", start: Start, fold: Path) -> None:
    """Train and validate as nnUNetv2_train does."""
    import torch.distributed as dist
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    if place.rank:
        os.environ["nnUNet_wandb_enabled"] = "0"  # nnU-Net would open one run per rank
    backend = "nccl" if start.device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=place.rank, world_size=place.world_size, timeout=TIMEOUT)
    number = options.fold if options.fold == "all" else int(options.fold)
    names = (options.dataset_name_or_id, options.configuration, number, options.tr, options.p)
    trainer = get_trainer_from_args(*names, start.resumes, start.device)
    trainer.disable_checkpointing = options.disable_checkpointing
    pretrained = None if start.resumes else options.pretrained_weights
    maybe_load_checkpoint(trainer, start.resumes, options.val, pretrained)
    epochs = exchange(store, place, "epoch", trainer.current_epoch)
    if len(set(epochs)) > 1:
        raise UsageError(f"expected one checkpoint for all ranks, got epochs {epochs}; share nnUNet_results, type --c")
    if not options.val:
        trainer.run_training()
    if options.val_best:
        trainer.load_checkpoint(str(fold / "checkpoint_best.pth"))
    trainer.network.broadcast_buffers = False  # ranks predict different numbers of patches and must not meet there
    trainer.perform_actual_validation(options.npz)
    dist.destroy_process_group()


def loss_message(silent: Sequence[int] | None, place: Place, arguments: Sequence[str], fold: Path) -> str:
    """Return the line that says who was lost and how to go on."""
    if silent is None:
        who = "the first machine was lost, or another before all had met"
    elif silent:
        who = f"rank {', '.join(map(str, silent))} of {place.world_size} was lost (torchrun's lines say why)"
    else:
        who = "stopped from outside, no rank was lost"
    saved = saved_checkpoints(fold)
    state = f"the last checkpoint is {saved[0]}" if saved else "there is no checkpoint yet"
    restarts = place.max_restarts - place.attempt
    note = f" (torchrun does so itself, restarts left: {restarts})" if silent != [] and restarts > 0 else ""
    command = " ".join(["torchrun ...", PROGRAM, *(word for word in arguments if word != "--c"), "--c"])
    return f"{who}; {state}; to continue, type: {command}{note}"


def main(arguments: list[str] | None = None) -> int:
    """Train and return the exit status: 2 for a user's mistake, 1 after the loss of a rank."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = build_parser().parse_args(arguments)
    discovery.register()
    place = None
    try:
        place = read_place(EXAMPLE)
        check_options(options)
        check_trainer(options.tr)
        return _run(options, place, arguments, find_fold(options, place.world_size))
    except UsageError as error:
        if place is None or place.local_rank == 0:  # once per machine
            _say(str(error))
        return 2


def _run(options: argparse.Namespace, place: Place, arguments: Sequence[str], fold: Path) -> int:
    stop_on_sigterm()
    store = None
    try:
        store, start = join(options, place, open_store(), fold)
        train(options, place, store, start, fold)
    except (RuntimeError, Stopped) as error:
        if not lost_contact(error):
            raise
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # for the seconds that the line below needs
        silent = None if store is None else silent_ranks(store, place)
        left = [rank for rank in range(place.world_size) if rank not in (silent or [])]
        if silent is None or place.rank == left[0]:
            _say(loss_message(silent, place, arguments, fold))
        return 1
    return 0


def _say(text: str) -> None:
    print(f"nnunet_kd.launch: {' '.join(text.split())}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())

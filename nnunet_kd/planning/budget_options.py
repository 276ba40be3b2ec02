"""The options of ``nnunet_kd plan`` that let a budget choose the student."""

import argparse
from math import inf
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.memory import read_megabytes
from nnunet_kd.planning.budget_search import Limits

PLACES = ("cpu", "cpu-bf16")


def add_arguments(group: Any) -> None:  # noqa: ANN401  # argparse's group class is private
    """Declare the options."""
    group.add_argument("--max-seconds", type=float, metavar="S", help="of the data set's median case, start-up apart")
    group.add_argument("--max-memory", metavar="SIZE", help="peak of the process that predicts, e.g. 2G or 500M")
    group.add_argument("--max-megabytes", type=float, metavar="MB", help="exported network file, 10^6 bytes")
    group.add_argument(
        "--on",
        choices=PLACES,
        help="where it will predict: this machine's processor, in float32 (cpu, the default) or bfloat16",
    )
    group.add_argument("--threads", type=int, metavar="N", help="cores that prediction will have (default: all)")
    group.add_argument(
        "--own-preprocessing",
        action="store_true",
        help="search coarser spacings and their patches, too; needs --teacher-outputs cached or no teacher",
    )
    group.add_argument(
        "--budget-case",
        nargs="+",
        metavar="IMAGE",
        help="files of the case to measure on, one per channel (default: the raw training case of median size)",
    )
    group.add_argument("--measure-again", action="store_true", help="disregard what was measured before")


def read_limits(options: argparse.Namespace) -> Limits | None:
    """Return the budget, ``None`` where none was given, after a look at options that do not go with it.

    Raises:
        UsageError: If a limit is none, or options exclude each other.
    """
    given = [flag for flag in ("--max-seconds", "--max-memory", "--max-megabytes") if _value(options, flag) is not None]
    if not given:
        for flag in ("--own-preprocessing", "--budget-case", "--measure-again", "--on", "--threads"):
            if _value(options, flag):
                raise UsageError(f"{flag} belongs to a search within a budget; type --max-seconds too, or leave it out")
        return None
    for flag in ("--shrink", "--depth", "--show-taps"):
        if _value(options, flag):
            raise UsageError(f"{flag} and {given[0]} exclude each other: the budget chooses the network; leave one out")
    _check_own_preprocessing(options)
    for flag in ("--max-seconds", "--max-megabytes"):
        value = _value(options, flag)
        if value is not None and not 0 < value < inf:
            raise UsageError(f"{flag}: expected a number above 0, got {value:g}")
    return Limits(
        seconds=inf if options.max_seconds is None else options.max_seconds,
        memory=inf if options.max_memory is None else read_megabytes(options.max_memory, "--max-memory"),
        megabytes=inf if options.max_megabytes is None else options.max_megabytes,
    )


def _value(options: argparse.Namespace, flag: str) -> Any:  # noqa: ANN401  # of any option
    return getattr(options, flag.removeprefix("--").replace("-", "_"))


def _check_own_preprocessing(options: argparse.Namespace) -> None:
    if not options.own_preprocessing:
        return
    if options.geometry:
        raise UsageError("--own-preprocessing and --geometry exclude each other: a geometry fixes the patch")
    if options.teacher and options.teacher_outputs != "cached":
        raise UsageError(
            "--own-preprocessing: a teacher that runs online sees the student's images, which would be coarser than "
            "its own; type --teacher-outputs cached too"
        )

"""The verb ``nnunet_kd demo``."""

import argparse
import math
import sys
from pathlib import Path

from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd demo -o demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-o", metavar="FOLDER", type=Path, default=Path("demo"), help="the only folder written to (default: ./demo)"
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="time it may take; more gives longer trainings (default: 10)"
    )
    parser.add_argument(
        "--data", metavar="TASK_FOLDER", type=Path, help="a Decathlon task, e.g. Task04_Hippocampus (default: phantoms)"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew in place of going on where it stopped")


def run(options: argparse.Namespace) -> int:
    """Run all stages, then print the table and where the plot is."""
    from nnunet_kd.phantoms.children import ChildFailedError
    from nnunet_kd.phantoms.conclusion import conclusion
    from nnunet_kd.phantoms.demo import run_demo
    from nnunet_kd.phantoms.demo_folder import DemoSettings, open_demo_folder

    if not (math.isfinite(options.minutes) and options.minutes > 0):
        raise UsageError(f"--minutes: expected a number > 0, got {options.minutes:g}; type --minutes 10")
    if options.data is not None and not (options.data / "dataset.json").is_file():
        raise UsageError(f"--data: expected a Decathlon task's folder with dataset.json, got {options.data}")
    settings = DemoSettings(folder=options.o, minutes=options.minutes, data=options.data)
    folder = open_demo_folder(settings, overwrite=options.overwrite)
    print(f"writing to {folder.path}; interrupt it at any time, the same command goes on where it stopped")
    try:
        run_demo(folder, settings)
    except ChildFailedError as error:
        print("\n".join(["", *error.last_lines]), file=sys.stderr)
        print(f"nnunet_kd demo: {error}; the whole output is in {error.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nnnunet_kd demo: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(conclusion(folder))
    return 0

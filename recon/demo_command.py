"""``nnunet_kd recon demo``: from phantoms to report and pictures."""

import argparse
import sys
from pathlib import Path

from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd recon demo -o recon_demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-o", metavar="FOLDER", type=Path, default=Path("recon_demo"), help="the only folder written to (recon_demo)")
    add("--epochs", type=int, default=8, metavar="N", help="length of every training (default: 8)")
    add("--overwrite", action="store_true", help="begin anew in place of going on where it stopped")


def run(options: argparse.Namespace) -> int:
    """Run all stages, then print the table and where the pictures are."""
    from nnunet_kd.phantoms.children import ChildFailedError
    from nnunet_kd.recon.demo import conclusion, run_demo

    if options.epochs < 2:
        raise UsageError(f"expected at least 2 epochs (distillation has two stages), got {options.epochs}")
    folder = options.o.resolve()
    print(f"writing to {folder}; interrupt it at any time, the same command goes on where it stopped")
    try:
        finished = run_demo(folder, options.epochs, overwrite=options.overwrite)
    except ChildFailedError as error:
        print("\n".join(["", *error.last_lines]), file=sys.stderr)
        print(f"nnunet_kd recon demo: {error}; the whole output is in {error.log}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nnnunet_kd recon demo: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 130
    print(conclusion(folder, finished))
    return 0

"""``nnunet_kd convert``: a challenge's download becomes a raw nnU-Net data set."""

import argparse
import json
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge
from nnunet_kd.dataset_conversion.raw_dataset import write_raw_dataset
from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd convert decathlon Downloads/Task04_Hippocampus"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    known = "; ".join(f"{name}: {challenge(name).summary}" for name in MODULES)
    parser.add_argument("challenge", metavar="CHALLENGE", choices=sorted(MODULES), help=known)
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the unpacked download")
    parser.add_argument("-d", metavar="ID", dest="dataset_id", type=int, help="number of the data set (the source's)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--copy", dest="transfer", action="store_const", const="copy", help="copy the files (default)")
    how.add_argument("--link", dest="transfer", action="store_const", const="link", help="make symbolic links instead")
    parser.set_defaults(transfer="copy")
    parser.add_argument("--skip-faulty", action="store_true", help="leave faulty cases out")
    parser.add_argument("--overwrite", action="store_true", help="replace a data set that exists")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="running dask scheduler, tcp://HOST:PORT")


def run(options: argparse.Namespace) -> int:
    """Convert and say what was written."""
    raw = os.environ.get("nnUNet_raw")
    if not raw:
        raise UsageError("expected the variable nnUNet_raw, but it is not set; type export nnUNet_raw=FOLDER")
    description, cases = challenge(options.challenge).read_source(options.source)
    if options.dataset_id is not None:
        description = replace(description, dataset_id=options.dataset_id)
    try:
        target = write_raw_dataset(
            description,
            cases,
            Path(raw),
            source=options.source,
            transfer=options.transfer,
            skip_faulty=options.skip_faulty,
            overwrite=options.overwrite,
            scheduler=options.scheduler,
            command=_typed(options),
        )
    except FaultyCasesError as error:
        for fault in error.faults:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
        raise UsageError(
            f"expected {len(cases)} faultless cases, but the {len(error.faults)} above are faulty; "
            "nothing was written; mend them or type --skip-faulty"
        ) from error
    _summarise(target)
    return 0


def _typed(options: argparse.Namespace) -> str:
    """Return the command that repeats this conversion."""
    words = ["nnunet_kd", "convert", options.challenge, str(options.source), f"--{options.transfer}"]
    if options.dataset_id is not None:
        words += ["-d", str(options.dataset_id)]
    if options.skip_faulty:
        words.append("--skip-faulty")
    return shlex.join(words)


def _summarise(target: Path) -> None:
    record = json.loads((target / "conversion.json").read_text(encoding="utf-8"))
    counts = record["counts"]
    print(f"{target}: {counts['training']} training cases, {counts['test']} test cases")
    for case, message in record["skipped"].items():
        print(f"  left out {case}: {message}")
    number = int(target.name[len("Dataset") :].partition("_")[0])
    print(f"next: nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")

"""``nnunet_kd recon compare``: paired comparison of reconstructions, with table, intervals and pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.command import _pairs, _patients
from nnunet_kd.recon.evaluation.evaluate_command import add_metric_arguments, check_options

EXAMPLE = (
    "nnunet_kd recon compare -r kspaceTs --arm teacher=pred_teacher --arm student=pred_student "
    "--arm kd=pred_kd_seed0,pred_kd_seed1 -o report"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("-r", "--reference", type=Path, required=True, metavar="FOLDER", help="files with the targets")
    add(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=PRED[,PRED]",
        help="an arm and its folder of reconstructions, several for several runs (seeds)",
    )
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="report folder to make")
    add("--baseline", metavar="ARM", help="differences are to this arm (default: student if present, else the first)")
    add("--teacher", metavar="ARM", help="far end of the gap (default: teacher if present)")
    add(
        "--patients",
        type=Path,
        metavar="FILE",
        help="JSON {case: patient}; patients are resampled (default: those of dataset.json beside the reference)",
    )
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    add("--overwrite", action="store_true", help="replace an earlier report")
    add_metric_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Compare, write the report and print it."""
    check_options(options)
    if options.seed < 0:
        raise UsageError(f"expected a whole number from 0 for --seed, got {options.seed}")
    arms = {
        arm: [Path(folder) for folder in text.split(",") if folder]
        for arm, text in _pairs(options.arm, "--arm").items()
    }
    for arm, folders in arms.items():
        if not folders:
            raise UsageError(f"expected a folder of reconstructions for --arm {arm}, got none; type {arm}=FOLDER")

    from nnunet_kd.evaluation.report import FILES
    from nnunet_kd.evaluation.statistics import Resampling
    from nnunet_kd.recon.evaluation.comparison import ReconComparison, compare
    from nnunet_kd.recon.evaluation.data_facts import caution_beside, patients_beside

    comparison = ReconComparison(
        arms=arms,
        reference=options.reference,
        output=options.output,
        metrics=options.metrics,
        baseline=options.baseline,
        teacher=options.teacher,
        patients=_patients(options.patients) or patients_beside(options.reference),
        crop=options.crop,
        caution=caution_beside(options.reference),
        overwrite=options.overwrite,
        n_processes=options.n_workers,
        resampling=Resampling(seed=options.seed),
    )
    compare(comparison)
    print((options.output / FILES["markdown"]).read_text(encoding="utf-8"))
    print(f"report: {options.output}")

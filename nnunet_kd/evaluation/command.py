"""The verb ``compare``: paired comparison of predictions, with table, intervals and plot."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError

EXAMPLE = (
    "nnunet_kd compare --reference labelsTs --arm teacher=pred_teacher --arm student=pred_student "
    "--arm kd=pred_kd_seed0,pred_kd_seed1 -o report"
)


# the keys of score_sets.SCORE_SETS, whose module loads what the help need not
SCORES = ("nnunet", "hlfd", "brats2023", "brats2023-men", "brats2023-met", "kits23", "lits17", "msd", "acdc")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="true segmentations (not needed if every arm is a summary.json)",
    )
    add(
        "--arm",
        action="append",
        required=True,
        metavar="NAME=PRED[,PRED]",
        help="an arm and its folder of predictions, several for several runs (seeds); "
        "or nnU-Net's summary.json, then Dice only",
    )
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="report folder to make")
    add("--baseline", metavar="ARM", help="differences are to this arm (default: student if present, else the first)")
    add("--teacher", metavar="ARM", help="far end of the gap (default: teacher if present)")
    add(
        "--scores",
        choices=SCORES,
        default="nnunet",
        help="nnunet: Dice, HD95, surface Dice (default); hlfd: that paper's own Dice, VOE and RVD, from "
        "probabilities; others: that challenge's own, with its rule for empty masks (brats2023 is of GLI, SSA and PED)",
    )
    add("--tolerance", nargs="+", metavar="MM", help="of the surface Dice (default: 1.0); 2.0, or also 1.0 liver=3.0")
    add("--dataset-json", type=Path, metavar="FILE", help="names of labels or regions (default: beside the reference)")
    add("--cases", type=Path, metavar="FILE", help="compare these cases only, one name per line")
    add("--patients", type=Path, metavar="FILE", help="JSON {case: patient}; patients are resampled instead of cases")
    add("-np", dest="n_processes", type=int, metavar="N", help="processes for scoring (default: one per core)")
    add("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    add("--overwrite", action="store_true", help="replace an earlier report")
    _add_cost_arguments(parser.add_argument_group("cost"))


def _add_cost_arguments(group: Any) -> None:  # noqa: ANN401  # argparse's group class is private
    add = group.add_argument
    add("--model", action="append", default=[], metavar="ARM=FOLDER", help="nnU-Net model folder of an arm")
    add("--images", type=Path, metavar="FOLDER", help="time the models on these images with nnU-Net's predictor")
    add("-f", dest="folds", nargs="+", metavar="FOLD", help="folds to time (default: all that exist)")
    add("-chk", dest="checkpoint", default="checkpoint_final.pth", metavar="NAME", help="checkpoint to time")
    add("-device", default="cpu", choices=("cpu", "cuda"), help="where to time (default: cpu)")
    add("--disable_tta", action="store_true", help="time without mirroring")


def _pairs(texts: list[str], option: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` texts; every name once."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"expected {option} NAME=PATH, got '{text}'")
        if "|" in name or not name.isprintable() or name != name.strip():
            raise UsageError(
                f"expected a name of printable characters without '|', and without spaces around it, for {option}, "
                f"got {name!r}"
            )
        if name in pairs:
            raise UsageError(f"{option} names '{name}' twice; several runs go into one: {name}=FOLDER,FOLDER")
        pairs[name] = value
    return pairs


def _tolerances(texts: list[str]) -> tuple[float | None, dict[str, float]]:
    default: float | None = None
    by_name: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        try:
            if equals:
                by_name[name] = float(value)
            else:
                default = float(value)
        except ValueError:
            raise UsageError(f"expected --tolerance MM or STRUCTURE=MM, got '{text}'") from None
    return default, by_name


def _cases(file: Path | None) -> list[str] | None:
    if file is None:
        return None
    if not file.is_file():
        raise UsageError(f"expected a file of case names for --cases, found none at '{file}'")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except UnicodeDecodeError as error:
        raise UsageError(f"expected a text file of case names for --cases, '{file}' is none: {error}") from error
    found = list(dict.fromkeys(name for name in names if name))
    if not found:
        raise UsageError(f"expected case names in '{file}', one per line, found none")
    return found


def _patients(file: Path | None) -> dict[str, str] | None:
    from nnunet_kd.planning.model_folder import read_json

    if file is None:
        return None
    content = read_json(file)
    if not isinstance(content, dict) or any(isinstance(value, (dict, list)) for value in content.values()):
        raise UsageError(f"expected one patient per case in '{file}' as JSON, {{case: patient}}")
    return {case: json.dumps(patient) for case, patient in content.items()}


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise UsageError(f"expected fold numbers or 'all' for -f, got '{text}'")
    return int(text) if text.isdecimal() else text


def run(options: argparse.Namespace) -> None:
    """Compare, write the report and print its main table."""
    if options.n_processes is not None and options.n_processes < 1:
        raise UsageError(f"expected at least one process for -np, got {options.n_processes}")
    if options.seed < 0:
        raise UsageError(f"expected a whole number from 0 for --seed, got {options.seed}")
    arms = _pairs(options.arm, "--arm")
    default, by_name = _tolerances(options.tolerance or [])
    models = {arm: Path(folder) for arm, folder in _pairs(options.model, "--model").items()}
    folds = None if options.folds is None else [_fold(text) for text in options.folds]
    cases, patients = _cases(options.cases), _patients(options.patients)

    from nnunet_kd.evaluation.report import FILES, Comparison, compare
    from nnunet_kd.evaluation.statistics import Resampling

    comparison = Comparison(
        arms={arm: [Path(folder) for folder in folders.split(",") if folder] for arm, folders in arms.items()},
        output=options.output,
        reference=options.reference,
        baseline=options.baseline,
        teacher=options.teacher,
        models=models,
        images=options.images,
        scores=options.scores,
        tolerance=default,
        tolerances=by_name,
        dataset_json=options.dataset_json,
        cases=cases,
        patients=patients,
        overwrite=options.overwrite,
        n_processes=options.n_processes,
        resampling=Resampling(seed=options.seed),
        timing={
            "folds": folds,
            "checkpoint": options.checkpoint,
            "device": options.device,
            "mirroring": not options.disable_tta,
        },
    )
    compare(comparison)
    print((options.output / FILES["markdown"]).read_text(encoding="utf-8"))
    print(f"report: {options.output}")

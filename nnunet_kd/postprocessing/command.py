"""The verb ``postprocess``: a challenge's published rules applied to finished predictions."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.postprocessing.folder import Change

EXAMPLE = "nnunet_kd postprocess -i predictions -o predictions_brats --rules brats"

RULES = ("brats",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's options."""
    add = parser.add_argument
    add("-i", dest="predictions", type=Path, required=True, metavar="FOLDER", help="label maps by nnUNetv2_predict")
    add("-o", dest="output", type=Path, required=True, metavar="FOLDER", help="folder for the results")
    add("--rules", choices=RULES, default="brats", help="whose rules (default: %(default)s)")
    add(
        "--min-enhancing",
        type=int,
        default=32,
        metavar="VOXELS",
        help="enhancing tumour of at most so many voxels in a case becomes necrotic; 0 keeps all (default: 32)",
    )
    add(
        "--min-component",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="connected components of less than this share of the tumour are removed; 0 keeps all (default: 0.1)",
    )
    add("--dataset-json", type=Path, metavar="FILE", help="names of the labels (default: beside the predictions)")
    add("-np", dest="n_processes", type=int, metavar="N", help="processes (default: one per core where that pays)")
    add("--scheduler", metavar="ADDRESS", help="running dask scheduler that sees the same files, tcp://HOST:PORT")
    add("--overwrite", action="store_true", help="replace earlier results")


def _check(options: argparse.Namespace) -> None:
    if options.min_enhancing < 0:
        raise UsageError(f"expected a number of voxels from 0 for --min-enhancing, got {options.min_enhancing}")
    if math.isnan(options.min_component) or not 0 <= options.min_component < 1:
        raise UsageError(f"expected a share from 0 to below 1 for --min-component, got {options.min_component}")
    if options.n_processes is not None and options.n_processes < 1:
        raise UsageError(f"expected at least one process for -np, got {options.n_processes}")


def run(options: argparse.Namespace) -> None:
    """Check everything, write what is not there yet and say what changed."""
    _check(options)

    from nnunet_kd.evaluation.cases import find_cases
    from nnunet_kd.evaluation.labels import scheme_from_dataset
    from nnunet_kd.planning.model_folder import read_json
    from nnunet_kd.postprocessing import brats
    from nnunet_kd.postprocessing.folder import Job, process

    find_cases(options.predictions)  # a wrong folder is told before a missing dataset.json in it
    dataset_json: Path = options.dataset_json or options.predictions / "dataset.json"
    if not dataset_json.is_file():
        raise UsageError(
            f"expected the names of the labels in '{dataset_json}', found none; give dataset.json with --dataset-json"
        )
    dataset = read_json(dataset_json)
    labels = brats.tumour_labels(dataset, dataset_json)
    how = {"min_enhancing": options.min_enhancing, "min_component": options.min_component}
    job = Job(
        predictions=options.predictions,
        output=options.output,
        dataset_json=dataset_json,
        scheme=scheme_from_dataset(dataset, dataset_json),
        rule=partial(brats.clean, labels=labels, **how),
        settings={"rules": options.rules, **how, "labels": asdict(labels)},
        overwrite=options.overwrite,
        n_workers=0 if options.n_processes == 1 else options.n_processes,
        scheduler=options.scheduler,
    )
    print(_summary(process(job), options.output))


def _summary(changes: Mapping[str, Change], output: Path) -> str:
    from nnunet_kd.evaluation.cases import some

    if not changes:
        return f"{output}: every case was there already"
    lines = [f"{output}: {len(changes)} cases written"]
    for what, cases in (
        ("relabelled", {case: change.relabelled for case, change in changes.items()}),
        ("removed", {case: change.removed for case, change in changes.items()}),
    ):
        touched = [f"{case} ({n_voxels})" for case, n_voxels in cases.items() if n_voxels]
        lines.append(f"  voxels {what} in {len(touched)}" + (f": {some(touched)}" if touched else ""))
    return "\n".join(lines)

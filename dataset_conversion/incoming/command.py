"""``nnunet_kd convert``: a challenge's download becomes a raw nnU-Net data set."""

import argparse
import json
import os
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge
from nnunet_kd.dataset_conversion.incoming.archives import ENDINGS, Unpacked, is_archive, unpacked
from nnunet_kd.dataset_conversion.incoming.placing import Form
from nnunet_kd.dataset_conversion.incoming.raw_dataset import RECORD, Job, write_raw_dataset
from nnunet_kd.dataset_conversion.incoming.volumes import GZIP_LEVEL, WRITABLE
from nnunet_kd.errors import UsageError

EXAMPLE = "nnunet_kd convert decathlon Downloads/Task04_Hippocampus.tar"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    known = "; ".join(f"{name}: {challenge(name).summary}" for name in MODULES)
    add = parser.add_argument
    add("challenge", metavar="CHALLENGE", choices=sorted(MODULES), help=known)
    archives = f"the download, unpacked or as it comes ({' '.join(ENDINGS)})"
    add("source", metavar="SOURCE", type=Path, help=archives)
    add("-d", metavar="ID", dest="dataset_id", type=int, help="number of the data set (the source's)")
    how = parser.add_mutually_exclusive_group()
    for name, text in (
        ("copy", "copy the files (default); files that must change are always written anew"),
        ("link", "make symbolic links instead; the download must stay where it is"),
        ("recompress", f"read all files and write them again, .gz at level {GZIP_LEVEL}"),
    ):
        how.add_argument(f"--{name}", dest="transfer", action="store_const", const=name, help=text)
    parser.set_defaults(transfer="copy")
    add("--ending", metavar="ENDING", choices=WRITABLE, help=f"write files of this kind: {' '.join(WRITABLE)}")
    add("--orient", metavar="AXES", help="turn the axes, such as RAS; no voxel is interpolated (default: as they are)")
    add("--skip-faulty", action="store_true", help="leave faulty cases out")
    add("--overwrite", action="store_true", help="replace a data set that exists")
    add("--scheduler", metavar="ADDRESS", help="running dask scheduler, tcp://HOST:PORT")
    add("-np", dest="n_processes", type=int, metavar="N", help="processes (default: one per core where that pays)")


def run(options: argparse.Namespace) -> int:
    """Convert and say what was written."""
    raw = os.environ.get("nnUNet_raw")
    if not raw:
        raise UsageError("expected the variable nnUNet_raw, but it is not set; type export nnUNet_raw=FOLDER")
    form = Form(transfer=options.transfer, ending=options.ending, orientation=options.orient)
    if options.n_processes is not None and options.n_processes < 1:
        raise UsageError(f"expected -np to be at least 1, got {options.n_processes}")
    chosen = challenge(options.challenge)
    with _source(options, chosen, Path(raw)) as content:
        description, cases, folder = _read(chosen, options.source, content)
        if options.dataset_id is not None:
            description = replace(description, dataset_id=options.dataset_id)
        job = Job(
            description=description,
            cases=cases,
            raw_folder=Path(raw),
            source=folder,
            form=form,
            skip_faulty=options.skip_faulty,
            overwrite=options.overwrite,
            scheduler=options.scheduler,
            n_processes=options.n_processes,
            command=_typed(options),
            archive=(options.source, content.sha256) if content else None,
        )
        target = _write(job)
    _summarise(target)
    return 0


@contextmanager
def _source(options: argparse.Namespace, chosen: Challenge, raw: Path) -> Iterator[Unpacked | None]:
    """Unpack the source where it is an archive."""
    source: Path = options.source
    if not source.exists():
        raise UsageError(f"expected {chosen.source}; there is no {source}")
    if not source.is_file():
        yield None
        return
    if not is_archive(source):
        raise UsageError(f"expected {chosen.source}, or its archive ({', '.join(ENDINGS)}); {source} is another file")
    if options.transfer == "link":
        raise UsageError(f"expected a folder to link to, {source} is an archive; unpack it, or leave --link out")
    if not raw.is_dir():
        raise UsageError(f"expected nnUNet_raw to be a folder, got {raw}; create it with mkdir -p")
    with unpacked(source, raw) as content:
        yield content


def _read(chosen: Challenge, source: Path, content: Unpacked | None) -> tuple[DatasetDescription, list[Case], Path]:
    """Read the listing; an archive's single top folder may be the download or a part of it."""
    if content is None:
        return *chosen.read_source(source), source
    try:
        return *chosen.read_source(content.folder), content.folder
    except UsageError as error:
        try:
            return *chosen.read_source(content.root), content.root
        except UsageError:
            text = str(error).replace(str(content.root), str(source))  # the folder is gone when this is read
            raise UsageError(text) from error


def _write(job: Job) -> Path:
    try:
        return write_raw_dataset(job)
    except FaultyCasesError as error:
        for fault in error.faults:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
        raise UsageError(
            f"expected {len(job.cases)} faultless cases, but the {len(error.faults)} above are faulty; "
            "nothing was written; mend them or type --skip-faulty"
        ) from error


def _typed(options: argparse.Namespace) -> str:
    """Return the command that repeats this conversion."""
    words = ["nnunet_kd", "convert", options.challenge, str(options.source), f"--{options.transfer}"]
    for flag, value in (("-d", options.dataset_id), ("--ending", options.ending), ("--orient", options.orient)):
        if value is not None:
            words += [flag, str(value)]
    if options.skip_faulty:
        words.append("--skip-faulty")
    return shlex.join(words)


def _summarise(target: Path) -> None:
    record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    counts = record["counts"]
    print(f"{target}: {counts['training']} training cases, {counts['test']} test cases")
    if counts["taken_over"]:
        print(f"  {counts['taken_over']} cases were there from an interrupted run")
    for line in _changes(record):
        print(f"  {line}")
    for case, message in record["skipped"].items():
        print(f"  left out {case}: {message}")
    number = int(target.name[len("Dataset") :].partition("_")[0])
    if not counts["training"]:
        print(f"next: nnunet_kd pseudo_label -i {target / 'imagesTs'}")
        return
    if not record["folds"].startswith("nnU-Net's own"):
        print(f"  folds: {record['folds']}")
    print(f"next: nnUNetv2_plan_and_preprocess -d {number} --verify_dataset_integrity")


def _changes(record: dict[str, Any]) -> Iterator[str]:
    if record["counts"]["written_anew"]:
        yield f"{record['counts']['written_anew']} files were written anew, the others are the organisers' own:"
    for reason, count in Counter(reason for reasons in record["changes"].values() for reason in reasons).items():
        yield f"  {reason} ({count} cases)"

"""``nnunet_kd recon convert``: k-space files, or magnitude images, become a raw data set for reconstruction."""

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from math import pi
from pathlib import Path
from typing import Any

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import nnunet_folder
from nnunet_kd.planning.named_options import parse_named_options
from nnunet_kd.recon.data.conversion import Checked, Job, check, write
from nnunet_kd.recon.data.dataset import MEASURED, dataset_name
from nnunet_kd.recon.data.formats import FORMATS, source_format
from nnunet_kd.recon.data.formats.source import ReadOptions
from nnunet_kd.recon.data.parts import SplitOptions

EXAMPLE = "nnunet_kd recon convert fastmri -i fastMRI/knee -d 1 -n Knee --acquisition single_coil --link"
_SAMPLING = "random:acceleration=4,center_fraction=0.08"
_SHAPE = ("H", "W")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the sub-verb."""
    add = parser.add_argument
    add("format", metavar="FORMAT", choices=[*FORMATS], help="what the source is: " + _formats())
    add("-i", dest="source", metavar="FOLDER", type=Path, required=True, help="the source")
    add("-d", dest="number", metavar="ID", type=int, required=True, help="number of the data set, 1 to 999")
    add("-n", dest="name", metavar="NAME", required=True, help="its name")
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--sampling", metavar="MASK:KEY=VALUE,...", help=f"masks (the source's own, or {_SAMPLING})")
    task.add_argument(
        "--truncation", metavar=("FY", "FX"), nargs=2, type=float,
        help="super-resolution: keep 1/FY of the rows and 1/FX of the columns of k-space",
    )  # fmt: skip
    add("--test-patients", metavar="PATIENT", nargs="+", help="whose cases go to kspaceTs (the source's test part)")
    splits = parser.add_mutually_exclusive_group()
    splits.add_argument("--splits", metavar="FILE", type=Path, help="folds as in splits_final.json, cases or patients")
    splits.add_argument("--no-splits", action="store_true", help="leave the source's own train/val split out")
    add("--patients", metavar="FILE", type=Path, help="JSON object {case: patient}")
    add("--crop", metavar=_SHAPE, nargs=2, type=int, help="size of the target, about the centre (the source's)")
    add("--matrix", metavar=_SHAPE, nargs=2, type=int, help="crop or pad images to this size")
    add("--phase", metavar="RADIANS", type=float, help="give magnitude images a smooth phase, at most pi (none)")
    add("--key", metavar="KEY", help="of images in HDF5 files (image)")
    add("--axis", type=int, choices=(0, 1, 2), help="of NIfTI volumes along which the slices lie (2)")
    add("--acquisition", choices=("single_coil", "multi_coil"), help="where the source has both")
    add("--acceleration", metavar="4x", help="where a KD-MRI source has several")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--copy", dest="transfer", action="store_const", const="copy", help="copy files (default)")
    how.add_argument("--link", dest="transfer", action="store_const", const="link", help="links, to fastMRI's files")
    parser.set_defaults(transfer="copy")
    add("--check", action="store_true", help="read and check everything, write nothing")
    add("--overwrite", action="store_true", help="replace a data set that exists")
    add("--scheduler", metavar="ADDRESS", help="running dask scheduler, tcp://HOST:PORT")
    add("-np", dest="n_processes", type=int, metavar="N", help="processes (default: one per core where that pays)")


def _formats() -> str:
    return "; ".join(f"{name}: {source_format(name).summary}" for name in FORMATS)


def run(options: argparse.Namespace) -> int:
    """Convert and say what was written."""
    raw = nnunet_folder("nnUNet_raw")
    if options.n_processes is not None and options.n_processes < 1:
        raise UsageError(f"expected -np to be at least 1, got {options.n_processes}")
    job = Job(
        format_name=options.format,
        source=options.source,
        target=raw / dataset_name(options.number, options.name),
        name=options.name,
        read=_read_options(options),
        split=SplitOptions(
            test_patients=options.test_patients,
            splits=options.splits,
            patients=options.patients,
            own_splits=not options.no_splits,
        ),
        sampling=_sampling(options.sampling),
        truncation=_truncation(options.truncation),
        transfer=_transfer(options),
        overwrite=options.overwrite,
        scheduler=options.scheduler,
        n_processes=options.n_processes,
        command=shlex.join(["nnunet_kd", "recon", "convert", *map(str, _typed(options))]),
    )
    checked = _checked(job)
    if not options.check:
        write(job, checked)
    _summarise(job, checked, written=not options.check)
    return 0


def _checked(job: Job) -> Checked:
    try:
        return check(job)
    except FaultyCasesError as error:
        for fault in error.faults[1:]:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
        others = f" (and {len(error.faults) - 1} more, above)" if len(error.faults) > 1 else ""
        raise UsageError(f"{error.faults[0].message}{others}; nothing was written") from error


def _read_options(options: argparse.Namespace) -> ReadOptions:
    taken = source_format(options.format).options
    chosen: dict[str, Any] = {}
    for name in ("acquisition", "acceleration", "key", "axis", "matrix", "crop", "phase"):
        value = getattr(options, name)
        if value is None:
            continue
        if name not in taken:
            fitting = ", ".join(other for other in FORMATS if name in source_format(other).options)
            raise UsageError(f"--{name} has no meaning for format {options.format}, only for: {fitting}")
        chosen[name] = _size(value, name) if isinstance(value, list) else value
    if not 0 <= chosen.get("phase", 0) <= pi:
        raise UsageError(f"expected --phase to be from 0 to pi = {pi:.4f} radians, got {chosen['phase']:g}")
    return ReadOptions(**chosen)


def _size(values: Sequence[int], name: str) -> tuple[int, int]:
    if min(values) < 1:
        raise UsageError(f"expected --{name} to be two numbers above 0, got {values[0]} {values[1]}")
    return values[0], values[1]


def _transfer(options: argparse.Namespace) -> str:
    if options.transfer == "link" and (options.crop or not source_format(options.format).linkable):
        raise UsageError("--link needs files that stay as they are: format fastmri without --crop; leave --link out")
    return str(options.transfer)


def _sampling(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    from nnunet_kd.recon.planning.sampling import planned_sampling

    name, values = parse_named_options(text, "--sampling", _SAMPLING)
    block = {"mask": name, **values}
    planned_sampling(block, "--sampling")
    if block.get("file"):
        block["file"] = str(Path(block["file"]).resolve())
    return block


def _truncation(factors: Sequence[float] | None) -> list[float] | None:
    if factors is None:
        return None
    if min(factors) < 1 or max(factors) == 1:
        raise UsageError(f"--truncation: expected FY FX, at least 1 and not both 1, got {factors[0]:g} {factors[1]:g}")
    return [int(factor) if factor == int(factor) else factor for factor in factors]


def _typed(options: argparse.Namespace) -> list[Any]:
    """Return the words that repeat this conversion; files by their names, as the record travels."""
    words: list[Any] = [options.format, "-i", options.source.name, "-d", options.number, "-n", options.name]
    for name in ("sampling", "acquisition", "acceleration", "key", "axis", "matrix", "crop", "phase", "truncation"):
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name}", *(value if isinstance(value, list) else [value])]
    if options.test_patients:
        words += ["--test-patients", *options.test_patients]
    for name in ("splits", "patients"):
        if getattr(options, name):
            words += [f"--{name}", getattr(options, name).name]
    return words + (["--no-splits"] if options.no_splits else [])


def _summarise(job: Job, checked: Checked, *, written: bool) -> None:
    parts, facts = checked.parts, checked.facts.values()
    people = len(set(parts.patients.values()))
    print(
        f"{job.target if written else job.source}: {len(parts.training)} training cases, {len(parts.test)} test cases"
    )
    print(f"  {people} patients, {sum(one.n_slices for one in facts)} slices, {checked.content['acquisition']}")
    sizes = Counter(one.matrix for one in facts)
    shown = ", ".join(f"{size[0]}x{size[1]} ({count})" for size, count in sizes.most_common(5))
    print(f"  k-space matrices: {shown}{', ...' if len(sizes) > 5 else ''}")
    if (kspace := checked.content["kspace"]) != MEASURED:
        print(f"  k-space is {kspace}: scores on it say little about measured data")
    if not written:
        print("nothing is wrong with it; nothing was written")
        return
    print(f"next: nnunet_kd recon extract_fingerprint -d {int(job.target.name[7:10])}")

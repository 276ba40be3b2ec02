"""``nnunet_kd submit``: predictions become the file that a challenge's organisers take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_kd.cases import FaultyCasesError
from nnunet_kd.dataset_conversion.challenge import Challenge, Submission
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge
from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.dataset_conversion.outgoing.archive_check import Checked
    from nnunet_kd.dataset_conversion.outgoing.clean_up import CleanUp
    from nnunet_kd.dataset_conversion.outgoing.items import Group
    from nnunet_kd.dataset_conversion.outgoing.submission import Written

EXAMPLE = (
    "nnunet_kd submit decathlon predictions -o decathlon.zip --images $nnUNet_raw\n"
    "  nnunet_kd submit decathlon decathlon.zip --check --images $nnUNet_raw"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    add = parser.add_argument
    known = sorted(name for name in MODULES if challenge(name).submission)
    add("challenge", metavar="CHALLENGE", choices=known, help=f"whose: {', '.join(known)}")
    add(
        "predictions",
        metavar="PREDICTIONS",
        type=Path,
        nargs="?",
        help="folder by nnUNetv2_predict, or by nnunet_kd recon predict for fastmri; with --check also an archive",
    )
    add("-o", dest="output", metavar="ARCHIVE", type=Path, help="what is written")
    add(
        "--images",
        metavar="FOLDER",
        type=Path,
        help="test images, imagesTs or the organisers' folder: their headers are copied and their cases must be there; "
        "for fastmri the test files",
    )
    add("--check", action="store_true", help="check only, write nothing")
    add("--partial", action="store_true", help="allow missing cases, where the organisers do")
    add(
        "--min-enhancing",
        metavar="VOXELS",
        type=int,
        default=0,
        help="BraTS: enhancing tumour of fewer voxels in a case becomes necrosis (default: keep all)",
    )
    add(
        "--min-lesion",
        metavar="VOXELS",
        type=int,
        default=0,
        help="connected components of a label or region with fewer voxels are removed (default: keep all)",
    )
    add("--dataset-json", metavar="FILE", type=Path, help="names of the labels (default: beside the predictions)")
    add("--container", metavar="FOLDER", type=Path, help="write a container's folder in place of an archive; needs -m")
    add("-m", dest="model", metavar="STUDENT", type=Path, help="the container's model, by nnunet_kd release")
    add("--overwrite", action="store_true", help="replace an earlier submission or container")
    add("-np", dest="n_processes", metavar="N", type=int, help="processes (default: one per core where that pays)")
    add("--scheduler", metavar="ADDRESS", help="running dask scheduler that sees the same files, tcp://HOST:PORT")


def run(options: argparse.Namespace) -> int:
    """Check everything, write what was asked for and say what it is."""
    found = challenge(options.challenge)
    if found.submission is None:
        raise UsageError(f"{options.challenge} takes no submissions; name another challenge")
    _check_options(options, found.submission)
    if options.container is not None:
        return _container(options, found.submission)
    return _predictions(options, found, found.submission)


def _check_options(options: argparse.Namespace, submission: Submission) -> None:
    wrong = next((text for is_wrong, text in _conflicts(options, submission) if is_wrong), None)
    if wrong:
        raise UsageError(wrong)


def _conflicts(options: argparse.Namespace, submission: Submission) -> list[tuple[bool, str]]:
    """Return what would be wrong with the options, and whether it is."""
    inside = options.container is not None
    given = options.predictions or options.output or options.check
    return [
        (inside and bool(given), "--container packs a model, not predictions; leave PREDICTIONS, -o and --check out"),
        (inside and options.model is None, "expected the model of the container; type -m STUDENT (nnunet_kd release)"),
        (not inside and options.model is not None, "-m is the model of a container; type --container FOLDER too"),
        (not inside and options.predictions is None, "expected a folder of predictions; type it after the challenge"),
        (not inside and not (options.output or options.check), "expected what to do; type -o ARCHIVE or --check"),
        (
            options.partial and not (submission.partial or submission.tasks),
            f"the organisers of {options.challenge} take all cases or none; predict the others and leave --partial out",
        ),
        (
            min(options.min_enhancing, options.min_lesion) < 0,
            f"expected numbers of voxels from 0, got --min-enhancing {options.min_enhancing} and "
            f"--min-lesion {options.min_lesion}; 0 keeps all",
        ),
        (
            submission.image_size is not None and bool(options.min_enhancing or options.min_lesion),
            f"--min-enhancing and --min-lesion are for label maps; leave them out for {options.challenge}",
        ),
        (
            options.n_processes is not None and options.n_processes < 1,
            f"expected at least one process for -np, got {options.n_processes}",
        ),
    ]


def _container(options: argparse.Namespace, submission: Submission) -> int:
    from nnunet_kd.dataset_conversion.outgoing.container import write_container

    lines = write_container(
        options.challenge, submission, options.model, options.container, overwrite=options.overwrite
    )
    print("\n".join(lines))
    _note(submission)
    return 0


def _predictions(options: argparse.Namespace, found: Challenge, submission: Submission) -> int:
    # imported here, so that --help stays fast
    from nnunet_kd.dataset_conversion.outgoing.archive_check import Checked, check_archive, is_archive
    from nnunet_kd.dataset_conversion.outgoing.items import make_groups
    from nnunet_kd.dataset_conversion.outgoing.submission import check_groups, check_target, write_submission

    source: Path = options.predictions
    made_before = is_archive(source)
    if made_before and not options.check:
        raise UsageError(f"expected a folder of predictions, got the archive {source}; type --check to check it")
    if options.output is not None and not options.check:
        _refuse_overlap(options)
        check_target(options.output, submission, overwrite=options.overwrite)
    groups = make_groups(found, submission, None if made_before else source, options.images, partial=options.partial)
    clean_ups = [] if made_before else [_clean_up(options, group) for group in groups]
    how = {"n_workers": 0 if options.n_processes == 1 else options.n_processes, "scheduler": options.scheduler}

    def check() -> Checked:
        if made_before:
            return check_archive(source, submission, groups, partial=options.partial)
        n_files = check_groups(groups, **how)
        return Checked(n_files=n_files, warnings=tuple(text for group in groups for text in group.warnings))

    checked = _listing_faults(check, "" if options.check else "nothing was written; ")
    for warning in checked.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if options.check:
        print(f"{source}: {checked.n_files} cases without fault")
    else:
        written = write_submission(
            groups, clean_ups, options.output, submission=submission, overwrite=options.overwrite, **how
        )
        print("\n".join(_summary(options.output, written)))
    _note(submission)
    return 0


def _refuse_overlap(options: argparse.Namespace) -> None:
    ours = options.output.resolve()
    for theirs in (folder.resolve() for folder in (options.predictions, options.images) if folder is not None):
        if theirs.is_relative_to(ours) or theirs == ours:
            raise UsageError(f"expected an archive outside of {theirs}, which is read, got {ours}; type another -o")


def _clean_up(options: argparse.Namespace, group: Group) -> CleanUp:
    from nnunet_kd.dataset_conversion.outgoing.clean_up import prepare_clean_up

    if group.predictions is None:  # a task that is left out
        return prepare_clean_up(Path())
    named = options.dataset_json or group.predictions / "dataset.json"
    return prepare_clean_up(named, min_enhancing=options.min_enhancing, min_lesion=options.min_lesion)


def _listing_faults(check: Callable[[], Checked], outcome: str) -> Checked:
    """Print all faults of a check, one line per case, and end with one line."""
    try:
        return check()
    except FaultyCasesError as error:
        for fault in error.faults:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
        raise UsageError(
            f"expected faultless cases, but the {len(error.faults)} above are not; {outcome}mend them"
        ) from error


def _summary(target: Path, written: Written) -> Sequence[str]:
    from nnunet_kd.dataset_conversion.outgoing.submission import sums_beside
    from nnunet_kd.evaluation.cases import some

    lines = [f"{target}: {len(written.files)} cases, {written.n_bytes / 1e6:.3g} MB"]
    lines.append(f"sha256: {written.sha256}" if written.sha256 else f"sha256 of each file: {sums_beside(target)}")
    for what, counts in (
        ("enhancing tumour called necrotic", {name: file.n_enhancing for name, file in written.files.items()}),
        ("small components removed", {name: file.n_lesion for name, file in written.files.items()}),
    ):
        touched = [f"{name} ({n_voxels} voxels)" for name, n_voxels in counts.items() if n_voxels]
        if touched:
            lines.append(f"{what} in {len(touched)} cases: {some(touched)}")
    return lines


def _note(submission: Submission) -> None:
    if submission.note:
        print(f"note: {submission.note}")

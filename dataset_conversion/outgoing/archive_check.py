"""An archive that was made before, by us or by hand, held against what its organisers take."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from nnunet_kd.cases import Fault
from nnunet_kd.dataset_conversion.challenge import Submission
from nnunet_kd.dataset_conversion.outgoing.archive_writer import ENDINGS, members
from nnunet_kd.dataset_conversion.outgoing.items import Group, Item, list_items, missing_tasks
from nnunet_kd.dataset_conversion.outgoing.label_volumes import decode, grid_faults, read_grid, value_faults
from nnunet_kd.dataset_conversion.outgoing.reconstructions import ENDING, volume_faults
from nnunet_kd.dataset_conversion.outgoing.submission import all_grid_faults, raise_faults, rule_of, sums_beside
from nnunet_kd.errors import UsageError


def is_archive(path: Path) -> bool:
    """Tell an archive, or a folder that was written as a submission, from a folder of predictions."""
    return path.is_file() or (path.is_dir() and sums_beside(path).is_file())


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A faultless archive.

    Attributes:
        n_files: Number of files in it.
        warnings: What could not be checked, and what the organisers will not like.
    """

    n_files: int
    warnings: tuple[str, ...]


def check_archive(archive: Path, submission: Submission, groups: Sequence[Group], *, partial: bool = False) -> Checked:
    """Read every file of an archive and raise all faults together.

    Args:
        archive: The file, or the folder where the organisers take files by themselves.
        submission: What they take.
        groups: What must be there, listed without predictions.
        partial: Whether cases, or tasks where there are several, may be missing.

    Raises:
        FaultyCasesError: With every fault.
        UsageError: If it is no archive of the kind, or cannot be read.
    """
    endings = ENDINGS[submission.archive]
    if archive.is_dir() != (submission.archive == "folder") or not archive.name.lower().endswith(endings):
        raise UsageError(f"expected a {submission.archive} for this challenge, got {archive}; name the right one")
    expected = {item.member: (item, group.submission) for group in groups for item in group.items}
    faults = [fault for group in groups for fault in group.faults]
    times: Counter[str] = Counter()
    for name, content in tqdm(members(archive), desc="Checking", unit="case"):
        times[name] += 1
        found = expected.get(name) or _guess(name, groups)
        if found is None:
            faults.append(Fault(name, "is no file that the organisers ask for"))
        else:
            faults += [Fault(name, text) for text in _content_faults(content, *found)]
    faults += [Fault(name, f"is there {n_times} times") for name, n_times in times.items() if n_times > 1]
    absent = [group for group in groups if group.name and not any(name.startswith(f"{group.name}/") for name in times)]
    faults += _missing(groups, absent, times, partial=partial)
    raise_faults(faults, len(times))
    # of tasks that are not there nothing had to be checked
    warnings = [text for group in groups if group not in absent for text in group.warnings]
    if absent:
        warnings.append(missing_tasks(len(groups) - len(absent), len(groups)))
    return Checked(n_files=len(times), warnings=tuple(warnings))


def _missing(groups: Sequence[Group], absent: Sequence[Group], names: Container[str], *, partial: bool) -> list[Fault]:
    """Name tasks without a file, and cases that are not there; of several tasks some may be left out, never a part."""
    faults = [] if partial else [Fault(group.name, "has no file in the archive") for group in absent]
    whole = [group for group in groups if group not in absent and (group.name or not partial)]
    members_of = (item.member for group in whole for item in group.items)
    return faults + [Fault(member, "is missing") for member in members_of if member not in names]


def _guess(name: str, groups: Sequence[Group]) -> tuple[Item, Submission] | None:
    """Find whose file this is among groups whose cases are not known: any name counts that the challenge would give."""
    for group in groups:
        folder = f"{group.name}/" if group.name else ""
        inner = PurePosixPath(name.removeprefix(folder))
        case = inner.name.removesuffix(".gz").removesuffix(".nii").removesuffix(ENDING)
        items, _ = list_items(group.submission, {case: [Path(inner)]}, None)
        if not group.items and items and name == folder + items[0].member:
            return items[0], group.submission
    return None


def _content_faults(content: bytes, item: Item, submission: Submission) -> list[str]:
    if submission.image_size is not None:
        return volume_faults(io.BytesIO(content), item.image, submission.image_size)
    try:
        labels, grid, kind = decode(content, item.member)
        image = read_grid(item.image) if item.image else None
    except UsageError as error:
        return [" ".join(str(error).split())]
    faults = [] if kind == np.uint8 else [f"is stored as {kind}, expected uint8"]
    rule = rule_of(submission)
    faults += value_faults(labels, list(rule.label_values.values()))
    # the file itself is what organisers look at, so that what they fix is compared with it and not with the image
    faults += all_grid_faults(grid, None, rule)
    if image is not None:
        faults += grid_faults(grid, image, tolerance=rule.tolerance, like="its test image")
    return faults

"""Which files make up a submission: predictions, their test images, their places in the archive, and what is amiss."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from nnunet_kd.cases import Fault
from nnunet_kd.dataset_conversion.challenge import Challenge, Submission
from nnunet_kd.dataset_conversion.outgoing.reconstructions import ENDING, find_test_files
from nnunet_kd.errors import UsageError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")  # of predictions and images
_WRITTEN = (".nii.gz", ".nii")
_RECONSTRUCTIONS = (ENDING,)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One file of a submission.

    Attributes:
        case: Its name, for messages with the task before it.
        member: Path in the archive.
        prediction: Label map or reconstruction of ours, ``None`` where the archive itself is looked at.
        image: Test image, or k-space, whose grid it must have, ``None`` where none were given.
    """

    case: str
    member: str
    prediction: Path | None
    image: Path | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Predictions that one rule holds for: those of a challenge, or of one of its tasks.

    Attributes:
        name: Its folder in the archive, the task; empty where there is one group only.
        submission: The rule; ``cases`` are those that must be there.
        predictions: Folder of predictions, ``None`` where the archive itself is looked at.
        items: One per file.
        faults: What is missing, too many or cannot be named.
        warnings: What could not be checked.
    """

    name: str = ""
    submission: Submission
    predictions: Path | None
    items: tuple[Item, ...]
    faults: tuple[Fault, ...] = ()
    warnings: tuple[str, ...] = field(default=())


def find_test_images(folder: Path, challenge: Challenge) -> tuple[dict[str, Path], tuple[str, ...]]:
    """Find the first channel of every test image, in a converted data set or as the organisers give them.

    Args:
        folder: ``imagesTs`` of a converted data set, the data set itself, or the organisers' folder.
        challenge: Reads the organisers' folder.

    Returns:
        The images by name of the case, and the cases to be predicted: those without a label, or all where all have one.

    Raises:
        UsageError: If it is neither.
    """
    if not folder.is_dir():
        raise UsageError(f"expected a folder of test images, found none at {folder}; check --images")
    for place in (folder, folder / "imagesTs"):
        if images := _converted(place):
            return images, tuple(images)
    try:
        _, cases = challenge.read_source(folder)
    except UsageError as error:
        raise UsageError(
            f"expected nnU-Net's imagesTs (CASE_0000.nii.gz) or {challenge.source} at {folder}: {error}"
        ) from error
    images = {case.name: case.images[0].path for case in cases}
    unlabelled = tuple(case.name for case in cases if case.label is None)
    return images, unlabelled or tuple(images)


def _converted(folder: Path) -> dict[str, Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [(re.fullmatch(r"(.+)_0000(\.nii\.gz|\.nii|\.nrrd|\.mha)", file.name), file) for file in files]
    return {match[1]: file for match, file in named if match and not file.name.startswith(".")}


def find_predictions(folder: Path, endings: Sequence[str] = ENDINGS) -> dict[str, list[Path]]:
    """Find predictions by name of the case; what else is written beside them is passed over.

    Args:
        folder: Where they lie.
        endings: Of their files.

    Raises:
        UsageError: If there is no such folder, or no prediction in it.
    """
    if not folder.is_dir():
        raise UsageError(f"expected a folder of predictions, found none at {folder}; check the path")
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        ending = next((ending for ending in endings if file.name.lower().endswith(ending)), None)
        if ending is not None and not file.name.startswith(".") and file.is_file():
            found.setdefault(file.name[: -len(ending)], []).append(file)
    if not found:
        raise UsageError(f"expected predictions (CASE{', CASE'.join(endings)}) in {folder}, found none")
    return found


def list_items(
    submission: Submission,
    predictions: Mapping[str, Sequence[Path]] | None,
    images: tuple[Mapping[str, Path], Sequence[str]] | None,
    *,
    prefix: str = "",
    partial: bool = False,
) -> tuple[list[Item], list[Fault]]:
    """Bring predictions, images and the list of cases together.

    Args:
        submission: What the organisers take.
        predictions: Files by name of the case; ``None`` takes every case that must be there.
        images: As :func:`find_test_images` finds them, ``None`` where none were given.
        prefix: Folder in the archive, with its ``/``.
        partial: Whether cases may be missing.

    Returns:
        One item per case, in order, and what is wrong with the list.
    """
    required = submission.cases if submission.cases is not None else (images[1] if images else None)
    names = predictions if predictions is not None else (required or ())
    known = set(required or ()) | set(images[0] if images and submission.cases is None else ())
    order = {case: number for number, case in enumerate(required or ())}
    items, faults = [], []
    for case in sorted(names, key=lambda case: (order.get(case, len(order)), case)):
        found = list(predictions[case]) if predictions is not None else [None]
        member, problem = _member(submission, case)
        problems = [
            *(
                [f"is there {len(found)} times: {', '.join(str(file and file.name) for file in found)}"]
                * (len(found) > 1)
            ),
            *(["is no case that the organisers ask for"] * (required is not None and case not in known)),
            *(["has no test image"] * (images is not None and case in known and case not in images[0])),
            *([problem] * bool(problem)),
        ]
        faults += [Fault(prefix + case, text) for text in problems]
        if not problems:
            image = images[0][case] if images else None
            items.append(Item(case=prefix + case, member=prefix + member, prediction=found[0], image=image))
    if predictions is not None and not partial:
        faults += [Fault(prefix + case, "has no prediction") for case in required or () if case not in predictions]
    return items, faults + _same_member(items)


def _member(submission: Submission, case: str) -> tuple[str, str]:
    """Return a case's path in the archive, and what is wrong with it."""
    try:
        member = submission.file_name(case)
    except Exception as error:  # noqa: BLE001  # the challenge's own function, given a name that it does not know
        return "", f"has a name that the organisers' cannot be made of ({' '.join(str(error).split())})"
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts or "\\" in member:
        return "", f"would lead out of the archive: {member}"
    endings, kind = (_RECONSTRUCTIONS, "HDF5") if submission.image_size else (_WRITTEN, "NIfTI")
    return member, "" if member.endswith(endings) else f"would become {member}, no {kind} file"


def _same_member(items: Iterable[Item]) -> list[Fault]:
    first: dict[str, Item] = {}
    faults = []
    for item in items:
        other = first.setdefault(item.member.lower(), item)  # some systems do not tell upper from lower case
        if other is not item:
            faults.append(Fault(item.case, f"would become {item.member}, as {other.case} does"))
    return faults


def group_tasks(folder: Path, tasks: Iterable[str]) -> tuple[dict[str, Path], list[str]]:
    """Find the folder of each task: itself, or one below, called ``TaskXX_Name`` or ``DatasetXXX_Name``.

    Args:
        folder: With one folder per task, or of one task.
        tasks: ``TaskXX_Name`` of all.

    Returns:
        The folders by task, and the names of tasks that have two.
    """
    by_name = {task.partition("_")[2].lower(): task for task in tasks}
    found: dict[str, list[Path]] = {}
    candidates = [folder.resolve()]
    if _task_of(candidates[0], by_name) is None:
        candidates = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for path in candidates:
        if task := _task_of(path, by_name):
            found.setdefault(task, []).append(path)
    return {task: paths[0] for task, paths in found.items()}, [task for task, paths in found.items() if len(paths) > 1]


def _images_of_tasks(images: Path, places: Mapping[str, object], submission: Submission) -> dict[str, Path]:
    found, twice = group_tasks(images, submission.tasks)
    if any(task in places for task in twice):
        raise UsageError(f"expected one folder of images per task in {images}, found two of {twice[0]}; give another")
    if not found and len(places) == 1:
        return {next(iter(places)): images}  # imagesTs itself
    if not found:
        raise UsageError(
            f"expected folders called {next(iter(submission.tasks))} and so on in {images}; check --images"
        )
    return found


def _task_of(folder: Path, by_name: Mapping[str, str]) -> str | None:
    match = re.fullmatch(r"(?:Task\d{2}|Dataset\d{3})_(.+)", folder.name)
    return by_name.get(match[1].lower()) if match else None


def make_groups(
    challenge: Challenge, submission: Submission, predictions: Path | None, images: Path | None, *, partial: bool
) -> list[Group]:
    """List everything that goes into one archive, task by task where there are several.

    Args:
        challenge: Reads the organisers' folder of test images.
        submission: What its organisers take.
        predictions: Folder of predictions; ``None`` where an archive is looked at.
        images: Folder of test images, ``None`` where none were given.
        partial: Whether cases, or tasks where there are several, may be missing.

    Raises:
        UsageError: If a folder is not what it should be.
    """
    if not submission.tasks:
        return [_group(challenge, submission, predictions, images, partial=partial)]
    places, twice = group_tasks(predictions, submission.tasks) if predictions else (dict.fromkeys(submission.tasks), [])
    if not places:
        raise UsageError(
            f"expected folders called {next(iter(submission.tasks))} and so on in {predictions}, found none; "
            "give the predictions of each task a folder of its name"
        )
    of_images = _images_of_tasks(images, places, submission) if images else {}
    groups = []
    for task, values in submission.tasks.items():
        rule = replace(submission, tasks={}, label_values=values)
        if task in places:
            group = _group(challenge, rule, places[task], of_images.get(task), name=task, searched=images)
        else:
            missing = () if partial else (Fault(task, "has no folder of predictions"),)
            group = Group(name=task, submission=rule, predictions=None, items=(), faults=missing)
        if task in twice:
            group = replace(group, faults=(*group.faults, Fault(task, "has two folders of predictions")))
        groups.append(group)
    if partial and len(places) < len(submission.tasks):
        text = missing_tasks(len(places), len(submission.tasks))
        groups[0] = replace(groups[0], warnings=(*groups[0].warnings, text))
    return groups


def missing_tasks(n_there: int, n_tasks: int) -> str:
    """Warn of an archive that lacks tasks."""
    return f"the archive holds {n_there} of {n_tasks} tasks; the organisers refuse such an archive"


def _test_images(
    folder: Path, challenge: Challenge, submission: Submission
) -> tuple[Mapping[str, Path], Sequence[str]]:
    if submission.image_size is None:
        return find_test_images(folder, challenge)
    files = find_test_files(folder)
    return files, tuple(files)


def _group(
    challenge: Challenge,
    submission: Submission,
    predictions: Path | None,
    images: Path | None,
    *,
    name: str = "",
    partial: bool = False,
    searched: Path | None = None,
) -> Group:
    found = _test_images(images, challenge, submission) if images else None
    endings = _RECONSTRUCTIONS if submission.image_size else ENDINGS
    listed = find_predictions(predictions, endings) if predictions else None
    prefix = f"{name}/" if name else ""
    items, faults = list_items(submission, listed, found, prefix=prefix, partial=partial)
    warnings = []
    if found is None:
        what = "grids" if submission.cases is not None else "missing cases and grids"
        why = f"for want of its images in {searched}" if searched else "for want of --images"
        warnings.append(f"{name}: {what} not checked, {why}".removeprefix(": "))
    return Group(
        name=name,
        submission=submission,
        predictions=predictions,
        items=tuple(items),
        faults=tuple(faults),
        warnings=tuple(warnings),
    )

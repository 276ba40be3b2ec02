"""The mixed data set: labelled cases as they are, pseudo-labelled ones beside them, as nnU-Net wants raw data."""

import csv
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_kd.cases import FaultyCasesError, map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.labels import IGNORE
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import nnunet_folder, read_json, read_json_object, write_json_atomically
from nnunet_kd.planning.nnunet_files import check_dataset, pseudo_labelled_cases
from nnunet_kd.pseudo_labels.channels import channel_names
from nnunet_kd.pseudo_labels.pool import Scan, unpack
from nnunet_kd.pseudo_labels.splits import Splits

TABLE, SPLITS = "pseudo_labels.csv", "splits_final.json"
KEY = "nnunet_kd"  # in dataset.json


# ---- where it goes ----


@dataclass(frozen=True, kw_only=True)
class Target:
    """The data set to be written.

    Attributes:
        raw: Its folder in ``nnUNet_raw``.
        preprocessed: Its folder in ``nnUNet_preprocessed``.
    """

    raw: Path
    preprocessed: Path

    @property
    def number(self) -> int:
        """Number of the data set."""
        return int(self.raw.name[7:10])


def find_target(name: str, *, sources: Sequence[Path], overwrite: bool) -> Target:
    """Check that a data set may be written.

    Args:
        name: ``DatasetXXX_Name``.
        sources: Folders that are read; none may lie in the data set's own.
        overwrite: Whether an earlier pseudo-labelled data set may be replaced.

    Raises:
        UsageError: If the name is none, its number is taken, or there is something else in its place.
    """
    if not re.fullmatch(r"Dataset\d{3}_[A-Za-z0-9]+([_-][A-Za-z0-9]+)*", name) or name.startswith("Dataset000"):
        raise UsageError(f"-o: expected a name like Dataset501_BratsPseudo, got '{name}'")
    raw, preprocessed = nnunet_folder("nnUNet_raw"), nnunet_folder("nnUNet_preprocessed")
    results = os.environ.get("nnUNet_results")
    for place in [raw, preprocessed, *([Path(results)] if results else [])]:
        taken = sorted(path for path in place.glob(f"{name[:10]}*") if path.name != name)
        if taken:
            raise UsageError(f"-o: expected number {int(name[7:10])} to be free, {taken[0]} has it; choose another")
    target = Target(raw=raw / name, preprocessed=preprocessed / name)
    inside = [source for source in sources if source.resolve().is_relative_to(target.raw.resolve())]
    if inside:
        raise UsageError(f"-o: {name} would replace {inside[0]}, which is read; name another data set")
    check_replaceable(target.raw, is_ours=is_ours, what="a pseudo-labelled data set", overwrite=overwrite)
    others = [path for path in (target.preprocessed / SPLITS, target.preprocessed / "dataset.json") if path.exists()]
    if others and not overwrite:
        raise UsageError(f"-o: {others[0]} is of another data set of this name; name another, or type --overwrite")
    return target


def is_ours(folder: Path) -> bool:
    """Tell whether a raw data set was written here and nothing was put beside."""
    if {path.name for path in folder.iterdir()} - {"imagesTr", "labelsTr", "dataset.json", TABLE, SPLITS}:
        return False
    try:
        return (folder / TABLE).is_file() and KEY in read_json_object(folder / "dataset.json")
    except UsageError:
        return False


# ---- the labelled cases ----


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """The data set with labels.

    Attributes:
        folder: In ``nnUNet_raw``.
        content: Of its dataset.json.
        scans: Its training cases.
        labels: The label file of each.
        splits: Content of its own ``splits_final.json``, ``None`` without one.
    """

    folder: Path
    content: dict[str, Any]
    scans: list[Scan]
    labels: dict[str, Path]
    splits: object | None


def open_labelled(text: str) -> Labelled:
    """Open a raw data set, by number or name.

    Raises:
        UsageError: If there is none, it has no cases, or one has no label.
    """
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    raw = nnunet_folder("nnUNet_raw")
    named = sorted(raw.glob(f"Dataset{int(text):03d}_*")) if text.isdecimal() else [raw / text]
    found = [folder for folder in named if (folder / "dataset.json").is_file()]
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise UsageError(f"--labelled: expected one data set '{text}' in {raw}, found {names}")
    (folder,) = found
    content = read_json_object(folder / "dataset.json")
    check_dataset(content, str(folder / "dataset.json"))
    file_ending(content, str(folder / "dataset.json"))
    pseudo_labelled_cases(content, str(folder / "dataset.json"))
    if not isinstance(content.get("dataset", {}), Mapping):
        raise UsageError(f"{folder / 'dataset.json'}: expected 'dataset' as an object of cases; mend or remove it")
    listed = get_filenames_of_train_images_and_targets(str(folder)) if _has_training_cases(folder, content) else {}
    if not listed:
        raise UsageError(f"--labelled: expected training cases in {folder}, found none; leave it out, or name another")
    labels = {str(case): Path(entry["label"]) for case, entry in listed.items()}
    missing = [path for path in labels.values() if not path.is_file()]
    if missing:
        raise UsageError(f"--labelled: expected a label at {missing[0]}, found none; complete the data set")
    order = tuple(range(len(channel_names(content))))
    scans = [
        Scan(name=str(case), files=tuple(map(Path, entry["images"])), order=order, n_channels=len(order))
        for case, entry in listed.items()
    ]
    splits = nnunet_folder("nnUNet_preprocessed") / folder.name / SPLITS
    return Labelled(
        folder=folder,
        content=content,
        scans=scans,
        labels=labels,
        splits=read_json(splits) if splits.is_file() else None,
    )


def file_ending(content: Mapping[str, Any], where: str) -> str:
    """Return how the names of a data set's files end.

    Args:
        content: Of its dataset.json.
        where: How to name that file.

    Raises:
        UsageError: If it does not say.
    """
    ending = content.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise UsageError(f"{where}: expected a file_ending like '.nii.gz', got {ending!r:.40}; mend the file")
    return ending


def _has_training_cases(folder: Path, content: Mapping[str, Any]) -> bool:
    return "dataset" in content or (folder / "imagesTr").is_dir()


# ---- writing ----


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A case of the new data set.

    Attributes:
        scan: Its images.
        label: Its label file.
        link: Whether images and labels are linked in place of copied; pseudo-labels and packed images never are.
        pseudo: Whether the label is a pseudo-label.
    """

    scan: Scan
    label: Path
    link: bool
    pseudo: bool


def place_case(case: Placed, *, folder: Path, ending: str) -> None:
    """Write a case's images and label into a raw data set.

    Args:
        case: The case.
        folder: The data set's.
        ending: Of every file.

    Raises:
        UsageError: If a file cannot be written.
    """
    scan = case.scan
    targets = [folder / "imagesTr" / f"{scan.name}_{n:04d}{ending}" for n in range(len(scan.order))]
    try:
        if scan.packed:
            unpack(scan, targets)
        else:
            for number, target in zip(scan.order, targets, strict=True):
                _put(scan.files[number], target, link=case.link)
        _put(case.label, folder / "labelsTr" / f"{scan.name}{ending}", link=case.link and not case.pseudo)
    except OSError as error:  # no bug of ours, so without its traceback
        raise UsageError(f"{error.filename or targets[0]}: {error.strerror or error}") from error


def _put(source: Path, target: Path, *, link: bool) -> None:
    target.unlink(missing_ok=True)  # a case may be tried twice
    if link:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def describe(
    teacher: Mapping[str, Any],
    *,
    name: str,
    n_training: int,
    pseudo_labels: Mapping[str, Mapping[str, float]],
    teachers: Sequence[str],
) -> dict[str, Any]:
    """Return the content of dataset.json, which nnU-Net copies to the preprocessed data and to every model.

    Args:
        teacher: The first teacher's, whose channels and labels count.
        name: What follows the number.
        n_training: Number of cases.
        pseudo_labels: ``confidence`` and ``disagreement`` of each case whose label is a pseudo-label.
        teachers: Names of the members that made them.
    """
    kept = ("channel_names", "modality", "labels", "regions_class_order", "overwrite_image_reader_writer")
    return {
        **{key: teacher[key] for key in kept if key in teacher},
        "numTraining": n_training,
        "file_ending": teacher["file_ending"],
        "name": name,
        "description": "Labels of the cases in nnunet_kd, pseudo_labels are the teachers'",
        "reference": "",
        "licence": "",
        "release": "",
        KEY: {"pseudo_labels": dict(pseudo_labels), "teachers": list(teachers)},
    }


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of a case of the pool.

    Attributes:
        case: Its name.
        source: Its first image file.
        record: ``confidence``, ``disagreement`` and ``volumes`` in mm^3 by structure; empty where it was not labelled.
        why: The reason why it was left out; empty for a case that was kept.
    """

    case: str
    source: Path
    record: Mapping[str, Any]
    why: str


def write_table(path: Path, rows: Sequence[Row], structures: Sequence[str]) -> None:
    """Write ``pseudo_labels.csv``: a line per case of the pool.

    Args:
        path: The file.
        rows: The cases.
        structures: Names of classes or regions.
    """
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        volumes = [f"volume_mm3_{name}" for name in structures]
        writer.writerow(["case", "source", "confidence", "disagreement", *volumes, "kept", "why"])
        for row in rows:
            of_structures = row.record.get("volumes", {})
            numbers = [
                row.record.get("confidence"),
                row.record.get("disagreement"),
                *map(of_structures.get, structures),
            ]
            shown = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow([row.case, row.source, *shown, "no" if row.why else "yes", row.why])


def write_dataset(
    target: Target,
    cases: Sequence[Placed],
    content: Mapping[str, Any],
    *,
    rows: Sequence[Row],
    splits: Splits | None,
    n_workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write the raw data set, then dataset.json and folds beside the preprocessed data, where nnU-Net reads them.

    The raw data set appears complete or not at all.

    Args:
        target: Where.
        cases: All training cases.
        content: Of dataset.json.
        rows: Of the table.
        splits: The folds; ``None`` for none, and those of an earlier data set of this name are removed.
        n_workers: Local processes, ``0`` for this one, ``None`` for one per core.
        scheduler: Address of a running dask cluster.

    Raises:
        UsageError: If a file cannot be written.
    """
    structures = [name for name, value in content["labels"].items() if value != 0 and name != IGNORE]
    run = partial(map_cases, name=_name, scheduler=scheduler, n_workers=n_workers, seconds_per_case=0.2)
    with work_folder(target.raw) as work:
        new = work / "new"
        for part in ("imagesTr", "labelsTr"):
            (new / part).mkdir(parents=True)
        place = partial(place_case, folder=new, ending=content["file_ending"])
        try:
            run(place, cases, description="Writing")
        except FaultyCasesError as error:
            raise UsageError(
                f"expected to write {target.raw}, but {error.faults[0].message}; free space and type the same again"
            ) from error
        write_table(new / TABLE, rows, structures)
        write_json_atomically(dict(content), new / "dataset.json")
        if splits is not None:
            write_json_atomically(splits, new / SPLITS)
        move_into_place(new, target.raw)
    target.preprocessed.mkdir(exist_ok=True)
    write_json_atomically(dict(content), target.preprocessed / "dataset.json")
    if splits is None:
        (target.preprocessed / SPLITS).unlink(missing_ok=True)
    else:
        write_json_atomically(splits, target.preprocessed / SPLITS)


def _name(case: Placed) -> str:
    return case.scan.name

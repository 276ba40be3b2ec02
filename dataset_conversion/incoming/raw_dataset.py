"""A raw nnU-Net data set from a list of cases: everything is checked, then everything is written."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nnunet_kd import __version__
from nnunet_kd.cases import Fault, FaultyCasesError, map_cases, paying_workers
from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription
from nnunet_kd.dataset_conversion.incoming.checking import CheckedCase, check_case
from nnunet_kd.dataset_conversion.incoming.folds import patient_folds
from nnunet_kd.dataset_conversion.incoming.journal import note, recall, stamp
from nnunet_kd.dataset_conversion.incoming.placing import Form, PlacedCase, is_placed, linked, place_case
from nnunet_kd.dataset_conversion.recorded_folder import FILES, check_recorded
from nnunet_kd.errors import UsageError
from nnunet_kd.output import continued_folder, move_into_place

# Rough, to judge whether more processes pay; a wrong guess costs seconds at most.
_SECONDS, _BYTES_PER_SECOND = 0.01, 10e6  # of opening a case's files, of reading them
_LINK_SECONDS = 0.002
_SAMPLE = 20
RECORD = "conversion.json"
SPLITS = "splits_final.json"


@dataclass(frozen=True, kw_only=True)
class Job:
    """One conversion.

    Attributes:
        description: What the cases have in common; its ``dataset_id`` must be set.
        cases: Training cases (with a label) and test cases (without); a pool has none with a label.
        raw_folder: nnU-Net's folder of raw data sets.
        source: Folder that the recorded paths are relative to.
        form: How files are written.
        skip_faulty: Leave faulty cases out in place of refusing them all.
        overwrite: Replace a data set that exists.
        scheduler: Address of a running dask scheduler.
        n_processes: Local processes, ``None`` for one per core where that pays.
        command: What was typed, for ``conversion.json``.
        archive: The file that ``source`` was unpacked from and its SHA-256.
    """

    description: DatasetDescription
    cases: Sequence[Case] = field(repr=False)
    raw_folder: Path
    source: Path
    form: Form = field(default_factory=Form)
    skip_faulty: bool = False
    overwrite: bool = False
    scheduler: str | None = None
    n_processes: int | None = None
    command: str = ""
    archive: tuple[Path, str] | None = None


def write_raw_dataset(job: Job) -> Path:
    """Check all cases, then write them as ``DatasetXXX_NAME``.

    The folder appears complete or not at all. What a killed run of an equal job had checked and written is taken
    over, where sources still have their sizes and times and written files their hashes. ``conversion.json`` in the
    folder tells where everything comes from; only a folder with that file is ever replaced.

    Returns:
        The data set's folder.

    Raises:
        FaultyCasesError: With all faults of all cases, unless ``skip_faulty``.
        UsageError: If the folder or another data set of this number exists, or no case is left.
    """
    target = _target(job)
    _refuse_unprintable(job.cases)
    with continued_folder(target, _key(job)) as work:
        seconds = _seconds_per_case(job.cases)
        checked = _run(job, partial(_check, job=_for_workers(job), work=work), job.cases, "Checking", seconds)
        faults = _all_faults(job.cases, checked)
        if faults and not job.skip_faulty:
            raise FaultyCasesError(faults, len(job.cases))
        kept = _kept(job, checked, {fault.case for fault in faults})
        if all(linked(case, result, job.description, job.form) for case, result in kept):
            seconds = _LINK_SECONDS
        new = work / "new"
        new.mkdir(exist_ok=True)
        try:
            placed = _run(job, partial(_place, job=_for_workers(job), work=work), kept, "Writing", seconds)
        except FaultyCasesError as error:
            raise UsageError(
                f"expected to write {target}, but {error.faults[0].message}; free space and type the same again"
            ) from error
        _remove_others(new, placed)
        _describe(job, kept, placed, faults, new)
        move_into_place(new, _target(job))  # asked again, since somebody may have put something there meanwhile
    return target


Pair = tuple[Case, CheckedCase]


def _run(job: Job, function: Any, items: Sequence[Any], description: str, seconds: float) -> list[Any]:  # noqa: ANN401
    return map_cases(
        function,
        items,
        description=description,
        name=_name,
        scheduler=job.scheduler,
        n_workers=job.n_processes and paying_workers(len(items), seconds, job.n_processes),
        seconds_per_case=seconds,
    )


def _seconds_per_case(cases: Sequence[Case]) -> float:
    """Guess how long reading a case takes, from the sizes of some."""
    states = [state for case in cases[:: max(1, len(cases) // _SAMPLE)] if (state := stamp(case, Path()))]
    sizes: list[int] = [sum({path: size for path, _, size, _ in state}.values()) for state in states]
    return _SECONDS + sum(sizes) / max(1, len(sizes)) / _BYTES_PER_SECOND


def _name(item: Case | Pair) -> str:
    return item.name if isinstance(item, Case) else item[0].name


def _for_workers(job: Job) -> Job:
    """Return the job without its cases, which need not travel with each of them."""
    return replace(job, cases=())


def _key(job: Job) -> str:
    """Name everything that a finished case depends on, besides its own files."""
    origin = str(job.archive) if job.archive else str(job.source.resolve())
    return "\n".join((__version__, origin, repr(job.description), repr(job.form)))


def _kept(job: Job, checked: Sequence[CheckedCase], faulty: set[str]) -> list[Pair]:
    kept = [pair for pair in zip(job.cases, checked, strict=True) if pair[0].name not in faulty]
    pool = all(case.label is None for case in job.cases)
    if not any(pool or case.label for case, _ in kept):
        wanted = "case" if pool else "training case"
        raise UsageError(f"expected at least one faultless {wanted} in {job.source}, got {len(faulty)} faulty ones")
    return kept


def _check(case: Case, *, job: Job, work: Path) -> CheckedCase:
    state = stamp(case, job.source)
    known = recall(work / "checked", case.name, state)
    if known is not None:
        hashes = tuple((path, digest) for path, digest in known["hashes"])
        return CheckedCase((), hashes, known["label_type"])
    result = check_case(case, description=job.description, source=job.source)
    if not result.faults:
        note(work / "checked", case.name, state, {"hashes": result.hashes, "label_type": result.label_type})
    return result


def _place(pair: Pair, *, job: Job, work: Path) -> PlacedCase:
    case, checked = pair
    state = stamp(case, job.source)
    known = recall(work / "placed", case.name, state)
    if known is not None:
        placed = PlacedCase(known["files"], tuple(known["changes"]), known["n_rewritten"], taken_over=True)
        if is_placed(placed, work / "new", case):
            return placed
    placed = place_case(
        case, checked, source=job.source, folder=work / "new", description=job.description, form=job.form
    )
    content = {"files": dict(placed.files), "changes": placed.changes, "n_rewritten": placed.n_rewritten}
    note(work / "placed", case.name, state, content)
    return placed


def _remove_others(new: Path, placed: Sequence[PlacedCase]) -> None:
    """Remove what an interrupted run wrote of cases that are no longer there."""
    expected = {new / path for result in placed for path in result.files}
    for path in list(new.rglob("*")):
        if path not in expected and (path.is_symlink() or not path.is_dir()):
            path.unlink()


def _target(job: Job) -> Path:
    number, raw_folder = job.description.dataset_id, job.raw_folder
    if number is None or not 0 < number < 1000:
        raise UsageError(f"expected a data set number from 1 to 999, got {number}; type -d ID")
    if not raw_folder.is_dir():
        raise UsageError(f"expected nnUNet_raw to be a folder, got {raw_folder}; create it with mkdir -p")
    target = raw_folder / f"Dataset{number:03d}_{job.description.name}"
    others = [path.name for path in raw_folder.glob(f"Dataset{number:03d}_*") if path != target]
    if others:
        raise UsageError(f"expected number {number} to be free, but {others[0]} has it; type -d ID")
    ours, theirs = target.resolve(), job.source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise UsageError(f"expected the source {job.source} outside of {target}, which is to be written; type -d ID")
    check_recorded(target, RECORD, what="a converted data set", overwrite=job.overwrite)
    return target


def _refuse_unprintable(cases: Sequence[Case]) -> None:
    """Refuse names that no list and no message can show; they become names of files."""
    for case in cases:
        if not (case.name and case.name.isprintable()):
            raise UsageError(f"expected cases with names of printable characters, got {case.name!r}; rename its files")


def _all_faults(cases: Sequence[Case], checked: Sequence[CheckedCase]) -> list[Fault]:
    names = Counter(case.name.casefold() for case in cases)
    labels = Counter(map(_whole_label, cases))
    faults = []
    for case, result in zip(cases, checked, strict=True):
        n_names, n_labels = names[case.name.casefold()], labels[_whole_label(case)]
        messages = [
            *([f"its name is given to {n_names} cases, capitals aside"] * (n_names > 1)),
            *([f"its label map is that of {n_labels} cases"] * (n_labels > 1 and _whole_label(case) is not None)),
            *result.faults,
        ]
        if messages:
            faults.append(Fault(case.name, "; ".join(messages)))
    return faults


def _whole_label(case: Case) -> str | None:
    """Return the file that is a case's label map; masks, of which maps are painted, may belong to several cases."""
    return None if case.label is None or case.label_layers else os.path.realpath(case.label)


def _describe(
    job: Job, kept: Sequence[Pair], placed: Sequence[PlacedCase], faults: Sequence[Fault], folder: Path
) -> None:
    """Write everything but the cases."""
    n_training = sum(case.label is not None for case, _ in kept)
    splits, folds = patient_folds([case for case, _ in kept])
    values = {str(theirs): ours for theirs, ours in job.description.label_values.items()}
    ending = job.form.ending_for(job.description)
    written = [path for result in placed for path in result.files]
    record: dict[str, Any] = {
        "command": job.command,
        "nnunet_kd": __version__,
        "source": str(job.archive[0] if job.archive else job.source),
        **({"source_sha256": job.archive[1]} if job.archive else {}),
        "transfer": job.form.transfer,
        "counts": {
            "training": n_training,
            "test": len(kept) - n_training,
            "skipped": len({fault.case for fault in faults}),
            "written_anew": sum(result.n_rewritten for result in placed),
            "taken_over": sum(result.taken_over for result in placed),
        },
        "folds": folds,
        "label_values": values,
        "changes": {
            case.name: list(done.changes) for (case, _), done in zip(kept, placed, strict=True) if done.changes
        },
        "skipped": {fault.case: fault.message for fault in faults},
        FILES: sorted([*written, RECORD, "dataset.json", *([SPLITS] if splits is not None else [])]),
        "sha256": {path: digest for _, result in kept for path, digest in result.hashes},
    }
    if splits is not None:
        _write_json(splits, folder / SPLITS)
    _write_json(record, folder / RECORD)
    _write_json(replace(job.description, file_ending=ending).to_json(n_training), folder / "dataset.json")


def _write_json(content: Mapping[str, Any] | Sequence[Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

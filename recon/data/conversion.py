"""From a source to a raw data set of k-space: everything is read and checked, then everything is written."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.cases import FaultyCasesError, map_cases, paying_workers
from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically
from nnunet_kd.recon.data.cases import ENDING, check_values, write_volume
from nnunet_kd.recon.data.dataset import (
    DATASET_JSON,
    ORIGIN_OF_SOURCE,
    ORIGINS,
    SIMULATED,
    TASKS,
    TEST,
    TRAINING,
    check_settings,
)
from nnunet_kd.recon.data.formats import source_format
from nnunet_kd.recon.data.formats.source import ReadOptions, SourceCase, SourceFormat
from nnunet_kd.recon.data.parts import Parts, SplitOptions, deal_out

_SECONDS, _BYTES_PER_SECOND = 0.01, 50e6  # rough: of opening a case, of reading and transforming it
_SAMPLE = 20


@dataclass(frozen=True, kw_only=True)
class Job:
    """One conversion.

    Attributes:
        format_name: One of :data:`nnunet_kd.recon.data.formats.FORMATS`.
        source: Folder that is read.
        target: ``.../DatasetXXX_Name``.
        name: Of the data set, without its number.
        read: What was chosen for reading.
        split: What was chosen about patients and splits.
        sampling: Masks; ``None`` for the source's own one or the default, or where ``truncation`` is given.
        truncation: Factors ``[FY, FX]``, ``None`` for reconstruction.
        transfer: ``copy`` or ``link``: how files go that are case files as they are.
        overwrite: Replace a data set of this kind that exists.
        scheduler: Address of a running dask scheduler.
        n_processes: Local processes, ``None`` for one per core where that pays.
        command: What was typed.
    """

    format_name: str
    source: Path
    target: Path
    name: str
    read: ReadOptions = field(default_factory=ReadOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    sampling: Mapping[str, Any] | None = None
    truncation: Sequence[float] | None = None
    transfer: str = "copy"
    overwrite: bool = False
    scheduler: str | None = None
    n_processes: int | None = None
    command: str = ""

    @property
    def format(self) -> SourceFormat:
        """What knows the source."""
        return source_format(self.format_name)


@dataclass(frozen=True)
class CaseFacts:
    """What reading a case has shown.

    Attributes:
        patient: Whose it is.
        single_coil: Whether its k-space has no axis of coils.
        n_coils: Coils.
        matrix: Of k-space.
        has_target: Whether its truth is known.
        n_slices: Slices that are kept.
        source_format: What the case was made of.
    """

    patient: str
    single_coil: bool
    n_coils: int
    matrix: tuple[int, int]
    has_target: bool
    n_slices: int
    source_format: str


@dataclass(frozen=True)
class Checked:
    """A conversion that may be written.

    Attributes:
        cases: Of the source.
        facts: Of each of them.
        parts: Where they go.
        content: Of ``dataset.json``.
        mask: To be written beside it, ``None`` without one.
    """

    cases: Sequence[SourceCase]
    facts: Mapping[str, CaseFacts]
    parts: Parts
    content: Mapping[str, Any]
    mask: NDArray[np.float32] | None


def check(job: Job) -> Checked:
    """Read every case of the source and check everything; writes nothing.

    Raises:
        FaultyCasesError: With the faults of all cases; each names file and key.
        UsageError: If there is no case, a patient is in two parts, or the target may not be replaced.
    """
    if not job.source.is_dir():
        raise UsageError(f"expected {job.format.layout}; there is no folder {job.source}")
    _check_target(job)
    cases = job.format.find(job.source, job.read)
    found = _map(job, partial(_check_case, name=job.format_name, options=job.read), cases, "Checking")
    facts = {case.name: one for case, one in zip(cases, found, strict=True)}
    parts = deal_out(cases, {name: one.patient for name, one in facts.items()}, job.split)
    _refuse_unfit(parts, cases, facts)
    _refuse_nothing_left(job, facts.values())
    mask = _fixed_mask(job, cases)
    content = _content(job, facts, parts, mask)
    check_settings(content, parts.training, parts.test, str(job.source))
    return Checked(cases, facts, parts, content, mask)


def write(job: Job, checked: Checked) -> Path:
    """Write the data set; the folder appears when it is complete.

    Raises:
        UsageError: If the disk is full or the target appeared meanwhile.
    """
    with work_folder(job.target) as work:
        new = work / "new"
        for part in (TRAINING, TEST):
            (new / part).mkdir(parents=True)
        test = set(checked.parts.test)
        items = [(case, new / (TEST if case.name in test else TRAINING)) for case in checked.cases]
        placing = partial(_place, name=job.format_name, options=job.read, transfer=job.transfer)
        try:
            _map(job, placing, items, "Writing")
        except FaultyCasesError as error:
            raise UsageError(f"expected to write {job.target}, but {error.faults[0].message}") from error
        if checked.mask is not None:
            np.save(new / _mask_file(job), checked.mask)
        write_json_atomically(checked.content, new / DATASET_JSON)
        _check_target(job)  # asked again, since somebody may have put something there meanwhile
        move_into_place(new, job.target)
    return job.target


def _check_target(job: Job) -> None:
    number = job.target.name.partition("_")[0]
    others = [path.name for path in job.target.parent.glob(f"{number}_*") if path != job.target]
    if others:
        raise UsageError(f"expected {number} to be free, but {others[0]} has it; type another -d")
    what = "a raw data set for reconstruction"
    check_replaceable(job.target, is_ours=_is_ours, what=what, overwrite=job.overwrite)


def _is_ours(folder: Path) -> bool:
    path = folder / DATASET_JSON
    return path.is_file() and read_json_object(path).get("task") in TASKS


def _check_case(case: SourceCase, *, name: str, options: ReadOptions) -> CaseFacts:
    volume = _read(case, name, options)
    check_values(volume, str(case.files[0]))
    header = volume.header
    return CaseFacts(
        patient=case.patient or header.patient,
        single_coil=header.single_coil,
        n_coils=header.n_coils,
        matrix=header.matrix,
        has_target=header.has_target,
        n_slices=header.n_slices,
        source_format=header.source_format,
    )


def _origin(job: Job, facts: Iterable[CaseFacts]) -> str:
    """Say where the k-space comes from: measured only if no case says otherwise."""
    if job.read.phase:
        return SIMULATED
    found = {ORIGIN_OF_SOURCE.get(one.source_format, job.format.kspace) for one in facts}
    return max(found, key=ORIGINS.index)


def _read(case: SourceCase, name: str, options: ReadOptions) -> Any:  # noqa: ANN401  # a Volume
    try:
        return source_format(name).read(case, options)
    except ValueError as error:  # a crop that is larger than the image
        raise UsageError(f"{case.files[0]}: {error}; type a smaller --crop") from error


def _place(item: tuple[SourceCase, Path], *, name: str, options: ReadOptions, transfer: str) -> None:
    case, folder = item
    target = folder / f"{case.name}{ENDING}"
    if not source_format(name).linkable or options.crop is not None:
        write_volume(target, _read(case, name, options))
    elif transfer == "link":
        target.symlink_to(case.files[0].resolve())
    else:
        shutil.copyfile(case.files[0], target)


def _map(job: Job, function: Any, items: Sequence[Any], description: str) -> list[Any]:  # noqa: ANN401
    seconds = _seconds_per_case(items)
    return map_cases(
        function,
        items,
        description=description,
        name=_name,
        scheduler=job.scheduler,
        n_workers=job.n_processes and paying_workers(len(items), seconds, job.n_processes),
        seconds_per_case=seconds,
    )


def _name(item: SourceCase | tuple[SourceCase, Path]) -> str:
    return item.name if isinstance(item, SourceCase) else item[0].name


def _seconds_per_case(items: Sequence[Any]) -> float:
    cases = [item if isinstance(item, SourceCase) else item[0] for item in items[:: max(1, len(items) // _SAMPLE)]]
    sizes = [sum(file.stat().st_size for file in case.files) for case in cases]
    return _SECONDS + sum(sizes) / max(1, len(sizes)) / _BYTES_PER_SECOND


def _refuse_unfit(parts: Parts, cases: Sequence[SourceCase], facts: Mapping[str, CaseFacts]) -> None:
    """Refuse training cases without target, and cases of another kind than the first."""
    files = {case.name: case.files[0] for case in cases}
    untrue = [name for name in parts.training if not facts[name].has_target]
    if untrue:
        raise UsageError(
            f"expected a target in every training case, found none in {files[untrue[0]]}; "
            f"type --test-patients {facts[untrue[0]].patient} if it is a test case"
        )
    first = cases[0].name
    for name, one in facts.items():  # the number of coils may vary, as in fastMRI's brain data
        if one.single_coil != facts[first].single_coil:
            axes = 3 if facts[first].single_coil else 4
            raise UsageError(f"expected {axes} axes in key 'kspace' of {files[name]}, as in {files[first]}")


def _refuse_nothing_left(job: Job, facts: Iterable[CaseFacts]) -> None:
    for matrix in {one.matrix for one in facts}:
        if job.truncation is not None and any(f > n for f, n in zip(job.truncation, matrix, strict=True)):
            factors = " ".join(f"{factor:g}" for factor in job.truncation)
            raise UsageError(f"--truncation: expected at most the matrix {matrix[0]} {matrix[1]}, got {factors}")


def _fixed_mask(job: Job, cases: Sequence[SourceCase]) -> NDArray[np.float32] | None:
    if job.sampling is not None or job.truncation is not None or job.format.fixed_mask is None:
        return None
    return job.format.fixed_mask(cases, job.read)


def _mask_file(job: Job) -> str:
    return f"mask_{job.read.acceleration or 'source'}.npy"


def _content(
    job: Job, facts: Mapping[str, CaseFacts], parts: Parts, mask: NDArray[np.float32] | None
) -> dict[str, Any]:
    single = next(iter(facts.values())).single_coil
    degradation: dict[str, Any]
    if job.truncation is not None:
        degradation = {"task": "super_resolution", "truncation": {"factor": list(job.truncation)}}
    elif mask is not None:
        block = {"mask": "file", "file": _mask_file(job), "acceleration": round(mask.size / float(mask.sum()), 4)}
        degradation = {"task": "reconstruction", "sampling": {**block, "centred": True}}
    else:
        default = {"mask": "random", "acceleration": 4, "center_fraction": 0.08}
        degradation = {"task": "reconstruction", "sampling": dict(job.sampling or default)}
    return {
        "name": job.name,
        **degradation,
        "acquisition": "single_coil" if single else "multi_coil",
        "kspace": _origin(job, facts.values()),
        "patients": {name: parts.patients[name] for name in (*parts.training, *parts.test)},
        **({"splits": parts.splits} if parts.splits else {}),
        "numTraining": len(parts.training),
        "file_ending": ENDING,
        "licence": job.format.licence or "as the source's",
        "reference": job.format.reference or "of the source",
        "converted_from": {"format": job.format_name, "source": job.source.name, "command": job.command},
    }

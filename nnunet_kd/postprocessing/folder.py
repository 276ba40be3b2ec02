"""Rules applied to a folder of predictions: checked as a whole, then written case by case into another folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.cases import map_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import find_cases, some
from nnunet_kd.evaluation.labels import LabelScheme
from nnunet_kd.nifti import check_whole, is_nifti
from nnunet_kd.output import check_replaceable, work_folder
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically

RECORD = "nnunet_kd_postprocessing.json"  # nnU-Net writes a postprocessing.json of its own
DATASET = "dataset.json"

_SECONDS_PER_CASE = 0.5  # a BraTS volume on one core; a wrong guess costs a second at most

Rule = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is done to which folder.

    Attributes:
        predictions: NIfTI label maps of nnU-Net; never changed.
        output: Folder for the results.
        dataset_json: Names of the labels; copied beside the results.
        scheme: Values that the label maps may hold.
        rule: From a label map to a new one; must be picklable.
        settings: What the rule was told, as JSON values; only equal settings continue an interrupted run.
        overwrite: Whether earlier results may be replaced.
        n_workers: Processes; ``None`` chooses.
        scheduler: Address of a running dask scheduler.
    """

    predictions: Path
    output: Path
    dataset_json: Path
    scheme: LabelScheme
    rule: Rule
    settings: Mapping[str, Any]
    overwrite: bool = False
    n_workers: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the rule did to one case.

    Attributes:
        relabelled: Foreground voxels that got another label.
        removed: Foreground voxels that became background.
    """

    relabelled: int
    removed: int


def process(job: Job) -> dict[str, Change]:
    """Check all cases, then write those that are not there yet, each under a temporary name first.

    Returns:
        What was done to each case written by this run, by name; none where all were there.

    Raises:
        UsageError: If a folder, a file or its labels do not fit, before anything is written; if the output
            exists and ``overwrite`` is missing.
    """
    files = _find(job)
    run = partial(map_cases, name=str, n_workers=job.n_workers, scheduler=job.scheduler)
    check = partial(check_file, scheme=job.scheme)
    digests = run(check, files.values(), description="Checking", seconds_per_case=_SECONDS_PER_CASE)
    record = {"format": 1, **job.settings, "sha256": dict(zip(files, digests, strict=True))}
    _open_output(job, record)
    left = {case: file for case, file in files.items() if not (job.output / file.name).exists()}
    if not left:
        return {}
    with work_folder(job.output) as work:
        write = partial(_write_case, rule=job.rule, output=job.output, work=work)
        changes = run(write, left.values(), description="Post-processing", seconds_per_case=_SECONDS_PER_CASE)
    return dict(zip(left, changes, strict=True))


def _find(job: Job) -> dict[str, Path]:
    files = find_cases(job.predictions)
    others = [file.name for file in files.values() if not is_nifti(file)]
    if others:
        raise UsageError(
            f"expected NIfTI label maps (.nii.gz, .nii) in '{job.predictions}', found {some(others)}; "
            "move them away or convert them"
        )
    ours, theirs = job.output.resolve(), job.predictions.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise UsageError(f"expected an output outside of '{job.predictions}', got '{job.output}'; type another -o")
    _check_output(job, overwrite=True)  # a folder of others is refused before the work; ours may be continued
    return files


def _check_output(job: Job, *, overwrite: bool) -> None:
    def is_ours(folder: Path) -> bool:
        return (folder / RECORD).is_file()

    check_replaceable(job.output, is_ours=is_ours, what="post-processed predictions", overwrite=overwrite)


def check_file(file: Path, *, scheme: LabelScheme) -> str:
    """Read a label map once and return the SHA-256 of its file.

    Raises:
        UsageError: If it cannot be read, has not two or three axes, or holds values that the scheme does not name.
    """
    labels, _ = read_label_map(file)
    if unknown := scheme.unknown(labels):
        raise UsageError(
            f"expected only the labels that dataset.json names, found {some([str(value) for value in unknown])}; "
            "give the dataset.json of these predictions with --dataset-json"
        )
    digest: str = hashlib.sha256(file.read_bytes()).hexdigest()
    return digest


def read_label_map(file: Path) -> tuple[NDArray[Any], Any]:
    """Read labels as whole numbers of the file's own type, and the image they are from.

    Raises:
        UsageError: If the file cannot be read, is truncated, has not two or three axes or holds other numbers.
    """
    import nibabel  # only where files are read, so that --help stays fast

    try:
        check_whole(file)
        image: Any = nibabel.load(file)
        array = np.asanyarray(image.dataobj)
    # whatever a damaged file makes nibabel and gzip raise
    except Exception as error:
        raise UsageError(f"cannot be read ({' '.join(str(error).split())}); predict it again") from error
    if array.ndim not in (2, 3):
        raise UsageError(f"expected a label map of three axes, got shape {array.shape}; give label maps, no images")
    if array.dtype.kind not in "iuf":  # colours are records, and complex numbers would lose a part in silence
        raise UsageError(f"expected whole numbers (labels), found {voxel_type(image)}; give label maps, no images")
    if not np.issubdtype(array.dtype, np.integer):
        labels = np.rint(array)
        if not np.array_equal(labels, array):
            raise UsageError("expected whole numbers (labels), found others; give label maps, no probabilities")
        array = labels.astype(np.int64)
    if array.dtype.itemsize > 4 and array.size:  # NIfTI readers rarely know 64 bits
        array = array.astype(np.promote_types(np.min_scalar_type(array.min()), np.min_scalar_type(array.max())))
    return array, image


def voxel_type(image: Any) -> str:  # noqa: ANN401  # nibabel has no types
    """Return NIfTI's own name of a file's voxel type, ``RGB`` for example."""
    from nibabel.nifti1 import data_type_codes

    return str(data_type_codes.label[int(image.header["datatype"])])


def _open_output(job: Job, record: Mapping[str, Any]) -> None:
    """Make the folder, or keep one that an equal run began, or clear what may be replaced."""
    known = job.output / RECORD
    if not job.overwrite and known.is_file() and read_json_object(known) == record:
        return
    _check_output(job, overwrite=job.overwrite)
    job.output.mkdir(parents=True, exist_ok=True)
    # the record goes first: without it no case would be taken for finished
    known.unlink(missing_ok=True)
    for file in job.output.iterdir():
        if is_nifti(file):
            file.unlink()
    shutil.copyfile(job.dataset_json, job.output / DATASET)
    write_json_atomically(record, known)


def _write_case(file: Path, *, rule: Rule, output: Path, work: Path) -> Change:
    before, image = read_label_map(file)
    after = rule(before)
    temporary = work / file.name
    try:
        _save(after.astype(before.dtype, copy=False), image, temporary)
        temporary.replace(output / file.name)
    except OSError as error:
        raise UsageError(f"{error.strerror or error}; free space and type the same again") from error
    lost = (before > 0) & (after == 0)
    return Change(relabelled=int(((before != after) & ~lost).sum()), removed=int(lost.sum()))


def _save(labels: NDArray[Any], like: Any, file: Path) -> None:  # noqa: ANN401  # nibabel has no types
    """Write labels with all of another image's header but its scaling."""
    import nibabel

    header = like.header.copy()
    header.set_data_dtype(labels.dtype)
    header.set_slope_inter(1, 0)
    nibabel.save(type(like)(labels, like.affine, header), file)

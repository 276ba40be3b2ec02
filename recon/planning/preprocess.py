"""From raw cases to blosc2 arrays of which training reads single slices."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable, continued_folder, move_into_place
from nnunet_kd.planning.json_blocks import write_block
from nnunet_kd.planning.model_folder import read_json, write_json_atomically
from nnunet_kd.recon.data.arrays import root_sum_of_squares, to_images
from nnunet_kd.recon.data.cases import CaseHeader, Volume, read_header, read_volume
from nnunet_kd.recon.data.dataset import RawDataset
from nnunet_kd.recon.data.measuring import SampleSettings, SliceData, sample_settings, sensitivities_of, volume_scale
from nnunet_kd.recon.data.preprocessed_facts import PreprocessedFacts
from nnunet_kd.recon.planning.case_work import map_files
from nnunet_kd.recon.planning.plans import ReconPlans

RECORD = "preprocessing.txt"  # not .json: those are cases


@dataclass(frozen=True, kw_only=True)
class CaseJob:
    """One case to preprocess.

    Attributes:
        name: Of the case.
        path: Its raw file.
        patient: Whose it is.
        folder: Where its arrays go.
        settings: Of its samples.
    """

    name: str
    path: Path
    patient: str
    folder: Path
    settings: SampleSettings


def preprocess(
    dataset: RawDataset,
    plans: ReconPlans,
    configuration: str,
    folder: Path,
    *,
    overwrite: bool = False,
    scheduler: str | None = None,
    n_workers: int | None = None,
) -> Path:
    """Write a configuration's preprocessed cases; the folder appears when all are there.

    An interrupted run is finished by the next one.

    Args:
        dataset: The raw data set.
        plans: Its plans.
        configuration: Name of one of them.
        folder: ``nnUNet_preprocessed/DatasetXXX_Name``.
        overwrite: Whether an earlier result may be replaced.
        scheduler: Address of a running dask scheduler.
        n_workers: Local processes, 0 for this one.

    Returns:
        The folder of the cases.

    Raises:
        UsageError: If a case is faulty, not as planned, or without truth; nothing is written then.
    """
    planned = plans.configuration(configuration)
    target = folder / planned.data_identifier
    record = described(dataset, plans)
    if not overwrite and is_preprocessed(target) and read_json(target / RECORD) == record:
        return target  # by another plan of the same data, or by an earlier run
    check_replaceable(target, is_ours=is_preprocessed, what="cases of other data or masks", overwrite=overwrite)
    for path in dataset.training.values():
        check_header(read_header(path), plans, path)
    settings = sample_settings(plans, planned)
    with continued_folder(target, json.dumps(record)) as work:
        new = work / "new"
        new.mkdir(exist_ok=True)
        jobs = [
            CaseJob(name=name, path=path, patient=dataset.patients[name], folder=new, settings=settings)
            for name, path in dataset.training.items()
        ]
        map_files(
            preprocess_case,
            jobs,
            "Preprocessing",
            path_of=lambda job: job.path,
            scheduler=scheduler,
            n_workers=n_workers,
        )
        (new / RECORD).write_text(json.dumps(record, indent=4) + "\n", encoding="utf-8")
        move_into_place(new, target)
    return target


def is_preprocessed(folder: Path) -> bool:
    """Tell whether a folder was written by :func:`preprocess`."""
    return (folder / RECORD).is_file()


def described(dataset: RawDataset, plans: ReconPlans) -> dict[str, Any]:
    """Return what the arrays depend on: the raw files and, for several coils or scales of volumes, the masks."""
    files = {name: [path.stat().st_size, path.stat().st_mtime_ns] for name, path in dataset.training.items()}
    record: dict[str, Any] = {"dataset": dataset.name, "files": files}
    if plans.acquisition == "multi_coil" or plans.normalisation.scope == "volume":
        record |= {"sampling": plans.sampling, "truncation": plans.truncation, "scale": asdict(plans.normalisation)}
    stored: dict[str, Any] = write_block(record)
    return stored


def check_header(header: CaseHeader, plans: ReconPlans, path: Path) -> None:
    """Refuse a case that is not as the plans have it.

    Raises:
        UsageError: Names file and key.
    """
    again = f"type: nnunet_kd recon extract_fingerprint -d {plans.dataset_name} --overwrite, and plan again"
    if header.n_coils not in plans.coils:
        planned = " or ".join(map(str, plans.coils))
        raise UsageError(
            f"expected {planned} coils as planned in key 'kspace' of {path}, got {header.n_coils}; {again}"
        )
    if plans.matrices and header.matrix not in plans.matrices:
        planned = " or ".join(f"{h}x{w}" for h, w in plans.matrices)
        raise UsageError(
            f"expected a matrix of {planned} in key 'kspace' of {path}, as planned, got "
            f"{header.matrix[0]}x{header.matrix[1]}; {again}"
        )
    if header.has_mask and not header.has_target:
        raise UsageError(
            f"expected the key '{header.target_key}' in {path}: a mask sampled the case, so that its truth cannot be "
            "computed; take it out of kspaceTr"
        )


def preprocess_case(job: CaseJob) -> None:
    """Write one case, unless an interrupted run has done so.

    Raises:
        UsageError: If the file is faulty.
    """
    facts_path = job.folder / f"{job.name}.json"
    if facts_path.exists():
        return
    header = read_header(job.path)
    try:
        write_arrays(job, header)
    except RuntimeError as error:  # blosc2's word for a write that failed
        raise UsageError(f"cannot write {job.folder} ({error}); free space there") from error
    facts = PreprocessedFacts(
        name=job.name,
        patient=job.patient,
        n_slices=header.n_slices,
        n_coils=header.n_coils,
        matrix=header.matrix,
        target_shape=header.target_shape or header.matrix,
        padding=header.padding,
        mask=stored_mask(read_volume(job.path, slices=0).mask),
        sensitivities=origin_of_sensitivities(header),
        volume_scale=scale_of_volume(job) if job.settings.normalisation.scope == "volume" else None,
        source_format=header.source_format,
    )
    write_json_atomically(write_block(facts), facts_path)  # last: a case without it is not finished


def write_arrays(job: CaseJob, header: CaseHeader) -> None:
    """Write k-space, target and sensitivities, a slice at a time."""
    arrays: dict[str, Any] = {}
    for index in range(header.n_slices):
        volume = read_volume(job.path, slices=index)
        data = slice_data(volume, job.name)
        parts: dict[str, NDArray[Any]] = {"": data.kspace[0], "_target": target_of(volume)}
        if header.n_coils > 1:
            maps = data.sensitivities
            parts["_sensitivities"] = (sensitivities_of(data, job.settings) if maps is None else maps)[0]
        for ending, part in parts.items():
            if ending not in arrays:
                path = job.folder / f"{job.name}{ending}.b2nd"
                arrays[ending] = empty_array(path, (header.n_slices, *part.shape), part.dtype)
            arrays[ending][index] = part


def slice_data(volume: Volume, name: str) -> SliceData:
    """Return a volume of one slice as samples are made of."""
    return SliceData(
        kspace=volume.kspace,
        name=name,
        sensitivities=volume.sensitivities,
        mask=volume.mask,
        padding=volume.header.padding,
    )


def target_of(volume: Volume) -> NDArray[np.float32]:
    """Return the truth of a volume of one slice, ``(h, w)``: the file's, or that of its fully sampled k-space."""
    if volume.target is not None:
        target: NDArray[np.float32] = volume.target[0]
        return target
    return root_sum_of_squares(to_images(volume.kspace[0]))


def empty_array(path: Path, shape: tuple[int, ...], dtype: Any) -> Any:  # noqa: ANN401  # blosc2 has no type hints
    """Create a file of which a slice is read at once."""
    import blosc2

    path.unlink(missing_ok=True)  # of an interrupted run
    return blosc2.empty(
        shape,
        dtype=dtype,
        chunks=(1, *shape[1:]),
        urlpath=str(path),
        mode="w",
        cparams={"codec": blosc2.Codec.LZ4, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "nthreads": 1},
    )


def stored_mask(mask: NDArray[np.float32] | None) -> tuple[tuple[int, ...], ...] | None:
    """Return a mask as rows of 0 and 1."""
    if mask is None:
        return None
    return tuple(tuple(int(value != 0) for value in row) for row in np.atleast_2d(mask))


def origin_of_sensitivities(header: CaseHeader) -> str | None:
    """Say where the coils' sensitivities come from; ``None`` for a single coil."""
    if header.n_coils == 1:
        return None
    return "file" if header.has_sensitivities else "estimated from the calibration lines"


def scale_of_volume(job: CaseJob) -> float:
    """Return the scale that all slices of a case share."""
    n_slices = read_header(job.path).n_slices
    slices = (slice_data(read_volume(job.path, slices=index), job.name) for index in range(n_slices))
    return volume_scale(slices, job.settings)


def planned_identifiers(plans: ReconPlans, configurations: Mapping[str, Any] | list[str]) -> dict[str, str]:
    """Return one configuration for each folder of preprocessed data."""
    return {plans.configuration(name).data_identifier: name for name in reversed(list(configurations))}

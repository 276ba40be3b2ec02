"""A raw nnU-Net data set from a list of cases: everything is checked, then everything is written."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nnunet_kd import __version__
from nnunet_kd.cases import Fault, FaultyCasesError, map_cases
from nnunet_kd.dataset_conversion.challenge import Case, DatasetDescription
from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import is_nifti, n_bytes
from nnunet_kd.output import check_replaceable, move_into_place, work_folder

Transfer = Literal["copy", "link"]

_SECONDS_PER_CASE = 0.2  # reading and hashing a small volume; a wrong guess costs a second at most
_GEOMETRY_TOLERANCE = 1e-3  # of a voxel's edge: what rounding to float32 in a header amounts to
_BLOCK = 1 << 20
_RECORD = "conversion.json"


@dataclass(frozen=True)
class CheckedCase:
    """What reading a case once has shown.

    Attributes:
        faults: One line each; empty for a case that can be used.
        hashes: Path relative to the source and SHA-256 of each file.
    """

    faults: tuple[str, ...]
    hashes: tuple[tuple[str, str], ...] = ()


def write_raw_dataset(
    description: DatasetDescription,
    cases: Sequence[Case],
    raw_folder: Path,
    *,
    source: Path,
    transfer: Transfer = "copy",
    skip_faulty: bool = False,
    overwrite: bool = False,
    scheduler: str | None = None,
    command: str = "",
) -> Path:
    """Check all cases, then write them as ``DatasetXXX_NAME``.

    The folder appears complete or not at all. ``conversion.json`` in it holds the sources' hashes
    and the counts; only a folder with that file is ever replaced.

    Args:
        description: What the cases have in common; its ``dataset_id`` must be set.
        cases: Training cases (with a label) and test cases (without).
        raw_folder: nnU-Net's folder of raw data sets.
        source: Folder the hashes' paths are relative to.
        transfer: ``copy`` the files or make symbolic ``link`` s to them.
        skip_faulty: Leave faulty cases out in place of refusing them all.
        overwrite: Replace a data set that exists.
        scheduler: Address of a running dask scheduler.
        command: What was typed, for ``conversion.json``.

    Returns:
        The data set's folder.

    Raises:
        FaultyCasesError: With all faults of all cases, unless ``skip_faulty``.
        UsageError: If the folder or another data set of this number exists, or no case is left.
    """
    target = _target(description, raw_folder, source, overwrite=overwrite)
    run = partial(map_cases, name=_name, scheduler=scheduler, seconds_per_case=_SECONDS_PER_CASE)
    check = partial(check_case, description=description, source=source)
    checked: list[CheckedCase] = run(check, cases, description="Checking")
    faults = _all_faults(cases, checked)
    if faults and not skip_faulty:
        raise FaultyCasesError(faults, len(cases))
    faulty = {fault.case for fault in faults}
    kept = [case for case in cases if case.name not in faulty]
    if not any(case.label for case in kept):
        raise UsageError(f"expected at least one faultless training case in {source}, got {len(faulty)} faulty ones")
    n_training = sum(case.label is not None for case in kept)
    record = {
        "command": command,
        "nnunet_kd": __version__,
        "source": str(source),
        "transfer": transfer,
        "counts": {"training": n_training, "test": len(kept) - n_training, "skipped": len(faulty)},
        "skipped": {fault.case: fault.message for fault in faults},
        "sha256": {path: digest for result in checked for path, digest in result.hashes},
    }
    with work_folder(target) as work:
        new = work / "new"
        new.mkdir()
        place = partial(_place, folder=new, ending=description.file_ending, transfer=transfer)
        try:
            run(place, kept, description="Writing")
        except FaultyCasesError as error:
            raise UsageError(
                f"expected to write {target}, but {error.faults[0].message}; free space and type the same again"
            ) from error
        _write_json(record, new / _RECORD)
        _write_json(description.to_json(n_training), new / "dataset.json")
        move_into_place(new, target)
    return target


def _name(case: Case) -> str:
    return case.name


def _target(description: DatasetDescription, raw_folder: Path, source: Path, *, overwrite: bool) -> Path:
    if description.dataset_id is None or not 0 < description.dataset_id < 1000:
        raise UsageError(f"expected a data set number from 1 to 999, got {description.dataset_id}; type -d ID")
    if not raw_folder.is_dir():
        raise UsageError(f"expected nnUNet_raw to be a folder, got {raw_folder}; create it with mkdir -p")
    target = raw_folder / f"Dataset{description.dataset_id:03d}_{description.name}"
    others = [path.name for path in raw_folder.glob(f"Dataset{description.dataset_id:03d}_*") if path != target]
    if others:
        raise UsageError(f"expected number {description.dataset_id} to be free, but {others[0]} has it; type -d ID")
    ours, theirs = target.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise UsageError(f"expected the source {source} outside of {target}, which is to be written; type -d ID")
    check_replaceable(
        target, is_ours=lambda folder: (folder / _RECORD).is_file(), what="a converted data set", overwrite=overwrite
    )
    return target


def _all_faults(cases: Sequence[Case], checked: Sequence[CheckedCase]) -> list[Fault]:
    times = Counter(case.name for case in cases)
    faults = []
    for case, result in zip(cases, checked, strict=True):
        doubled = (f"its name is given to {times[case.name]} cases",) if times[case.name] > 1 else ()
        if messages := (*doubled, *result.faults):
            faults.append(Fault(case.name, "; ".join(messages)))
    return faults


def check_case(case: Case, *, description: DatasetDescription, source: Path) -> CheckedCase:
    """Read a case's files once and list everything that is wrong with them."""
    import numpy as np

    faults: list[str] = []
    volumes: dict[Path, tuple[Any, Any]] = {}
    if len(case.images) != len(description.channel_names):
        faults.append(f"expected {len(description.channel_names)} images, got {len(case.images)}")
    files = [*(image.path for image in case.images), *([case.label] if case.label else [])]
    if len({path.resolve() for path in files}) != len(files):
        faults.append("names the same file twice")
    for path in files:
        try:
            volumes[path] = _read(path, description.file_ending)
        # whatever a broken file makes the reader raise is a fault of this file
        except Exception as error:  # noqa: BLE001
            faults.append(f"{path.name} in {path.parent.name}: {' '.join(str(error).split())}")
    faults += _geometry_faults(volumes)
    for path in (image.path for image in case.images):
        if path in volumes and not np.isfinite(volumes[path][0]).all():
            faults.append(f"{path.name} in {path.parent.name}: has intensities that are not finite")
    if case.label in volumes:
        faults += _label_faults(volumes[case.label][0], description.values)
    hashes = () if faults else tuple((os.path.relpath(path, source), _sha256(path)) for path in files)
    return CheckedCase(tuple(faults), hashes)


def _read(path: Path, ending: str) -> tuple[Any, Any]:
    """Return a volume's voxels and its affine."""
    import nibabel  # only where files are read, so that --help stays fast
    import numpy as np

    if not path.is_file():
        raise FileNotFoundError("is missing")
    if not path.name.endswith(ending):
        raise ValueError(f"expected a file that ends in {ending}")
    image = nibabel.load(path)
    voxels = np.asanyarray(image.dataobj)  # type: ignore[attr-defined]
    if voxels.ndim != 3:
        raise ValueError(f"expected 3 dimensions, got {voxels.ndim} with shape {voxels.shape}")
    if voxels.dtype.kind not in "iuf":
        raise ValueError(f"expected one number per voxel, got {voxels.dtype}")
    affine = image.affine  # type: ignore[attr-defined]
    if not (np.isfinite(affine).all() and np.linalg.det(affine[:3, :3])):
        raise ValueError("its header gives the voxels no size or no place")
    if is_nifti(path):
        n_bytes(path)  # nibabel stops before the checksum
    return voxels, affine


def _geometry_faults(volumes: Mapping[Path, tuple[Any, Any]]) -> list[str]:
    """Compare every volume of a case with its first."""
    import numpy as np

    faults = []
    items = list(volumes.items())
    for path, (voxels, affine) in items[1:]:
        first, (reference, reference_affine) = items[0]
        names = f"{path.parent.name}/{path.name} and {first.parent.name}/{first.name}"
        if voxels.shape != reference.shape:
            faults.append(f"{names}: shapes {voxels.shape} and {reference.shape}")
            continue
        edge = np.linalg.norm(reference_affine[:3, :3], axis=0).min()
        # how far the outermost corner lies apart, in voxels
        difference = np.abs(affine - reference_affine) @ np.array([*voxels.shape, 1.0])
        if difference.max() > _GEOMETRY_TOLERANCE * edge:
            faults.append(f"{names}: positions differ by up to {difference.max():.3g} mm")
    return faults


def _label_faults(voxels: Any, allowed: frozenset[int]) -> list[str]:  # noqa: ANN401  # any array, numpy loads lazily
    import numpy as np

    unknown = sorted(set(np.unique(voxels).tolist()) - allowed)
    if not unknown:
        return []
    shown = ", ".join(f"{value:g}" for value in unknown[:5])
    return [f"has label values {shown}; expected only {sorted(allowed)}"]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _place(case: Case, *, folder: Path, ending: str, transfer: Transfer) -> None:
    part = "Ts" if case.label is None else "Tr"
    targets = {
        path: Path(f"images{part}", f"{case.name}_{n:04d}{ending}")
        for n, path in enumerate(image.path for image in case.images)
    }
    if case.label is not None:
        targets[case.label] = Path("labelsTr", f"{case.name}{ending}")
    for source, target in targets.items():
        destination = folder / target
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            destination.unlink(missing_ok=True)  # a case may be tried twice
            if transfer == "link":
                destination.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, destination)
        except OSError as error:  # no bug of ours, so without its traceback
            raise UsageError(f"{target}: {error.strerror or error}") from error


def _write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Predictions become the one archive that organisers take: everything is checked, then written, then read back."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nnunet_kd.cases import Fault, FaultyCasesError, map_cases
from nnunet_kd.dataset_conversion.challenge import Submission
from nnunet_kd.dataset_conversion.outgoing.archive_writer import ENDINGS, Kind, members, pack
from nnunet_kd.dataset_conversion.outgoing.clean_up import CleanUp
from nnunet_kd.dataset_conversion.outgoing.items import Group, Item
from nnunet_kd.dataset_conversion.outgoing.label_volumes import (
    Grid,
    decode,
    encode,
    grid_faults,
    map_values,
    read_grid,
    read_labels,
    value_faults,
)
from nnunet_kd.dataset_conversion.outgoing.reconstructions import encode_volume, volume_faults
from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable, move_into_place, work_folder

_SECONDS_PER_CASE = 0.5  # a volume of the size of BraTS on one core; a wrong guess costs a second at most
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What holds for one file of a submission, in a form that travels between processes.

    Attributes:
        label_values: From our value of a label to the organisers'.
        shape: The one that the organisers fix, or ``None``.
        affine: The one that the organisers fix, or ``None``.
        tolerance: Largest difference between entries of the affines [mm].
        clean_up: What is removed before values are mapped.
        image_size: Of a reconstruction's slices, unless the test file names another; ``None`` for label maps.
    """

    label_values: Mapping[int, int]
    shape: tuple[int, ...] | None
    affine: tuple[tuple[float, ...], ...] | None
    tolerance: float
    clean_up: CleanUp
    image_size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """What became of one case.

    Attributes:
        sha256: Of the written file.
        n_bytes: Of the written file.
        n_enhancing: Voxels of enhancing tumour called necrotic.
        n_lesion: Voxels of small components removed.
    """

    sha256: str
    n_bytes: int
    n_enhancing: int
    n_lesion: int


@dataclass(frozen=True, kw_only=True)
class Written:
    """A finished submission.

    Attributes:
        files: What became of each case, by its path in the archive.
        sha256: Of the archive; empty for a folder.
        n_bytes: Of the archive, or of all files in a folder.
    """

    files: Mapping[str, Packed]
    sha256: str
    n_bytes: int


def rule_of(submission: Submission, clean_up: CleanUp | None = None) -> Rule:
    """Take what one file needs to know from the description of a submission."""
    return Rule(
        label_values=dict(submission.label_values),
        shape=submission.shape,
        affine=submission.affine,
        tolerance=submission.affine_tolerance,
        clean_up=clean_up or CleanUp(),
        image_size=submission.image_size,
    )


def check_groups(groups: Sequence[Group], *, n_workers: int | None = None, scheduler: str | None = None) -> int:
    """Read every prediction once and raise all faults of all cases together.

    Args:
        groups: What goes into the archive.
        n_workers: Processes; ``None`` chooses.
        scheduler: Address of a running dask scheduler.

    Returns:
        The number of cases, all faultless.

    Raises:
        FaultyCasesError: With every fault.
        UsageError: If there is no case at all.
    """
    pairs = [(item, rule_of(group.submission)) for group in groups for item in group.items]
    found = map_cases(
        check_item,
        pairs,
        description="Checking",
        name=_case,
        scheduler=scheduler,
        n_workers=n_workers,
        seconds_per_case=_SECONDS_PER_CASE,
    )
    raise_faults(
        [
            *(fault for group in groups for fault in group.faults),
            *(Fault(item.case, text) for (item, _), texts in zip(pairs, found, strict=True) for text in texts),
        ],
        len(pairs),
    )
    return len(pairs)


def raise_faults(faults: Sequence[Fault], n_cases: int) -> None:
    """Raise all faults together, one line per case; nothing happens where there are none."""
    texts: dict[str, list[str]] = {}
    for fault in faults:
        texts.setdefault(fault.case, []).append(fault.message)
    if texts:
        raise FaultyCasesError([Fault(case, "; ".join(lines)) for case, lines in texts.items()], n_cases)
    if n_cases == 0:
        raise UsageError("expected at least one case to send in, found none; check the folder of predictions")


def _case(pair: tuple[Item, Any]) -> str:
    return pair[0].case


def check_item(pair: tuple[Item, Rule]) -> tuple[str, ...]:
    """List everything that is wrong with one prediction."""
    item, rule = pair
    if rule.image_size is not None:
        return tuple(volume_faults(_prediction(item), item.image, rule.image_size))
    try:
        labels, grid = _read(item)
        image = read_grid(item.image) if item.image else None
    except (UsageError, ValueError) as error:
        return (" ".join(str(error).split()),)
    return (*value_faults(labels, list(rule.label_values)), *all_grid_faults(grid, image, rule))


def _prediction(item: Item) -> Path:
    if item.prediction is None:
        raise ValueError(f"expected the prediction of {item.case}, got an item of an archive")
    return item.prediction


def _read(item: Item) -> tuple[Any, Grid]:
    return read_labels(_prediction(item))


def all_grid_faults(grid: Grid, image: Grid | None, rule: Rule) -> Iterator[str]:
    """Compare a label map's grid with its image's, and what is written with what the organisers fix."""
    if image is not None:
        yield from grid_faults(grid, image, tolerance=rule.tolerance, like="its test image")
    written = image or grid
    if rule.shape is None and rule.affine is None:
        return
    fixed = Grid(
        shape=rule.shape or written.shape,
        affine=np.array(rule.affine, dtype=float) if rule.affine else written.affine,
    )
    yield from grid_faults(written, fixed, tolerance=rule.tolerance, like="every case of this challenge")


def write_item(pair: tuple[Item, Rule], *, folder: Path) -> Packed:
    """Write one case as the organisers take it, and read it back.

    Raises:
        UsageError: If the disk is full or the place may not be written.
    """
    item, rule = pair
    n_enhancing = n_lesion = 0
    if rule.image_size is not None:
        content = encode_volume(_prediction(item))
    else:
        content, n_enhancing, n_lesion = _encode_labels(item, rule)
    place = folder / item.member
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    except OSError as error:  # no bug of ours, so without its traceback
        raise UsageError(f"{item.member}: {error.strerror or error}") from error
    digest = hashlib.sha256(content).hexdigest()
    return Packed(sha256=digest, n_bytes=len(content), n_enhancing=n_enhancing, n_lesion=n_lesion)


def _encode_labels(item: Item, rule: Rule) -> tuple[bytes, int, int]:
    labels, own = _read(item)
    cleaned, n_enhancing, n_lesion = rule.clean_up(labels)
    grid = read_grid(item.image) if item.image else own
    expected = map_values(cleaned, rule.label_values)
    content = encode(expected, grid, compressed=item.member.endswith(".gz"))
    _compare(content, item, expected, grid)
    return content, n_enhancing, n_lesion


def _compare(content: bytes, item: Item, expected: Any, grid: Grid) -> None:  # noqa: ANN401  # any array
    labels, found, _ = decode(content, item.member)
    same = np.array_equal(labels, expected)
    # a grid of another format is rounded to the header's 32 bits
    exact = 0.0 if grid.template is not None else float(np.abs(grid.affine).max()) * 1e-6
    if not same or grid_faults(found, grid, tolerance=exact, like="the image"):
        raise RuntimeError(f"{item.member} reads back otherwise than it was written")


def check_target(target: Path, submission: Submission, *, overwrite: bool) -> None:
    """Refuse to write over anything but an earlier submission.

    Raises:
        UsageError: If the name does not fit the kind of archive, or exists and may not be replaced.
    """
    endings = ENDINGS[submission.archive]
    packed = target.name.lower().endswith((*ENDINGS["zip"], *ENDINGS["tar.gz"]))
    if submission.archive == "folder":
        if packed:
            raise UsageError(f"expected the name of a folder for this challenge, got {target}; type another -o")
        check_replaceable(target, is_ours=_is_ours, what="a submission", overwrite=overwrite)
        sums, is_new = sums_beside(target), not (target.is_dir() and any(target.iterdir()))
        if is_new and os.path.lexists(sums):
            raise UsageError(
                f"expected {sums} to be free for the sums of {target.name}; move it away or type another -o"
            )
    elif not target.name.lower().endswith(endings):
        raise UsageError(f"expected a name that ends in {endings[0]} for this challenge, got {target}; type another -o")
    elif target.is_dir():
        raise UsageError(f"expected the name of a file, but {target} is a folder; type another -o")
    elif os.path.lexists(target) and not overwrite:
        raise UsageError(f"{target} exists; type --overwrite to replace it or another -o")


def sums_beside(folder: Path) -> Path:
    """Return the file beside a folder of ours that holds its SHA-256 sums, as ``sha256sum -c`` reads them."""
    return folder.with_name(f"{folder.name}.sha256")


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder holds exactly what the sums beside it say."""
    beside = sums_beside(folder)
    if not beside.is_file():
        return False
    digests = {f"{folder.name}/{name}": hashlib.sha256(content).hexdigest() for name, content in members(folder)}
    return beside.read_bytes() == _sums(digests).encode()


def _sums(digests: Mapping[str, str]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))


def write_submission(
    groups: Sequence[Group],
    clean_ups: Sequence[CleanUp],
    target: Path,
    *,
    submission: Submission,
    overwrite: bool = False,
    n_workers: int | None = None,
    scheduler: str | None = None,
) -> Written:
    """Write checked predictions as one archive; it appears complete or not at all.

    Args:
        groups: What :func:`check_groups` found faultless.
        clean_ups: One per group.
        target: As :func:`check_target` allowed it.
        submission: What the organisers take.
        overwrite: Whether an earlier submission may be replaced.
        n_workers: Processes; ``None`` chooses.
        scheduler: Address of a running dask scheduler that sees the same files.

    Raises:
        UsageError: If the disk is full, the place may not be written, or something appeared there meanwhile.
    """
    kind = submission.archive
    pairs = [
        (item, rule_of(group.submission, clean_up))
        for group, clean_up in zip(groups, clean_ups, strict=True)
        for item in group.items
    ]
    with work_folder(target) as work:
        try:
            packed = map_cases(
                partial(write_item, folder=work / "files"),
                pairs,
                description="Writing",
                name=_case,
                scheduler=scheduler,
                n_workers=n_workers,
                seconds_per_case=_SECONDS_PER_CASE,
            )
        except FaultyCasesError as error:
            first = error.faults[0]
            raise UsageError(
                f"cannot write {target}: {first.case}: {first.message}; mend it and type the same"
            ) from error
        files = {item.member: result for (item, _), result in zip(pairs, packed, strict=True)}
        new = work / "new"
        try:
            pack({name: work / "files" / name for name in files}, new, kind)
        except OSError as error:
            raise UsageError(f"cannot write {target}: {error.strerror or error}; free space there") from error
        named = new if kind == "folder" else new.rename(work / f"new.{kind}")
        _read_back(named, files)
        written = _measure(named, files, kind)
        check_target(target, submission, overwrite=overwrite)
        _place(named, target, files, kind)
    return written


def _read_back(archive: Path, files: Mapping[str, Packed]) -> None:
    with tqdm(members(archive), total=len(files), desc="Reading back", unit="case") as progress:
        found = Counter((name, hashlib.sha256(content).hexdigest()) for name, content in progress)
    if found != Counter((name, result.sha256) for name, result in files.items()):
        raise UsageError(f"{archive.name} reads back otherwise than it was written; check the disk and type the same")


def _measure(archive: Path, files: Mapping[str, Packed], kind: Kind) -> Written:
    if kind == "folder":
        return Written(files=files, sha256="", n_bytes=sum(result.n_bytes for result in files.values()))
    digest = hashlib.sha256()
    with archive.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return Written(files=files, sha256=digest.hexdigest(), n_bytes=archive.stat().st_size)


def _place(new: Path, target: Path, files: Mapping[str, Packed], kind: Kind) -> None:
    if kind != "folder":
        new.replace(target)
        return
    sums_beside(target).unlink(missing_ok=True)
    move_into_place(new, target)
    named = {f"{target.name}/{name}": result.sha256 for name, result in files.items()}
    sums_beside(target).write_text(_sums(named), encoding="utf-8")

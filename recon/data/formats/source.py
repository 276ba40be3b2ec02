"""What a source format brings: how its cases are found, and how one is read."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.cases import Volume

TRAIN, VAL, TEST, UNSPLIT = "train", "val", "test", ""


@dataclass(frozen=True, kw_only=True)
class SourceCase:
    """One volume of a source.

    Attributes:
        name: Of the case to be.
        files: What it is made of; the first names it in messages.
        part: Where the source puts it: :data:`TRAIN`, :data:`VAL`, :data:`TEST`, or :data:`UNSPLIT` where it does not.
        patient: Whose, where the source's names say it; empty where the file does or nothing is known.
    """

    name: str
    files: tuple[Path, ...]
    part: str = UNSPLIT
    patient: str = ""


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What can be chosen when a source is read.

    Attributes:
        acquisition: ``single_coil`` or ``multi_coil``, where the source has both.
        acceleration: Of KD-MRI's folders, such as ``4x``.
        key: Of the images in HDF5 files.
        axis: Of a NIfTI volume along which the slices lie.
        matrix: Size ``(H, W)`` to crop or pad images to, ``None`` to keep theirs.
        crop: Size ``(h, w)`` of the target, ``None`` for the source's.
        phase: Largest phase [rad] that magnitude images are given; 0 leaves them real.
    """

    acquisition: str | None = None
    acceleration: str | None = None
    key: str = "image"
    axis: int = 2
    matrix: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    phase: float = 0.0


@dataclass(frozen=True, kw_only=True)
class SourceFormat:
    """A format that can be converted.

    Attributes:
        name: As it is typed.
        summary: One line for the help.
        layout: What the source folder must hold, for messages.
        kspace: Where the k-space comes from, one of :data:`nnunet_kd.recon.data.dataset.ORIGINS`.
        find: Lists the cases of a source folder.
        read: Reads one case; its header's patient counts where the source case names none.
        options: Which of :class:`ReadOptions` it takes.
        linkable: Whether its files are case files as they are.
        fixed_mask: Reads the one mask ``(H, W)`` of all cases, where the source has one.
        licence: Of the data, where it is fixed.
        reference: Whom to cite, where it is fixed.
    """

    name: str
    summary: str
    layout: str
    kspace: str
    find: Callable[[Path, ReadOptions], list[SourceCase]] = field(repr=False)
    read: Callable[[SourceCase, ReadOptions], Volume] = field(repr=False)
    options: tuple[str, ...] = ()
    linkable: bool = False
    fixed_mask: Callable[[Sequence[SourceCase], ReadOptions], NDArray[np.float32]] | None = field(
        default=None, repr=False
    )
    licence: str = ""
    reference: str = ""


def files_below(folder: Path, endings: Iterable[str]) -> list[Path]:
    """Return all files below a folder with one of some endings, hidden ones left out, in the order of paths.

    Raises:
        UsageError: If one is a link to nothing; a case would be missing in silence.
    """
    wanted = tuple(endings)
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.name.lower().endswith(wanted)
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    for path in found:
        if not path.exists():
            raise UsageError(f"expected a file at {path}, found a link to nothing; mend or remove it")
    return found


def check_names(cases: Sequence[SourceCase], source: Path, layout: str) -> list[SourceCase]:
    """Return the cases, if there are some and every name comes once.

    Raises:
        UsageError: If not; names the folder or both files.
    """
    if not cases:
        raise UsageError(f"expected {layout}; found no case in {source}")
    seen: dict[str, Path] = {}
    for case in cases:
        other = seen.setdefault(case.name, case.files[0])
        if other != case.files[0]:
            raise UsageError(f"expected every case once, but '{case.name}' is {other} and {case.files[0]}; remove one")
    return list(cases)


def single(values: Mapping[Any, Any], what: str, flag: str, chosen: str | None) -> Any:  # noqa: ANN401  # one of values
    """Return the value that was chosen, or the only one.

    Raises:
        UsageError: If nothing was chosen among several, or there is none of that name.
    """
    if chosen is None and len(values) == 1:
        return next(iter(values.values()))
    if chosen not in values:
        found = ", ".join(map(str, values)) or "none"
        raise UsageError(f"expected {flag} to name one {what} of the source, got {chosen or 'none'}; it has: {found}")
    return values[chosen]

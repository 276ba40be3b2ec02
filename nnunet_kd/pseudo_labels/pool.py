"""The unlabelled scans: which cases a folder holds, and each case as one file per channel of the teachers."""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.cases import Fault
from nnunet_kd.deployment.inference.file_checks import check_written
from nnunet_kd.errors import UsageError
from nnunet_kd.nifti import is_nifti
from nnunet_kd.pseudo_labels.channels import channel_names

IMAGES = ("imagesTr", "imagesTs")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One case.

    Attributes:
        name: What nnU-Net will call it.
        files: One per channel, or a single NIfTI file without a channel's number, which may hold several (4-D).
        order: The channels that are used, in the teachers' order, by their numbers in ``files``.
        n_channels: How many there must be; ``None`` for as many as ``order`` needs or more.
    """

    name: str
    files: tuple[Path, ...]
    order: tuple[int, ...]
    n_channels: int | None = None

    @property
    def packed(self) -> bool:
        """Whether all channels are in one file."""
        return len(self.files) == 1 and not re.search(r"_\d{4}\.", self.files[0].name)


def pool_channels(folder: Path) -> tuple[str, ...]:
    """Return the names that the pool's dataset.json gives its channels, none where there is no such file.

    Args:
        folder: A data set's folder, or its ``imagesTr`` or ``imagesTs``.
    """
    path = (folder.resolve().parent if folder.resolve().name in IMAGES else folder) / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ()
    return channel_names(content) if isinstance(content, dict) else ()


def read_pool(
    folder: Path, ending: str, order: tuple[int, ...], *, n_channels: int | None, prefix: str = ""
) -> tuple[list[Scan], list[Fault]]:
    """List the cases of a folder by their files' names; none is opened.

    Args:
        folder: Images as nnU-Net names them (``CASE_0000.nii.gz``), or with all channels in one file (``CASE.nii.gz``);
            or a data set's folder with ``imagesTr`` or ``imagesTs`` in it, of which both are taken.
        ending: Of the images' names.
        order: The channels that are used, in the teachers' order.
        n_channels: How many each case must have, where that is known.
        prefix: Put before the names.

    Returns:
        The cases by name, and what is wrong with the listing.

    Raises:
        UsageError: If there is no such folder or no image in it.
    """
    if not folder.is_dir():
        raise UsageError(f"-i: expected a folder with images, {folder} is none; check the path")
    folders = [folder / name for name in IMAGES if (folder / name).is_dir()] or [folder]
    cases: dict[str, dict[int | None, Path]] = {}
    faults = []
    for file in sorted(file for each in folders for file in each.iterdir() if _is_image(file, ending)):
        name, number = _split(file.name.removesuffix(ending))
        files = cases.setdefault(prefix + name, {})
        if number in files or (files and None in {*files, number}):
            faults.append(Fault(prefix + name, f"{file} and {next(iter(files.values()))} have the same name"))
        files[number] = file
    if not cases:
        raise UsageError(_nothing(folders, ending))
    scans = []
    for name, files in cases.items():
        missing = [n for n in range(len(files)) if n not in files and None not in files]
        if missing:
            faults.append(Fault(name, f"expected channel {missing[0]:04d}, found {next(iter(files.values())).name}"))
        in_order = tuple(files[number] for number in sorted(files, key=lambda n: -1 if n is None else n))
        scans.append(Scan(name=name, files=in_order, order=order, n_channels=n_channels))
    return scans, faults


def _is_image(file: Path, ending: str) -> bool:
    # some downloads carry a "._NAME" of macOS beside every file
    return file.name.endswith(ending) and not file.name.startswith(".") and file.is_file()


def _split(stem: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.+)_(\d{4})", stem)
    return (found[1], int(found[2])) if found else (stem, None)


def _nothing(folders: Sequence[Path], ending: str) -> str:
    where = " and ".join(map(str, folders))
    others = sorted({"".join(f.suffixes[-2:]) for each in folders for f in each.iterdir() if f.is_file()})
    found = f"only files ending in {', '.join(others[:3])}" if others else "none"
    return f"-i: expected images like CASE_0000{ending} in {where}, found {found}; name the folder that holds them"


def count_channels(scan: Scan) -> int:
    """Return how many channels a case has; of a packed one the header is read.

    Raises:
        Exception: Whatever SimpleITK raises for a damaged file.
    """
    if not scan.packed:
        return len(scan.files)
    if not is_nifti(scan.files[0]):
        raise ValueError("expected a name that ends in the channel's number, as in CASE_0000.png")
    import SimpleITK

    reader: Any = SimpleITK.ImageFileReader()  # type: ignore[no-untyped-call]
    reader.SetFileName(str(scan.files[0]))
    reader.ReadImageInformation()
    return int(reader.GetSize()[3]) if reader.GetDimension() == 4 else 1


@contextmanager
def channel_files(scan: Scan) -> Iterator[list[Path]]:
    """Give one file per channel in the teachers' order; those of a packed case are gone at the end."""
    if not scan.packed:
        yield [scan.files[number] for number in scan.order]
        return
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, f"{number}.nii") for number in range(len(scan.order))]
        unpack(scan, files)
        yield files


def unpack(scan: Scan, targets: Sequence[Path]) -> None:
    """Write the channels of a packed case, in the teachers' order, with its voxel type, spacing and place.

    Args:
        scan: Its file has three axes, or four of which the last one is the channels'.
        targets: One file per channel.

    Raises:
        OSError: If the disk is full.
    """
    import SimpleITK

    image: Any = SimpleITK.ReadImage(str(scan.files[0]))
    for number, target in zip(scan.order, targets, strict=True):
        channel = image[:, :, :, number] if image.GetDimension() == 4 else image
        SimpleITK.WriteImage(channel, str(target), target.name.endswith(".gz"))
        check_written(target)

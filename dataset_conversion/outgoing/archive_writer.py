"""Archives that are the same, byte for byte, whenever the same files are packed; and reading them back."""

import gzip
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Literal

from nnunet_kd.errors import UsageError

Kind = Literal["zip", "tar.gz", "folder"]

ENDINGS: dict[Kind, tuple[str, ...]] = {"zip": (".zip",), "tar.gz": (".tar.gz", ".tgz"), "folder": ("",)}

_BLOCK = 1 << 20
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows
_LARGEST = 1 << 32  # bytes of one member
_DAMAGED = (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile, tarfile.TarError, RuntimeError)


def pack(files: Mapping[str, Path], target: Path, kind: Kind) -> None:
    """Write files into one archive, sorted by name and without times, owners and rights of this machine.

    Args:
        files: From the path in the archive, with ``/`` between folders, to the file.
        target: What is written; must not exist.
        kind: ``zip``, ``tar.gz`` or a ``folder``. Files are moved into a folder.
    """
    {"zip": _zip, "tar.gz": _tar, "folder": _folder}[kind](dict(sorted(files.items())), target)


def _zip(files: Mapping[str, Path], target: Path) -> None:
    with zipfile.ZipFile(target, "x") as archive:
        for name, file in files.items():
            member = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
            member.create_system = 3  # Unix, on every system
            member.external_attr = 0o644 << 16
            # what is compressed already would only cost time
            member.compress_type = zipfile.ZIP_STORED if name.endswith(".gz") else zipfile.ZIP_DEFLATED
            member.file_size = file.stat().st_size  # decides about zip64
            with file.open("rb") as source, archive.open(member, "w") as place:
                _copy(source, place)


def _tar(files: Mapping[str, Path], target: Path) -> None:
    with (
        target.open("xb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=6, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, file in files.items():
            member = tarfile.TarInfo(name)
            member.size = file.stat().st_size
            with file.open("rb") as source:
                archive.addfile(member, source)


def _folder(files: Mapping[str, Path], target: Path) -> None:
    for name, file in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        file.rename(place)


def _copy(source: IO[bytes], place: IO[bytes]) -> None:
    while block := source.read(_BLOCK):
        place.write(block)


def members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the path and the content of every file in an archive or a folder, one at a time.

    Folders in it are passed over. Nothing is unpacked to the disk.

    Raises:
        UsageError: If it cannot be read, or holds links, encrypted files or files of more than 4 GiB.
    """
    try:
        if archive.is_dir():
            yield from _folder_members(archive)
        elif archive.name.lower().endswith(ENDINGS["zip"]):
            yield from _zip_members(archive)
        else:
            yield from _tar_members(archive)
    except _DAMAGED as error:
        raise UsageError(
            f"expected a whole archive at {archive}, got another thing ({' '.join(str(error).split())}); write it again"
        ) from error


def _folder_members(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            raise ValueError(f"{name} is a link or a device")
        if file.is_file():
            yield name, file.read_bytes()


def _zip_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.is_dir():
                continue
            # Unix keeps the type of a file here; others leave it out
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
                raise ValueError(f"{member.filename} is a link or a device")
            with archive.open(member) as stream:
                yield member.filename, _limited(stream, member.filename)


def _tar_members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path, "r:gz") as archive:
        for member in archive:
            if member.isdir():
                continue
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise ValueError(f"{member.name} is a link or a device")
            yield member.name, _limited(stream, member.name)


def _limited(stream: IO[Any], name: str) -> bytes:
    content: bytes = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{name} has more than 4 GiB")
    return content

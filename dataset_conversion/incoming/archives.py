"""Downloads as they come, ``.tar`` or ``.zip``: everything is judged by its listing, then unpacked."""

import gzip
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Protocol
from zlib import error as ZlibError  # noqa: N812  # an exception, named like a function

from tqdm import tqdm

from nnunet_kd.dataset_conversion.incoming.volumes import sha256
from nnunet_kd.errors import UsageError
from nnunet_kd.output import work_folder

ENDINGS = (".tar", ".tar.gz", ".tgz", ".zip")
MAX_RATIO = 200  # unpacked over packed; images and masks together stay far below
ALWAYS_ALLOWED = 64 << 20  # [bytes] unpacked, whatever the ratio
MAX_MEMBERS = 2_000_000
_BLOCK = 1 << 20
_TAR_END = 1024  # [bytes] of zeros, after the last member
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    EOFError,
    ZlibError,
    NotImplementedError,
    RuntimeError,
)
_LAST_TIME = 1 << 33  # [s since 1970] the year 2242; archives may name any number, file systems take none beyond
_MAC = ("__MACOSX", ".DS_Store")


@dataclass(frozen=True)
class _Member:
    """One entry of an archive.

    Attributes:
        name: Its path, as written there.
        kind: ``file``, ``folder``, or what else it is, with its article.
        size: Unpacked [bytes], as declared.
        time: Of its last change [s since 1970]; 0 where the archive names none that a file can have.
        entry: The library's own object.
    """

    name: str
    kind: str
    size: int
    time: float
    entry: object


class _Reader(Protocol):
    def members(self) -> Iterator[_Member]: ...

    def open(self, member: _Member) -> IO[bytes]: ...


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar

    def members(self) -> Iterator[_Member]:
        for entry in self._tar:
            kind = (
                "file" if entry.isreg() and not entry.issparse() else "folder" if entry.isdir() else "a link or device"
            )
            time = entry.mtime if 0 <= entry.mtime < _LAST_TIME else 0.0  # neither is not a number
            yield _Member(entry.name, kind, entry.size, time, entry)
        self._refuse_other_end()

    def _refuse_other_end(self) -> None:
        """Refuse a listing that does not stop at the mark of the end: tarfile stops at a broken header, too."""
        stream = self._tar.fileobj
        assert stream is not None  # noqa: S101  # it is open
        stream.seek(self._tar.offset)
        n_bytes = 0
        while block := stream.read(_BLOCK):  # to the end, where gzip has its checksum
            n_bytes += len(block)
            if block.count(0) != len(block):
                raise tarfile.ReadError(f"no header of a file and no end at byte {self._tar.offset}")
        if n_bytes < _TAR_END:
            raise tarfile.ReadError(f"no mark of the end at byte {self._tar.offset}")

    def open(self, member: _Member) -> IO[bytes]:
        stream = self._tar.extractfile(member.entry)  # type: ignore[arg-type]
        if stream is None:
            raise UsageError(f"expected a file, but {member.name} is none; download the archive again")
        return stream


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._zip = archive

    def members(self) -> Iterator[_Member]:
        for entry in self._zip.infolist():
            mode = stat.S_IFMT(entry.external_attr >> 16)
            kind = "folder" if entry.is_dir() else "file"
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a link or device"
            if entry.flag_bits & 1:
                kind = "encrypted"
            try:
                time = datetime(*entry.date_time).replace(tzinfo=timezone.utc).timestamp()
            except ValueError:  # a day or month 0
                time = 0.0
            yield _Member(entry.filename, kind, entry.file_size, time, entry)

    def open(self, member: _Member) -> IO[bytes]:
        return self._zip.open(member.entry)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Unpacked:
    """An archive's content.

    Attributes:
        folder: Holds it; the archive's single top folder where there is one.
        root: Where it was unpacked; ``folder`` or the one above.
        sha256: Of the archive.
    """

    folder: Path
    root: Path
    sha256: str


def is_archive(path: Path) -> bool:
    """Tell whether a source is a file with an archive's ending."""
    return path.is_file() and path.name.lower().endswith(ENDINGS)


@contextmanager
def unpacked(archive: Path, place: Path) -> Iterator[Unpacked]:
    """Unpack an archive into a folder that is gone at the end.

    Files that macOS adds (``._NAME``, ``__MACOSX``) are left out. Nothing is unpacked before the whole listing is
    judged: absolute paths, ``..``, links, devices, doubled names, encryption, more than :data:`MAX_RATIO` times
    the archive's size (above :data:`ALWAYS_ALLOWED`) and more than the disk holds are refused.

    Args:
        archive: A file with one of :data:`ENDINGS`.
        place: Folder on whose disk it is unpacked.

    Raises:
        UsageError: If it is refused, damaged or cut short.
    """
    name = next(archive.name[: -len(ending)] for ending in sorted(ENDINGS, key=len, reverse=True)
                if archive.name.lower().endswith(ending))  # fmt: skip
    with work_folder(place / archive.name) as work:
        root = work / (name if name not in ("", ".", "..") else "content")
        root.mkdir()
        try:
            digest = sha256(archive)
            with _opened(archive) as reader:
                members = _judged(reader, archive)
                _refuse_full_disk(members, archive, work)
                _unpack(reader, members, root, archive)
        except _DAMAGE as error:
            raise UsageError(
                f"expected a whole archive, but {archive} is damaged or cut short ({error}); download it again"
            ) from error
        entries = list(root.iterdir())
        single = len(entries) == 1 and entries[0].is_dir()
        yield Unpacked(entries[0] if single else root, root, digest)


@contextmanager
def _opened(archive: Path) -> Iterator[_Reader]:
    if archive.name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as opened:
            yield _Zip(opened)
        return
    with tarfile.open(archive, "r:" if archive.name.lower().endswith(".tar") else "r:gz") as found:
        yield _Tar(found)


def _judged(reader: _Reader, archive: Path) -> list[_Member]:
    """Return the members to unpack; the bounds hold while the listing is read, which may be endless."""
    allowed = max(ALWAYS_ALLOWED, MAX_RATIO * archive.stat().st_size)
    members: dict[PurePosixPath, _Member] = {}
    total = 0
    for count, member in enumerate(reader.members(), 1):
        total += member.size
        if total > allowed or count > MAX_MEMBERS:
            raise UsageError(
                f"expected at most {MAX_RATIO} times the size of {archive} and {MAX_MEMBERS} files in it, but it "
                f"unpacks to more; unpack it by hand if you trust it, and name the folder"
            )
        path = _safe(member.name, archive)
        if _is_mac(path) or (member.kind == "folder" and path in members):
            continue
        if member.kind not in ("file", "folder"):
            raise UsageError(
                f"expected plain files in {archive}, but {member.name} is {member.kind}; unpack it by hand"
            )
        if path in members:
            raise UsageError(f"expected every file once in {archive}, but {member.name} comes twice; unpack it by hand")
        members[path] = member
    return list(members.values())


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or PureWindowsPath(name).drive
    if outside:
        raise UsageError(f"expected paths inside of {archive}, but it names {name!r}; do not trust this archive")
    return path


def _is_mac(path: PurePosixPath) -> bool:
    return path.name.startswith("._") or any(part in _MAC for part in path.parts)


def _refuse_full_disk(members: list[_Member], archive: Path, folder: Path) -> None:
    needed, free = sum(member.size for member in members), shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"expected {needed:,} bytes on the disk of {folder.parent} to unpack {archive}, "
            f"but {free:,} are free; free space or unpack it elsewhere and name the folder"
        )


def _unpack(reader: _Reader, members: list[_Member], root: Path, archive: Path) -> None:
    total = sum(member.size for member in members)
    with tqdm(total=total, desc="Unpacking", unit="B", unit_scale=True) as bar:
        for member in members:
            target = root.joinpath(*PurePosixPath(member.name).parts)
            try:
                if member.kind == "folder":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                _write(reader, member, target, bar)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise UsageError(
                    f"expected every path once in {archive}, but {member.name} is a file and a folder"
                ) from error


def _write(reader: _Reader, member: _Member, target: Path, bar: "tqdm[Any]") -> None:
    written = 0
    with reader.open(member) as source, target.open("xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > member.size:
                break
            file.write(block)
            bar.update(len(block))
    if written != member.size:
        raise EOFError(f"{member.name}: {member.size} bytes are declared, {written} are there")
    os.utime(target, (member.time, member.time))  # by which an interrupted conversion knows it again

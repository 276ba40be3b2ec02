"""Claims about downloads that are read as they come, and about archives that nobody should unpack."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd.dataset_conversion.incoming import archives
from nnunet_kd.dataset_conversion.incoming.archives import unpacked
from nnunet_kd.errors import UsageError

FILES = {"Task/a.txt": b"a" * 3000, "Task/sub/b.txt": b"b", "Task/sub/._b.txt": b"mac", "__MACOSX/x": b"mac"}


def _tar(path: Path, files: dict[str, bytes], *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime = len(content), 1_500_000_000
            archive.addfile(entry, io.BytesIO(content))
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return path


def _zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def _entry(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz", "x.tgz", "x.zip"])
def test_archive_is_unpacked_and_gone_at_the_end(tmp_path: Path, place: Path, name: str) -> None:
    archive = (_zip if name.endswith("zip") else _tar)(tmp_path / name, FILES)
    with unpacked(archive, place) as content:
        found = {str(p.relative_to(content.folder)): p.read_bytes() for p in content.folder.rglob("*") if p.is_file()}
        assert content.folder.name == "Task"
        assert found == {"a.txt": b"a" * 3000, "sub/b.txt": b"b"}
    assert list(place.iterdir()) == []


def test_files_have_the_times_of_the_archive(tmp_path: Path, place: Path) -> None:
    """By them an interrupted conversion knows a file again that was unpacked twice."""
    with unpacked(_tar(tmp_path / "x.tar", FILES), place) as content:
        assert (content.folder / "a.txt").stat().st_mtime == 1_500_000_000


@pytest.mark.parametrize("time", ["1e30", str(2**63), "nan", "-inf"])
def test_times_that_no_file_can_have_are_left_out(tmp_path: Path, place: Path, time: str) -> None:
    entry = tarfile.TarInfo("Task/c.txt")
    entry.pax_headers = {"mtime": time}
    with unpacked(_tar(tmp_path / "x.tar", FILES, entry), place) as content:
        assert (content.folder / "c.txt").stat().st_mtime == 0


def test_archive_without_a_top_folder_gets_its_own_name(tmp_path: Path, place: Path) -> None:
    with unpacked(_zip(tmp_path / "Task04_Hippocampus.zip", {"a": b"", "b/c": b""}), place) as content:
        assert content.folder.name == "Task04_Hippocampus"


HOSTILE: dict[str, tuple[Callable[[Path], Path], str]] = {
    **{
        f"{kind} {name}": (
            lambda folder, make=make, kind=kind, name=name: make(folder / f"x.{kind}", {name: b""}),
            text,
        )  # type: ignore[misc]
        for kind, make in (("tar", _tar), ("zip", _zip))
        for name, text in (
            ("/etc/x", "do not trust"),
            ("a/../../x", "do not trust"),
            ("..\\x", "do not trust"),
            ("C:/x", "do not trust"),
        )
    },
    "symbolic link": (lambda f: _tar(f / "x.tar", {}, _entry("a", tarfile.SYMTYPE, "/etc")), "a link or device"),
    "inner link": (lambda f: _tar(f / "x.tar", FILES, _entry("a", tarfile.SYMTYPE, "Task")), "a link or device"),
    "hard link": (lambda f: _tar(f / "x.tar", FILES, _entry("a", tarfile.LNKTYPE, "Task/a.txt")), "a link or device"),
    "device": (lambda f: _tar(f / "x.tar", {}, _entry("a", tarfile.CHRTYPE)), "a link or device"),
    "pipe": (lambda f: _tar(f / "x.tar", {}, _entry("a", tarfile.FIFOTYPE)), "a link or device"),
    "twice": (lambda f: _tar(f / "x.tar", FILES, _entry("Task/a.txt", tarfile.REGTYPE)), "comes twice"),
    "file as folder": (lambda f: _tar(f / "x.tar", {"a": b"", "a/b": b""}), "every path once"),
    "cut tar": (lambda f: _cut(_tar(f / "x.tar", {"a": bytes(50_000)}), 20_000), "cut short"),
    "cut tar.gz": (
        lambda f: _cut(_tar(f / "x.tar.gz", {str(n): bytes([n]) * 99 for n in range(99)}), 300),
        "cut short",
    ),
    "cut zip": (lambda f: _cut(_zip(f / "x.zip", FILES), 100), "cut short"),
    "no archive": (lambda f: _cut(_zip(f / "x.tar", FILES), 100), "cut short"),
}


def _cut(path: Path, n_bytes: int) -> Path:
    path.write_bytes(path.read_bytes()[:n_bytes])
    return path


@pytest.mark.parametrize("fault", HOSTILE)
def test_hostile_archive_is_refused_and_leaves_nothing(tmp_path: Path, place: Path, fault: str) -> None:
    make, message = HOSTILE[fault]
    with pytest.raises(UsageError, match=message) as refused, unpacked(make(tmp_path), place):
        pass
    assert "\n" not in str(refused.value)
    assert [path.name for path in (*place.iterdir(), *tmp_path.iterdir()) if not path.name.startswith("x.")] == ["raw"]


def _flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGED: dict[str, Callable[[bytes, int], bytes]] = {
    "flipped bit in a header": lambda content, header: _flip(content, header + 5),
    "cut at a member": lambda content, header: content[:header],
    "cut in a header": lambda content, header: content[: header + 100],
    "one block of zeros": lambda content, header: content[:header] + bytes(512) + content[header + 512 :],
    "two blocks of zeros": lambda content, header: content[:header] + bytes(1024) + content[header:],
    "flipped bit, then zipped": lambda content, header: gzip.compress(_flip(content, header + 5)),
    "wrong checksum of gzip": lambda content, _: _flip(packed := gzip.compress(content), len(packed) - 6),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_tar_loses_no_file_in_silence(tmp_path: Path, place: Path, damage: str) -> None:
    whole = _tar(tmp_path / "x.tar", {str(number): b"a" * 600 for number in range(6)}).read_bytes()
    (tmp_path / "x.tar").unlink()
    broken = DAMAGED[damage](whole, 3 * (512 + 1024))
    archive = tmp_path / ("x.tar.gz" if broken.startswith(b"\x1f\x8b") else "x.tar")
    archive.write_bytes(broken)
    with pytest.raises(UsageError, match="is damaged or cut short") as refused, unpacked(archive, place):
        pass
    assert "\n" not in str(refused.value)


def test_link_in_a_zip_and_an_encrypted_one_are_refused(tmp_path: Path, place: Path) -> None:
    link = zipfile.ZipInfo("a")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(UsageError, match="a link or device"), unpacked(tmp_path / "x.zip", place):
        pass
    content = bytearray(_zip(tmp_path / "x.zip", {"a": b"a"}).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UsageError, match="is encrypted"), unpacked(tmp_path / "x.zip", place):
        pass


@pytest.mark.parametrize("name", ["x.zip", "x.tar.gz"])
def test_bomb_is_refused_by_its_listing(
    tmp_path: Path, place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 1000)
    archive = (_zip if name.endswith("zip") else _tar)(tmp_path / name, {"a": bytes(1_000_000)})
    assert archive.stat().st_size * archives.MAX_RATIO < 1_000_000
    with pytest.raises(UsageError, match="unpacks to more"), unpacked(archive, place):
        pass


def test_full_disk_is_noticed_before(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2000})())
    with (
        pytest.raises(UsageError, match=r"expected 3,001 bytes .* but 2,000 are free"),
        unpacked(_tar(tmp_path / "x.tar", FILES), place),
    ):
        pass

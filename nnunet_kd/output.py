"""Folders that appear complete or not at all, and never in place of somebody else's."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nnunet_kd.errors import UsageError

_WORK = ".unfinished-"


def check_replaceable(target: Path, *, is_ours: Callable[[Path], bool], what: str, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier output of the same kind.

    Args:
        target: The folder to be written; may be missing or empty.
        is_ours: Tells whether a folder with content is such an output.
        what: Name of the kind, with its article.
        overwrite: Whether an earlier output may be replaced.

    Raises:
        UsageError: If it is a file, a link or a folder with other content, or ``overwrite`` is missing.
    """
    if not os.path.lexists(target):
        return
    if target.is_symlink() or not target.is_dir():
        raise UsageError(f"expected the name of a folder, but {target} is a file or a link; name another")
    if not any(target.iterdir()):
        return
    if not is_ours(target):
        raise UsageError(f"{target} holds other things than {what}; move them away or name another folder")
    if not overwrite:
        raise UsageError(f"{target} exists and holds {what}; type --overwrite to replace it or name another folder")


@contextmanager
def work_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder beside ``target``, on the same disk, that is gone at the end.

    Two runs to one target get two folders. What a killed run left behind is cleared by the next
    one, and a target that it had moved aside is put back. A folder of a run that still works is
    known by its lock; systems without ``flock`` clear nothing.

    Raises:
        OSError: If the place may not be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(target)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}{_WORK}", dir=target.parent))
    lock = _lock(work)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            os.close(lock)


@contextmanager
def continued_folder(target: Path, key: str) -> Iterator[Path]:
    """Give the folder beside ``target`` that an interrupted run of the same key left, or an empty one.

    What a kill, a power cut, ctrl-C or ``SystemExit`` ends leaves its folder to the next run; any other
    exception, and the normal end, remove it. Folders of other keys are cleared as by :func:`work_folder`. While
    another run works under this key, and on systems without ``flock``, the folder is a new one.

    What a power cut left may be torn: check it before using it.

    Args:
        target: The folder to be written.
        key: Names the work; equal only where what was finished can be used.

    Raises:
        OSError: If the place may not be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    name = f".{target.name}{_WORK}{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    _clear_leftovers(target, spare=name)
    work, lock = _claim(target.parent / name)
    interrupted = False
    try:
        if (work / "old").exists():
            _put_back(work, target)
            shutil.rmtree(work / "old", ignore_errors=True)  # still there only where its successor stands
        yield work
    except (KeyboardInterrupt, SystemExit):
        interrupted = lock is not None
        raise
    finally:
        if not interrupted:
            shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def move_into_place(new: Path, target: Path) -> None:
    """Give a finished folder inside a :func:`work_folder` its name; an earlier one is moved aside first.

    At every moment either the old folder or the new one is whole, under its name or in the work folder.
    """
    old = new.with_name("old")
    try:
        if target.exists():
            target.rename(old)
        new.rename(target)
    except BaseException:  # an interrupt, too: the work folder is deleted next, with what was moved there
        if old.exists() and not target.exists():
            old.rename(target)
        raise


def _lock(folder: Path) -> int | None:
    """Lock a folder until the returned descriptor is closed or this process ends; ``None`` if that cannot be had."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
        else:
            return descriptor
    return None


def _claim(work: Path) -> tuple[Path, int | None]:
    """Make or take over a folder and lock it; make another where somebody else has the lock."""
    work.mkdir(exist_ok=True)
    lock = _lock(work)
    with suppress(OSError):
        # else the one who had the lock removed the folder between the two lines above
        if lock is not None and os.path.samestat(os.fstat(lock), work.stat()):
            return work, lock
    if lock is not None:
        os.close(lock)
    other = Path(tempfile.mkdtemp(prefix=f"{work.name}-", dir=work.parent))
    return other, _lock(other)


def _put_back(work: Path, target: Path) -> None:
    # killed between the two renames: the old folder is the only whole one that was asked to exist
    if (work / "old").exists() and not os.path.lexists(target):
        (work / "old").rename(target)


def _clear_leftovers(target: Path, spare: str = "") -> None:
    for work in target.parent.iterdir():
        if work.name == spare or not work.name.startswith(f".{target.name}{_WORK}") or (lock := _lock(work)) is None:
            continue
        _put_back(work, target)
        os.close(lock)
        shutil.rmtree(work, ignore_errors=True)

"""Folders that appear complete or not at all, and never in place of somebody else's."""

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


def _clear_leftovers(target: Path) -> None:
    for work in target.parent.iterdir():
        if not work.name.startswith(f".{target.name}{_WORK}") or (lock := _lock(work)) is None:
            continue
        # killed between the two renames: the old folder is the only whole one that was asked to exist
        if (work / "old").exists() and not os.path.lexists(target):
            (work / "old").rename(target)
        os.close(lock)
        shutil.rmtree(work, ignore_errors=True)

"""Folders that say in a record which files they were written with, so that nobody else's are deleted with them."""

from pathlib import Path

from nnunet_kd.errors import UsageError
from nnunet_kd.output import check_replaceable
from nnunet_kd.planning.model_folder import read_json_object

FILES = "files"  # key of the record


def check_recorded(target: Path, record: str, *, what: str, overwrite: bool) -> None:
    """Refuse to replace anything but an earlier output of the same kind, with its own files alone.

    To be asked before the work and again right before the new folder takes the place: somebody may have put something
    there meanwhile.

    Args:
        target: The folder to be written; may be missing or empty.
        record: Name of the JSON file in such a folder that lists its files under :data:`FILES`.
        what: Name of the kind, with its article.
        overwrite: Whether an earlier output may be replaced.

    Raises:
        UsageError: If it is a file, a link or a folder with other content, or ``overwrite`` is missing.
    """
    check_replaceable(target, is_ours=lambda folder: (folder / record).is_file(), what=what, overwrite=overwrite)
    known = read_json_object(target / record).get(FILES) or () if (target / record).is_file() else ()
    others = sorted(files_in(target) - set(known))
    if others:
        raise UsageError(
            f"expected only what was written with {what} in {target}, found {len(others)} other files, {others[0]} for "
            "example; move them away"
        )


def files_in(folder: Path) -> set[str]:
    """Return the paths of all files in a folder, with ``/`` between folders, and of links whatever they lead to."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix() for path in found}

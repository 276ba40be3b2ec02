"""What an interrupted conversion has finished: one small file per case, believed only where nothing has changed."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from nnunet_kd.dataset_conversion.challenge import Case
from nnunet_kd.dataset_conversion.incoming.checking import volumes_of
from nnunet_kd.dataset_conversion.incoming.volumes import parts

Stamp = list[list[Any]]


def stamp(case: Case, source: Path) -> Stamp | None:
    """Return path, channel, size and time of each of a case's files; ``None`` where one cannot be asked.

    Args:
        case: Which one.
        source: Folder the paths are relative to, so that an archive may be unpacked elsewhere the next time.
    """
    try:
        return [
            [os.path.relpath(part, source), index, part.stat().st_size, part.stat().st_mtime_ns]
            for path, index in volumes_of(case)
            for part in parts(path)
        ]
    except (OSError, ValueError):
        return None


def note(folder: Path, name: str, state: Stamp | None, content: dict[str, Any]) -> None:
    """Write down what was found or done; where the disk takes nothing, the next run does it again.

    Args:
        folder: The journal.
        name: The case's.
        state: Its files as they were before.
        content: What :func:`recall` is to return.
    """
    if state is None:
        return
    path = folder / f"{name}.json"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        folder.mkdir(exist_ok=True)
        unfinished.write_text(json.dumps({"stamp": state, "content": content}), encoding="utf-8")
        unfinished.replace(path)
    except OSError:  # the case is not to blame for a full disk
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)


def recall(folder: Path, name: str, state: Stamp | None) -> dict[str, Any] | None:
    """Return what was written down of a case, ``None`` where there is nothing or its files have changed since."""
    try:
        known = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # never written, or torn by a power cut
        return None
    return known["content"] if state is not None and known["stamp"] == state else None

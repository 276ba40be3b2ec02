"""The one folder that a demo writes to, and what is finished in it."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.demo_data import DemoData, open_data
from nnunet_kd.planning.model_folder import read_json, write_json_atomically

_STATE = "demo.json"
_SETTINGS = ("data", "minutes")
_OWN = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "predictions", "report", "logs", "cache")


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """What a demo shall do.

    Attributes:
        folder: The only folder that it writes to.
        minutes: Time it may take after installation.
        data: A Decathlon task's folder; ``None`` makes phantoms.
    """

    folder: Path
    minutes: float = 10.0
    data: Path | None = None


class DemoFolder:
    """Paths, variables and the record of finished stages, ``demo.json``.

    Attributes:
        path: The folder.
        state: Content of the record.
    """

    def __init__(self, path: Path, state: dict[str, Any]) -> None:
        self.path = path
        self.state = state

    @property
    def raw(self) -> Path:
        """nnU-Net's raw data."""
        return self.path / "nnUNet_raw"

    @property
    def preprocessed(self) -> Path:
        """nnU-Net's preprocessed data."""
        return self.path / "nnUNet_preprocessed"

    @property
    def results(self) -> Path:
        """nnU-Net's trained models."""
        return self.path / "nnUNet_results"

    @property
    def predictions(self) -> Path:
        """Segmentations of the held-out cases, one folder per arm."""
        return self.path / "predictions"

    @property
    def report(self) -> Path:
        """The comparison report."""
        return self.path / "report"

    @property
    def logs(self) -> Path:
        """Output of the commands, one file each."""
        return self.path / "logs"

    @property
    def data(self) -> DemoData:
        """The data set, once it is written."""
        return open_data(self.raw)

    @property
    def finished(self) -> Mapping[str, float]:
        """Seconds that each finished stage took."""
        finished: Mapping[str, float] = self.state["finished"]
        return finished

    def finish(self, stage: str, seconds: float) -> None:
        """Note that a stage needs not be done again."""
        self.state["finished"][stage] = round(seconds, 1)
        self.save()

    def save(self) -> None:
        """Write the record."""
        write_json_atomically(self.state, self.path / _STATE)

    def environment(self) -> dict[str, str]:
        """Return the variables of every child: nnU-Net's folders lie inside this one."""
        # nnU-Net starts 8 to 12 processes of its own, each of which takes seconds to start
        few = {"nnUNet_def_n_proc": str(min(2, os.cpu_count() or 1)), "nnUNet_n_proc_DA": "1"}
        inside = {
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "MPLCONFIGDIR": str(self.path / "cache"),  # matplotlib would write into the home folder
            "nnUNet_wandb_enabled": "0",
            "PYTHONUNBUFFERED": "1",
        }
        return {**few, **os.environ, **inside}


def open_demo_folder(settings: DemoSettings, *, overwrite: bool = False) -> DemoFolder:
    """Make the folder, or take up what an earlier run left in it.

    Args:
        settings: Which folder, and what the demo shall do there.
        overwrite: Delete what an earlier demo wrote, and nothing else, then begin anew.

    Raises:
        UsageError: If it holds something that is no demo, a demo with other settings, or the data.
    """
    path = Path(os.path.realpath(settings.folder))
    data = None if settings.data is None else os.path.realpath(settings.data)
    if data is not None and Path(data).is_relative_to(path):
        raise UsageError(f"expected --data outside of {path}, which the demo writes to; type -o FOLDER")
    record = path / _STATE
    wanted = {"data": data, "minutes": settings.minutes}
    state: dict[str, Any] = {**wanted, "finished": {}}
    if record.is_file():
        earlier = _read(record)
        if overwrite:
            _clear(path)
        else:
            _check_can_go_on(earlier, wanted, path)
            state = earlier
    elif path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"expected a new or empty folder, but {path} holds other things; type -o FOLDER")
    folder = DemoFolder(path, state)
    for part in (folder.raw, folder.preprocessed, folder.results, folder.predictions, folder.logs):
        part.mkdir(parents=True, exist_ok=True)
    folder.save()
    return folder


def _clear(path: Path) -> None:
    """Delete what a demo writes; the record comes last, so that an interrupted deletion can be repeated."""
    for name in _OWN:
        if (path / name).exists():
            shutil.rmtree(path / name)
    (path / _STATE).unlink()


def _read(record: Path) -> dict[str, Any]:
    state = read_json(record)
    finished = state.get("finished") if isinstance(state, dict) else None
    if (
        not isinstance(finished, dict)
        or not all(isinstance(seconds, int | float) for seconds in finished.values())
        or any(key not in state for key in _SETTINGS)
    ):
        raise UsageError(f"expected the record of a demo in {record}, got something else; type -o FOLDER")
    return dict(state)


def _check_can_go_on(state: Mapping[str, Any], wanted: Mapping[str, Any], path: Path) -> None:
    different = [key for key in _SETTINGS if state[key] != wanted[key]]
    if different:
        raise UsageError(
            f"expected {_words(wanted, different)} in {path}, but a demo with {_words(state, different)} "
            "is there; type --overwrite to begin anew or -o FOLDER"
        )
    if "data" in state["finished"] and not any((path / _OWN[0]).glob("Dataset*")):
        raise UsageError(f"expected the data of the demo in {path / _OWN[0]}, found none; type --overwrite")


def _words(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return " and ".join(f"{key} = {settings[key] or 'phantoms'}" for key in keys)

"""The raw data set of a demo: phantoms, or a Decathlon task with held-out cases."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.dataset import write_phantom_dataset

PHANTOM_ID, PHANTOM_NAME = 999, "Phantom"
N_TRAIN, N_TEST = 66, 16

_N_VALIDATION = 2  # nnU-Net's own validation at the end of a training; the report uses the held-out cases
_EVERY = 5  # without a list of test cases every fifth case is held out
_ENDING = ".nii.gz"


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """A raw data set with ``labelsTs``.

    Attributes:
        folder: ``DatasetXXX_NAME``.
        n_train: Cases in ``imagesTr``.
        n_test: Held-out cases.
    """

    folder: Path
    n_train: int
    n_test: int

    @property
    def number(self) -> int:
        """nnU-Net's number of the data set."""
        return int(self.folder.name[len("Dataset") :].partition("_")[0])


def write_phantoms(raw: Path) -> Path:
    """Write the demo's phantoms and the split its trainings use."""
    folder = write_phantom_dataset(
        raw,
        dataset_id=PHANTOM_ID,
        name=PHANTOM_NAME,
        n_train=N_TRAIN,
        n_test=N_TEST,
        seed=1,
        shape=(30, 30, 30),
        shape_jitter=0.06,
        overwrite=True,
    )
    _write_split(folder)
    return folder


def hold_out(folder: Path, source: Path) -> None:
    """Move held-out cases of a converted task from the training part to the test part.

    Args:
        folder: Raw data set; test cases without labels are dropped, because they cannot be scored.
        source: Task folder; ``test_cases.txt`` in it names the held-out cases, one per line.

    Raises:
        UsageError: If a named case is not there, or too few cases remain.
    """
    names = sorted(path.name.removesuffix(_ENDING) for path in (folder / "labelsTr").glob(f"*{_ENDING}"))
    held_out = _held_out(names, source)
    for path in (folder / "imagesTs").glob("*"):
        path.unlink()
    for part in ("imagesTs", "labelsTs"):
        (folder / part).mkdir(exist_ok=True)
    for name in held_out:
        for image in (folder / "imagesTr").glob(f"{name}_[0-9][0-9][0-9][0-9]{_ENDING}"):
            image.rename(folder / "imagesTs" / image.name)
        (folder / "labelsTr" / f"{name}{_ENDING}").rename(folder / "labelsTs" / f"{name}{_ENDING}")
    description = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    description["numTraining"] = len(names) - len(held_out)
    (folder / "dataset.json").write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")
    _write_split(folder)


def open_data(raw: Path) -> DemoData:
    """Return the one data set of a demo's raw folder."""
    folder = next(raw.glob("Dataset*"))
    n_train, n_test = (len(list((folder / part).glob(f"*{_ENDING}"))) for part in ("labelsTr", "labelsTs"))
    return DemoData(folder=folder, n_train=n_train, n_test=n_test)


def _held_out(names: Sequence[str], source: Path) -> list[str]:
    listing = source / "test_cases.txt"
    if not listing.is_file():
        return list(names[::_EVERY])
    wanted = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise UsageError(f"expected cases of the task in {listing}, got {', '.join(unknown[:5])}; correct the list")
    if len(names) - len(set(wanted)) <= _N_VALIDATION:
        raise UsageError(f"expected cases to train on, but {listing} holds out {len(set(wanted))} of {len(names)}")
    return sorted(set(wanted))


def _write_split(folder: Path) -> None:
    """Ship a split with few validation cases; nnU-Net takes a raw data set's own."""
    names = sorted(path.name.removesuffix(_ENDING) for path in (folder / "labelsTr").glob(f"*{_ENDING}"))
    split = [{"train": names[_N_VALIDATION:], "val": names[:_N_VALIDATION]}]
    (folder / "splits_final.json").write_text(json.dumps(split, indent=1), encoding="utf-8")

"""Medical Segmentation Decathlon: one task folder as it is unpacked from the organisers' archive."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Submission, Volume
from nnunet_kd.errors import UsageError

_SOURCE = "a folder like Task04_Hippocampus, with dataset.json, imagesTr, labelsTr and perhaps imagesTs"

# The ten task folders, as a submission must hold them, and the values that the masks of each may have
# (numbers of classes: table 1 of https://doi.org/10.1038/s41467-022-30695-9).
TASKS: Mapping[str, tuple[int, ...]] = {
    "Task01_BrainTumour": (0, 1, 2, 3),
    "Task02_Heart": (0, 1),
    "Task03_Liver": (0, 1, 2),
    "Task04_Hippocampus": (0, 1, 2),
    "Task05_Prostate": (0, 1, 2),
    "Task06_Lung": (0, 1),
    "Task07_Pancreas": (0, 1, 2),
    "Task08_HepaticVessel": (0, 1, 2),
    "Task09_Spleen": (0, 1),
    "Task10_Colon": (0, 1),
}

_ENDING = ".nii.gz"
_REQUIRED = ("name", "modality", "labels", "training")
_IGNORE = "ignore"
_APPLE_DOUBLE = "._"  # metadata that macOS puts beside every file in an archive


def read_source(source: Path) -> tuple[DatasetDescription, list[Case]]:
    """Read the task's listing.

    The number and the name come from the folder, ``Task04_Hippocampus``, where it is called so.
    Test cases are left out where ``imagesTs`` is missing.

    Args:
        source: The task's folder.

    Raises:
        UsageError: If this is no task folder.
    """
    listing = _listing(source)
    n_channels = _n_channels(listing, source)
    listed_tests = listing.get("test", []) if (source / "imagesTs").is_dir() else []
    try:
        if not (isinstance(listing["training"], list) and isinstance(listed_tests, list)):
            raise TypeError("no list")
        training = [_case(source, entry["image"], entry["label"], n_channels) for entry in listing["training"]]
        test = [_case(source, entry, None, n_channels) for entry in listed_tests]
    except (KeyError, TypeError, ValueError, RuntimeError, OSError) as error:  # also "\0" and links in a circle
        raise UsageError(
            f"expected training entries with image and label, and test entries of one path, in "
            f"{source / 'dataset.json'}, got something else ({type(error).__name__}: {error})"
        ) from error
    real = [case for case in (*training, *test) if not case.images[0].path.name.startswith(_APPLE_DOUBLE)]
    return _describe(listing, source), real


def _listing(source: Path) -> dict[str, Any]:
    path = source / "dataset.json"
    if not path.is_file():
        raise UsageError(f"expected {_SOURCE}; there is no {path}")
    try:
        listing = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"expected JSON in {path}, got something else ({error}); unpack the archive again") from error
    if isinstance(listing, dict) and "channel_names" in listing:
        raise UsageError(
            f"expected the Decathlon's listing, but {path} is nnU-Net's own of a data set that is converted already; "
            f"move {source} to nnUNet_raw, or name the download"
        )
    missing = [key for key in _REQUIRED if not isinstance(listing, dict) or key not in listing]
    if missing:
        raise UsageError(f"expected the keys {', '.join(_REQUIRED)} in {path}; there is no {', '.join(missing)}")
    return dict(listing)


def _n_channels(listing: Mapping[str, Any], source: Path) -> int:
    modalities = listing["modality"]
    numbered = _is_named(modalities) and set(modalities) == set(map(str, range(len(modalities))))
    if not numbered or not _is_named(listing["labels"]):
        raise UsageError(
            f'expected modality like {{"0": "MRI"}} and labels like {{"0": "background"}} in '
            f"{source / 'dataset.json'}, got {modalities!r:.80} and {listing['labels']!r:.80}"
        )
    return len(modalities)


def _is_named(entries: object) -> bool:
    """Tell whether entries are texts with something in them."""
    texts = list(entries.values()) if isinstance(entries, dict) else []
    return bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)


def _describe(listing: Mapping[str, Any], source: Path) -> DatasetDescription:
    folder = re.fullmatch(r"Task(\d+)_(\w+)", source.resolve().name)
    number, name = (int(folder[1]), folder[2]) if folder else (None, str(listing["name"]))
    names = [str(listing["modality"][str(channel)]).strip() for channel in range(len(listing["modality"]))]
    try:
        # the published listings put the value first and spell a key "relase"
        labels = {("background" if int(value) == 0 else text): int(value) for value, text in listing["labels"].items()}
        if _IGNORE in labels:
            raise ValueError(f"nnU-Net leaves a label of the name '{_IGNORE}' out of the training; rename it")
        return DatasetDescription(
            dataset_id=number,
            name=re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_"),
            channel_names=tuple("CT" if name.upper() == "CT" else name for name in names),
            labels=labels,
            licence=str(listing.get("licence", "CC-BY-SA 4.0")).strip(),
            reference=str(listing.get("reference", "")).strip() or "http://medicaldecathlon.com",
            release=str(listing.get("release", listing.get("relase", ""))).strip(),
            description=str(listing.get("description", "")).strip(),
            file_ending=_ENDING,
        )
    except ValueError as error:
        raise UsageError(f"expected a Decathlon listing in {source / 'dataset.json'}: {error}") from error


def _case(source: Path, image: str, label: str | None, n_channels: int) -> Case:
    path = _inside(source, image)
    # the channels of a task that has several lie along the fourth axis of one file
    volumes = tuple(Volume(path=path, index=channel if n_channels > 1 else None) for channel in range(n_channels))
    labels = None if label is None else _inside(source, label)
    return Case(name=path.name.removesuffix(_ENDING), images=volumes, label=labels)


def _inside(source: Path, entry: str) -> Path:
    """Return the path of a listed file, which must lie in the task's folder."""
    path = source / entry
    if not path.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"expected files inside {source}, but its dataset.json lists {entry}")
    return path


def _file_name(case: str) -> str:
    return f"{case}{_ENDING}"


CHALLENGES = {
    "decathlon": Challenge(
        summary="Medical Segmentation Decathlon, one of the ten task folders",
        source=_SOURCE,
        read_source=read_source,
        submission=Submission(
            file_name=_file_name,
            label_values={value: value for value in range(4)},
            tasks={task: {value: value for value in values} for task, values in TASKS.items()},
            note="one zip holds the folders of all ten tasks, each with one mask per image in imagesTs",
        ),
    )
}

"""Medical Segmentation Decathlon: one task folder as it is unpacked from the organisers' archive."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.dataset_conversion.challenge import Case, Challenge, DatasetDescription, Volume
from nnunet_kd.errors import UsageError

_SOURCE = "a folder like Task04_Hippocampus, with dataset.json, imagesTr, labelsTr and perhaps imagesTs"

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
        UsageError: If this is no task folder, or a task of several channels.
    """
    listing = _listing(source)
    _refuse_several_channels(listing, source)
    listed_tests = listing.get("test", []) if (source / "imagesTs").is_dir() else []
    try:
        training = [_training_case(source, entry) for entry in listing["training"]]
        test = [_test_case(source, entry) for entry in listed_tests]
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
    missing = [key for key in _REQUIRED if not isinstance(listing, dict) or key not in listing]
    if missing:
        raise UsageError(f"expected the keys {', '.join(_REQUIRED)} in {path}; there is no {', '.join(missing)}")
    return dict(listing)


def _refuse_several_channels(listing: Mapping[str, Any], source: Path) -> None:
    modalities = listing["modality"]
    if not isinstance(modalities, dict) or "0" not in modalities or not isinstance(listing["labels"], dict):
        raise UsageError(
            f'expected modality like {{"0": "MRI"}} and labels like {{"0": "background"}} in '
            f"{source / 'dataset.json'}, got {modalities!r:.80} and {listing['labels']!r:.80}"
        )
    if len(modalities) != 1:
        names = ", ".join(map(str, modalities.values()))
        raise UsageError(
            f"expected a task of one channel, but {source.resolve().name} has {len(modalities)} ({names}); "
            f"type nnUNetv2_convert_MSD_dataset -i {source} for such tasks"
        )


def _describe(listing: Mapping[str, Any], source: Path) -> DatasetDescription:
    folder = re.fullmatch(r"Task(\d+)_(\w+)", source.resolve().name)
    number, name = (int(folder[1]), folder[2]) if folder else (None, str(listing["name"]))
    modality = str(listing["modality"]["0"]).strip()
    try:
        # the published listings put the value first and spell a key "relase"
        labels = {
            ("background" if int(value) == 0 else str(text)): int(value) for value, text in listing["labels"].items()
        }
        if _IGNORE in labels:
            raise ValueError(f"nnU-Net leaves a label of the name '{_IGNORE}' out of the training; rename it")
        return DatasetDescription(
            dataset_id=number,
            name=re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_"),
            channel_names=("CT" if modality.upper() == "CT" else modality,),
            labels=labels,
            licence=str(listing.get("licence", "CC-BY-SA 4.0")).strip(),
            reference=str(listing.get("reference", "")).strip() or "http://medicaldecathlon.com",
            release=str(listing.get("release", listing.get("relase", ""))).strip(),
            description=str(listing.get("description", "")).strip(),
            file_ending=_ENDING,
        )
    except ValueError as error:
        raise UsageError(f"expected a Decathlon listing in {source / 'dataset.json'}: {error}") from error


def _training_case(source: Path, entry: Mapping[str, str]) -> Case:
    image, label = _inside(source, entry["image"]), _inside(source, entry["label"])
    return Case(name=_case_name(image), images=(Volume(path=image),), label=label)


def _test_case(source: Path, entry: str) -> Case:
    image = _inside(source, entry)
    return Case(name=_case_name(image), images=(Volume(path=image),), label=None)


def _case_name(image: Path) -> str:
    return image.name.removesuffix(_ENDING)


def _inside(source: Path, entry: str) -> Path:
    """Return the path of a listed file, which must lie in the task's folder."""
    path = source / entry
    if not path.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"expected files inside {source}, but its dataset.json lists {entry}")
    return path


CHALLENGES = {
    "decathlon": Challenge(
        summary="Medical Segmentation Decathlon, one task folder (3-D tasks of one channel)",
        source=_SOURCE,
        read_source=read_source,
    )
}

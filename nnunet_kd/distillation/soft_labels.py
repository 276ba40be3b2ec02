"""Soft labels on disk: what identifies a cache, how a case is written and read, and what is wrong with it.

A cache lies in ``nnUNet_preprocessed/DATASET/nnunet_kd_soft_labels/HASH/``, one folder deeper (``fold_X``) where each
fold has its own teacher, and never beside the preprocessed images: nnU-Net takes every file there for a case.

- ``CASE.b2nd``: uint8, ``(channels, *spatial)``, ``round(255 p)``. Of exclusive classes the foreground ones, so that
  padding with 0 is background; of regions all.
- ``manifest.json``: the settings in plain words, and shape and SHA-256 of every case. Until a run ends, its finished
  cases stand in ``unfinished/CASE.json``, one file each, so that no two workers write the same file.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import KDSettings, TeacherSource
from nnunet_kd.planning.model_folder import read_json, write_json_atomically

FOLDER = "nnunet_kd_soft_labels"
VERSION = 1
LEVELS = 255
MANIFEST, _UNFINISHED = "manifest.json", "unfinished"
_PREPROCESSING = (
    "data_identifier",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "previous_stage",
)

Records = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What tells whether an image is still the one that the teachers saw; cheap to ask for every case.

    Attributes:
        shape: Spatial shape of the preprocessed image.
        n_bytes: Size on disk of all that the teachers' input is made from.
    """

    shape: tuple[int, ...]
    n_bytes: int


# ---- what identifies a cache ----


def pinned_folds(source: TeacherSource, fold: int | str) -> tuple[int | str, ...]:
    """Return the folds of a teacher whose outputs a student of ``fold`` learns from, by what its plans record."""
    if source.folds == "same":
        return (fold,)
    if source.folds != "all":
        return tuple(source.folds)
    return tuple(sorted(int(f) for f in source.sha256 if f != "all")) or ("all",)


def recipe(
    settings: KDSettings,
    temperature: float,
    fold: int | str,
    *,
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe in plain JSON all that the values of soft labels depend on, from the plans alone.

    Raises:
        UsageError: If the plans do not record a teacher's checkpoint.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    planned = PlansManager(dict(plans)).get_configuration(configuration).configuration
    preprocessing = {key: planned.get(key) for key in _PREPROCESSING} | {"transpose": plans["transpose_forward"]}
    if "CTNormalization" in planned["normalization_schemes"]:
        preprocessing["CT statistics"] = plans["foreground_intensity_properties_per_channel"]
    if planned.get("previous_stage"):
        preprocessing["previous stage's plans"] = plans["plans_name"]  # whose segmentations the teacher is shown
    total = sum(source.weight for source in settings.teachers)
    members = [
        {**member, "weight": round(member["weight"] / total, 6)}
        for number, source in enumerate(settings.teachers)
        for member in _members(source, fold, (settings.seed or 0) + number)
    ]
    plain: dict[str, Any] = json.loads(
        json.dumps(
            {
                "format": VERSION,
                "temperature": float(temperature),
                "mirroring": settings.cache.mirroring,
                "step size": settings.cache.step_size,
                "teachers": members,
                "preprocessing": preprocessing,
                "labels": dataset_json["labels"],
                "region order": dataset_json.get("regions_class_order"),
            }
        )
    )
    return plain


def _members(source: TeacherSource, fold: int | str, seed: int) -> list[dict[str, Any]]:
    folds = pinned_folds(source, fold)
    share = source.weight / len(folds)
    if source.checkpoint is None:
        return [
            {"random weights": [source.model_folder, seed, number], "weight": share} for number in range(len(folds))
        ]
    missing = [f for f in folds if str(f) not in source.sha256]
    if missing:
        raise UsageError(
            f"the plans do not record the checkpoint of teacher {source.model_folder}, fold {missing[0]}, "
            "which cached soft labels are known by"
        )
    return [{"checkpoint sha256": source.sha256[str(f)], "weight": share} for f in folds]


def cache_folder(dataset_folder: Path, settings: KDSettings, fold: int | str, what: Mapping[str, Any]) -> Path:
    """Return where the soft labels that ``what`` describes lie.

    Args:
        dataset_folder: ``nnUNet_preprocessed/DATASET``.
        settings: Tell whether each fold has its own teacher.
        fold: The fold of the student.
        what: What :func:`recipe` returned.
    """
    folder = dataset_folder / FOLDER / key(what)
    return folder if is_shared(settings) else folder / f"fold_{fold}"


def is_shared(settings: KDSettings) -> bool:
    """Tell whether the students of all folds learn from the same teachers."""
    return all(source.folds != "same" for source in settings.teachers)


def key(what: Mapping[str, Any]) -> str:
    """Return the hash of a recipe: 16 hexadecimal digits.

    Example:
        >>> key({"temperature": 2.0}) == key({"temperature": 4.0})
        False
    """
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]


def differences(ours: Any, theirs: Any, name: str = "") -> list[str]:  # noqa: ANN401  # any JSON values
    """Name what differs between two recipes, as ``name theirs (not ours)``.

    Example:
        >>> differences({"temperature": 2.0, "mirroring": True}, {"temperature": 4.0, "mirroring": True})
        ['temperature 4.0 (not 2.0)']
    """
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        keys = list(dict.fromkeys([*ours, *theirs]))
        return [d for k in keys for d in differences(ours.get(k), theirs.get(k), f"{name} {k}".strip())]
    if isinstance(ours, list) and isinstance(theirs, list):
        if len(ours) != len(theirs):
            return [f"{len(theirs)} {name} (not {len(ours)})"]
        return [d for a, b in zip(ours, theirs, strict=True) for d in differences(a, b, name)]
    return [] if ours == theirs else [f"{name} {_short(theirs)} (not {_short(ours)})"]


def _short(value: Any) -> str:  # noqa: ANN401
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."


def other_caches(folder: Path, what: Mapping[str, Any]) -> list[str]:
    """Return a line for every other cache of the same data set and fold: its folder and how it differs."""
    fold = folder.name if folder.name.startswith("fold_") else ""
    root = folder.parent.parent if fold else folder.parent
    lines = []
    for path in sorted(root.glob(f"*/{fold}/{MANIFEST}" if fold else f"*/{MANIFEST}")):
        manifest = read_json(path)
        settings = manifest.get("settings") if isinstance(manifest, Mapping) else None
        found = differences(what, settings if isinstance(settings, Mapping) else {})
        if path.parent != folder and found:
            lines.append(f"{path.parent}: {', '.join(found[:3])}")
    return lines


# ---- writing and reading ----


def quantise(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return ``round(255 p)``; the error is at most 1/510.

    Args:
        probabilities: Values in [0, 1], any shape.
    """
    return np.rint(np.clip(probabilities, 0, 1) * LEVELS).astype(np.uint8)


def write_case(
    folder: Path, case: str, values: NDArray[np.uint8], image: ImageFacts, *, patch_size: Sequence[int]
) -> None:
    """Write one case under a temporary name, rename it, then record it as finished.

    Args:
        folder: The cache's.
        case: Name of the case.
        values: Quantised probabilities, ``(channels, *spatial)``.
        image: The image they belong to.
        patch_size: The student's patch: chunks are laid out for it, as nnU-Net lays out those of images.
    """
    import blosc2
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params

    blocks, chunks = comp_blosc2_params(values.shape, tuple(patch_size), bytes_per_pixel=1)
    unfinished = folder / _UNFINISHED
    unfinished.mkdir(parents=True, exist_ok=True)
    # a case may be worked on twice at once, when a worker was lost from sight only
    temporary = folder / f"{case}.{uuid.uuid4().hex}.tmp"
    try:
        blosc2.asarray(
            np.ascontiguousarray(values),
            urlpath=str(temporary),
            chunks=chunks,
            blocks=blocks,
            cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.NOFILTER], "nthreads": 1},
        )
        record = {
            "sha256": file_sha256(temporary),
            "bytes": temporary.stat().st_size,
            "shape": list(values.shape),
            "image_bytes": image.n_bytes,
        }
        temporary.replace(case_file(folder, case))
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    write_json_atomically(record, unfinished / f"{case}.json")


def case_file(folder: Path, case: str) -> Path:
    """Return the file of a case."""
    return folder / f"{case}.b2nd"


def open_case(folder: Path, case: str) -> Any:  # noqa: ANN401  # blosc2 has no type hints
    """Open a case for slicing, mapped into memory where that is possible, as nnU-Net opens images."""
    import os

    import blosc2

    mapped = {} if os.name == "nt" else {"mmap_mode": "r"}
    return blosc2.open(urlpath=str(case_file(folder, case)), mode="r", dparams={"nthreads": 1}, **mapped)


def begin(folder: Path, what: Mapping[str, Any], teachers: Sequence[str]) -> None:
    """Write a manifest that says what the folder will hold; what is recorded already stays.

    Args:
        folder: The cache's; made if need be.
        what: The recipe.
        teachers: Names of the members, for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_manifest(folder, {"settings": dict(what), "teachers": list(teachers), "cases": read_records(folder)})


def finish(folder: Path) -> None:
    """Move what the workers recorded into the manifest and remove what dead ones left."""
    manifest = read_json(folder / MANIFEST) | {"cases": read_records(folder)}
    _write_manifest(folder, manifest)
    for leftover in [*(folder / _UNFINISHED).glob("*.json"), *folder.glob("*.tmp")]:
        leftover.unlink(missing_ok=True)
    if (folder / _UNFINISHED).is_dir() and not any((folder / _UNFINISHED).iterdir()):
        (folder / _UNFINISHED).rmdir()


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_json_atomically({"version": VERSION, "hash": key(manifest["settings"]), **manifest}, folder / MANIFEST)


def read_records(folder: Path) -> Records:
    """Return what is recorded of every finished case: ``sha256``, ``bytes``, ``shape`` and ``image_bytes``."""
    manifest = folder / MANIFEST
    records: Records = dict(read_json(manifest).get("cases", {})) if manifest.is_file() else {}
    for file in sorted((folder / _UNFINISHED).glob("*.json")):
        records[file.stem] = read_json(file)
    return records


# ---- checks ----


def faults(folder: Path, images: Mapping[str, ImageFacts]) -> dict[str, str]:
    """Say which cases cannot be used and why; every file is read once to compare its checksum.

    Args:
        folder: The cache's.
        images: The cases that are needed and what their images look like now.

    Returns:
        ``missing``, ``damaged`` or ``of another image`` per unusable case.
    """
    records = read_records(folder)
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = pool.map(lambda item: _fault(folder, item[0], item[1], records), images.items())
        shown = tqdm(found, total=len(images), desc="Checking soft labels", unit="case", leave=False, disable=None)
        return {case: fault for case, fault in zip(images, shown, strict=True) if fault}


def _fault(folder: Path, case: str, image: ImageFacts, records: Records) -> str | None:
    file, record = case_file(folder, case), records.get(case)
    if record is None or not file.is_file():
        return "missing"
    if tuple(record["shape"][1:]) != image.shape or record["image_bytes"] != image.n_bytes:
        return "of another image"
    if file.stat().st_size != record["bytes"] or file_sha256(file) != record["sha256"]:
        return "damaged"
    return None

"""JSON documents without the paths of the machine they were written on."""

import re
from collections.abc import Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from nnunet_kd.errors import UsageError

_DATASET = re.compile(r"Dataset\d{3}_.+")


def _as_path(text: str) -> PurePath | None:
    """Return what ``text`` is as an absolute path of some system, or ``None``."""
    windows = PureWindowsPath(text)
    if windows.drive and windows.root:
        return windows
    posix = PurePosixPath(text)
    # "/" alone and a sentence that begins with a slash are no paths
    return posix if text.startswith(("/", "~/")) and len(posix.parts) > 2 else None


def short_name(text: str) -> str:
    """Reduce a path to its last part, with the data set's folder before it where there is one.

    Example:
        >>> short_name("/home/ada/results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__2d")
        'Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__2d'
        >>> short_name("/scans/case_001.nii.gz")
        'case_001.nii.gz'
    """
    path = _as_path(text) or PurePosixPath(text)
    parent = path.parent.name
    return f"{parent}/{path.name}" if _DATASET.fullmatch(parent) else path.name


def without_paths(document: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Copy a JSON document with every absolute path in it reduced by :func:`short_name`.

    Example:
        >>> without_paths({"file": "/home/ada/x.nii.gz", "reference": "https://example.org/a"})
        {'file': 'x.nii.gz', 'reference': 'https://example.org/a'}
    """
    if isinstance(document, Mapping):
        return {key: without_paths(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [without_paths(value) for value in document]
    if isinstance(document, str) and _as_path(document):
        return short_name(document)
    return document


def portable_plans(plans: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a plans file without paths; its ``kd`` block stays, with teachers' folders reduced to names.

    Networks that began with weights from elsewhere are built without them, because the checkpoint has all weights and
    the machine that predicts may be without a network.

    Raises:
        UsageError: If the ``kd`` block has another form than ours.
    """
    portable: dict[str, Any] = without_paths(plans)
    for configuration in portable.get("configurations", {}).values():
        settings = configuration.get("architecture", {}).get("arch_kwargs", {})
        if "pretrained" in settings:
            settings["pretrained"] = False
    try:
        for settings in portable.get("kd", {}).get("configurations", {}).values():
            for teacher in settings.get("teachers", ()):
                teacher["model_folder"] = short_name(teacher["model_folder"])
    except (AttributeError, KeyError, TypeError) as error:
        raise UsageError(
            f"expected the kd block of plans.json as 'nnunet_kd plan' writes it, got another form "
            f"({type(error).__name__}: {error}); take the training's own plans.json"
        ) from error
    return portable


def portable_dataset(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a ``dataset.json`` without paths and without its list of training files, which no prediction needs."""
    portable: dict[str, Any] = without_paths({key: value for key, value in dataset.items() if key != "dataset"})
    return portable

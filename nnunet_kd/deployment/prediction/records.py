"""What is left beside predictions: how they were made, and the names that other commands look up."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_kd import __version__
from nnunet_kd.deployment.inference.plan import InferencePlan, Resampling
from nnunet_kd.deployment.prediction.overlap import Outcome
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically

RECORD = "predict.json"
_LIBRARIES = ("numpy", "scipy", "skimage", "SimpleITK", "nibabel", "tifffile", "openvino", "onnxruntime", "torch")
_UNIMPORTANT = ("model",)  # a folder's name may change


def record_name(n_parts: int, part: int) -> str:
    """Return the record's file name; parts that run side by side write one each."""
    return RECORD if n_parts == 1 else f"predict_part{part}of{n_parts}.json"


def check_same_settings(folder: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to put predictions beside those of another model or other settings.

    Args:
        folder: Where predictions go; may be missing.
        identity: Model and settings, as the record holds them.

    Raises:
        UsageError: If a record there names others.
    """
    for file in sorted(folder.glob("predict*.json")):
        before = _identity(file)
        if not isinstance(before, Mapping):
            continue  # a label map's own file, named so by chance
        for key, value in identity.items():
            if key not in _UNIMPORTANT and before.get(key) != value:
                raise UsageError(
                    f"{folder} holds predictions with {key} {before.get(key)}, these would have {value}; name another "
                    "folder, or --overwrite to replace"
                )


def _identity(file: Path) -> Any:  # noqa: ANN401  # any JSON value
    try:
        return read_json_object(file).get("identity")
    except UsageError:  # torn by a crash, which must not keep the run from going on
        return None


def read_cases(file: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cases of an earlier record of the same settings, else none."""
    try:
        record = read_json_object(file)
    except UsageError:  # none, or torn by a crash: the label maps count, not this list
        return {}
    same = isinstance(record.get("identity"), Mapping) and all(
        record["identity"].get(key) == value for key, value in identity.items() if key not in _UNIMPORTANT
    )
    cases = record.get("cases")
    return dict(cases) if same and isinstance(cases, Mapping) else {}


def write_record(
    file: Path,
    identity: Mapping[str, Any],
    cases: Mapping[str, Any],
    *,
    threads: int | None,
    seconds: float,
    finished: bool,
) -> None:
    """Write ``predict.json``.

    Args:
        file: To be written.
        identity: Model and settings.
        cases: By name, as :func:`case_entry` makes them.
        threads: Cores for the network; ``None`` where its library decides.
        seconds: Wall time of this run so far, from its arguments on.
        finished: Whether the run has come to its end.
    """
    modules = {name: sys.modules.get(name) for name in _LIBRARIES}
    versions = {name: str(getattr(module, "__version__", "")) for name, module in modules.items() if module}
    record = {
        "identity": dict(identity),
        "versions": {"nnunet_kd": __version__, "python": sys.version.split()[0], **versions},
        "threads": threads,
        "finished": finished,
        "seconds": round(seconds, 3),
        "cases": dict(cases),
    }
    write_json_atomically(record, file)


def case_entry(outcome: Outcome) -> dict[str, Any]:
    """Return a case's part of the record: seconds by stage, and the fault if there was one."""
    entry: dict[str, Any] = {"seconds": {stage: round(value, 4) for stage, value in outcome.seconds.items()}}
    return entry if outcome.fault is None else {**entry, "fault": outcome.fault.message}


def dataset_json(plan: InferencePlan) -> dict[str, Any]:
    """Return the parts of dataset.json that a bundle knows: channels, labels, regions and file ending."""
    content: dict[str, Any] = {
        "name": plan.dataset_name,
        "channel_names": {str(index): name for index, name in enumerate(plan.channel_names)},
        "labels": {name: _plain(value) for name, value in plan.labels.items()},
        "file_ending": plan.file_ending,
    }
    return content | ({} if plan.regions_class_order is None else {"regions_class_order": [*plan.regions_class_order]})


def plans_json(plan: InferencePlan) -> dict[str, Any]:
    """Return the parts of plans.json that a bundle knows: enough for nnU-Net's ensembling and post-processing."""
    settings: dict[str, Any] = {
        "preprocessor_name": "DefaultPreprocessor",
        "patch_size": [*plan.patch_size],
        "spacing": [*plan.spacing],
        "normalization_schemes": [*plan.normalization_schemes],
        "use_mask_for_norm": [*plan.use_mask_for_norm],
    }
    for of in ("data", "seg", "probabilities"):
        resampling: Resampling = getattr(plan, f"resampling_{of}")
        kwargs = asdict(resampling)
        settings |= {f"resampling_fn_{of}": kwargs.pop("name"), f"resampling_fn_{of}_kwargs": kwargs}
    return {
        "dataset_name": plan.dataset_name,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": plan.image_reader_writer,
        "transpose_forward": [*plan.transpose_forward],
        "transpose_backward": [*plan.transpose_backward],
        "label_manager": "LabelManager",
        "configurations": {plan.configuration: settings},
    }


def _plain(value: int | Sequence[int]) -> int | list[int]:
    return value if isinstance(value, int) else [*value]

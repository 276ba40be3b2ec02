"""Whether plans.json and dataset.json are as nnU-Net writes them, as far as we read them."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from nnunet_kd.errors import UsageError

_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
_PLANS = {"plans_name": str, "dataset_name": str, "transpose_forward": list}
_CONFIGURATION = {
    "data_identifier": str,
    "batch_size": int,
    "patch_size": list,
    "spacing": list,
    "normalization_schemes": list,
    "use_mask_for_norm": list,
    "architecture": dict,
}
_ARCHITECTURE = {"network_class_name": str, "arch_kwargs": dict, "_kw_requires_import": list}


def check_dataset(content: Mapping[str, Any], where: str) -> None:
    """Refuse a dataset.json without labels or channels.

    Args:
        content: The content of a dataset.json.
        where: How to name the file in messages.

    Raises:
        UsageError: Names the key, what was expected and what came.
    """
    channels = "modality" if "modality" in content else "channel_names"  # nnU-Net takes the older name too
    _check_kinds(content, {"labels": dict, channels: dict}, where)
    for name, value in content["labels"].items():
        values = value if isinstance(value, list) else [value]
        if not values or not _are_whole(values):
            raise UsageError(
                f"{where}: expected whole numbers for the label '{name}', got {value!r:.80}; mend the file"
            )


def check_plans(plans: Mapping[str, Any], configuration: str, where: str) -> None:
    """Refuse plans in which one configuration is missing or lacks what a student is derived from.

    Args:
        plans: The content of a plans file.
        configuration: nnU-Net configuration that is used.
        where: How to name the file in messages.

    Raises:
        UsageError: Names the key, what was expected and what came.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    _check_kinds(plans, _PLANS | {"configurations": dict}, where)
    if configuration not in plans["configurations"]:
        known = ", ".join(plans["configurations"]) or "none"
        raise UsageError(
            f"{where} lacks configuration '{configuration}', it has: {known}; name one of those, or copy it again"
        )
    try:
        resolved = PlansManager(deepcopy(dict(plans))).get_configuration(configuration).configuration
    except Exception as error:  # nnU-Net resolves inheritance and old formats without checks
        raise UsageError(
            f"{where}: nnU-Net cannot read configuration '{configuration}': {type(error).__name__}: {error!s:.120}; "
            "copy the file again"
        ) from error
    where = f"{where}, {configuration}"
    _check_kinds(resolved, _CONFIGURATION, where)
    _check_kinds(resolved["architecture"], _ARCHITECTURE, f"{where}, architecture")
    patch, kwargs = resolved["patch_size"], resolved["architecture"]["arch_kwargs"]
    if not patch or not _are_whole(patch, above=0):
        raise UsageError(f"{where}, patch_size: expected whole numbers > 0, got {patch!r:.80}; copy the file again")
    spacing = resolved["spacing"]
    if len(spacing) != len(patch) or not all(isinstance(v, int | float) for v in spacing):
        raise UsageError(f"{where}, spacing: expected {len(patch)} numbers, got {spacing!r:.80}; copy the file again")
    for key in ("n_stages", "features_per_stage", "strides"):
        if key in kwargs and not _fits_stages(key, kwargs[key], len(patch)):
            raise UsageError(
                f"{where}, {key}: expected whole numbers > 0 per stage, got {kwargs[key]!r:.80}; copy the file again"
            )


def _fits_stages(key: str, value: Any, n_axes: int) -> bool:  # noqa: ANN401  # any JSON value
    if key == "n_stages":
        return _are_whole([value], above=0)
    if not isinstance(value, list):
        return key != "strides" and _are_whole([value], above=0)  # one number of features for all stages
    if key == "features_per_stage":
        return _are_whole(value, above=0)
    per_stage = [stride if isinstance(stride, list) else [stride] * n_axes for stride in value]
    return bool(value) and all(len(stride) == n_axes and _are_whole(stride, above=0) for stride in per_stage)


def _are_whole(values: Sequence[Any], *, above: int | None = None) -> bool:
    return all(isinstance(v, int) and not isinstance(v, bool) and (above is None or v > above) for v in values)


def _check_kinds(content: Mapping[str, Any], kinds: Mapping[str, type], where: str) -> None:
    for key, kind in kinds.items():
        value = content.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            found = "nothing" if key not in content else repr(value)
            raise UsageError(f"{where}, {key}: expected {_NAMES[kind]}, got {found:.80}; copy the file again")


def pseudo_labelled_cases(dataset_json: Mapping[str, Any], where: str) -> dict[str, dict[str, float]]:
    """Return what ``nnunet_kd pseudo_label`` wrote of each pseudo-labelled case into a dataset.json; empty without any.

    Args:
        dataset_json: Its content.
        where: How to name the file.

    Returns:
        ``confidence`` in [0, 1], and whatever else is there, by case.

    Raises:
        UsageError: If it has another form.
    """
    ours = dataset_json.get("nnunet_kd", {})
    cases = ours.get("pseudo_labels", {}) if isinstance(ours, Mapping) else None
    if not isinstance(cases, Mapping):
        raise UsageError(f"{where}: expected nnunet_kd, pseudo_labels as an object of cases; label the pool again")
    for case, entry in cases.items():
        value = entry.get("confidence") if isinstance(entry, Mapping) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise UsageError(
                f"{where}: expected a confidence from 0 to 1 of pseudo-labelled case {case}, got {value!r:.40}; label "
                "the pool again"
            )
    return {case: dict(entry) for case, entry in cases.items()}

"""Which points of k-space a reconstruction was made from: as asked for, as recorded, or as its data set says."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.recon.data.cases import Volume
from nnunet_kd.recon.data.measuring import SampleSettings, SliceData, mask_of, sample_settings, truncation_factor
from nnunet_kd.recon.planning.plan_blocks import Normalisation
from nnunet_kd.recon.planning.sampling import planned_sampling

RECORD = "recon_prediction.json"
_SINGULAR = {"accelerations": "acceleration", "center_fractions": "center_fraction"}  # as options are recorded


def known_sampling(
    folder: Path, reference: Path, *, asked: Mapping[str, Any], acceleration: float | None
) -> SampleSettings | None:
    """Find how the cases of a folder of reconstructions were sampled.

    In this order: the options of the command; what ``recon predict`` recorded beside the reconstructions, that is the
    plans of its model, if it is still there, and what replaced their masks; ``dataset.json`` beside the reference, with
    the arm's acceleration.

    Args:
        folder: Of reconstructions.
        reference: Folder of case files.
        asked: Settings of masks from the command; empty for none.
        acceleration: Of the arm, where it has one.

    Returns:
        What draws the masks; ``None`` if nothing is known.

    Raises:
        UsageError: If the settings mean nothing, or the recorded model is damaged.
    """
    rate = {} if acceleration is None else {"acceleration": acceleration}
    if asked:
        return _drawing({**rate, **asked})
    record = _read(folder / RECORD)
    changed = _changes(record)
    if (planned := _planned(record, changed)) is not None:
        return planned
    facts = _read(reference.resolve().parent / "dataset.json")
    if isinstance(facts.get("truncation"), dict):
        return replace(_nothing(), factor=truncation_factor(facts["truncation"]))
    if isinstance(facts.get("sampling"), dict):
        block = facts["sampling"]
        several = rate if not changed else {}
        return _drawing(_merged(block, {**several, **changed}))
    return None


def volume_mask(case: Volume, settings: SampleSettings) -> NDArray[np.float32]:
    """Return the mask of a volume, ``(H or 1, W or 1)``: its own if it has one, else the drawn one."""
    data = SliceData(kspace=case.kspace[:1], name=case.header.name, mask=case.mask, padding=case.header.padding)
    return mask_of(data, settings, None)


def _read(file: Path) -> dict[str, Any]:
    return read_json_object(file) if file.is_file() else {}


def _changes(record: Mapping[str, Any]) -> dict[str, Any]:
    sampling = record.get("sampling")
    if not isinstance(sampling, dict):
        return {}
    return {str(_SINGULAR.get(key, key)): value for key, value in sampling.items()}


def _planned(record: Mapping[str, Any], changed: dict[str, Any]) -> SampleSettings | None:
    from nnunet_kd.recon.training.models import open_recon_model

    model = record.get("model")
    if not isinstance(model, str) or model == "zero-filled":
        return None
    try:
        opened = open_recon_model(model)
    except UsageError:  # moved away since; the data set may say as much
        return None
    plans = opened.plans
    if plans.sampling is not None and changed:
        plans = replace(plans, sampling=_merged(plans.sampling, changed))
    return sample_settings(plans, opened.configuration)


def _merged(block: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Replace settings; the centre follows another acceleration unless it is named, too."""
    alone = "acceleration" in changed and "center_fraction" not in changed
    kept = {key: value for key, value in block.items() if not (alone and key == "center_fraction")}
    return {**kept, **changed}


def _nothing() -> SampleSettings:
    return SampleSettings(normalisation=Normalisation())


def _drawing(block: Mapping[str, Any]) -> SampleSettings:
    return replace(_nothing(), sampling=planned_sampling(block))

"""What the data set's own dataset.json says that a comparison must know."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.planning.model_folder import read_json_object


def _beside(reference: Path) -> dict[str, Any]:
    file = reference.resolve().parent / "dataset.json"
    return read_json_object(file) if file.is_file() else {}


def patients_beside(reference: Path) -> Mapping[str, Hashable] | None:
    """Return the patient of each case, if ``dataset.json`` beside the folder of targets names patients."""
    patients = _beside(reference).get("patients")
    return patients if isinstance(patients, dict) and patients else None


def caution_beside(reference: Path) -> str:
    """Return what must be read beside scores of data whose k-space was never measured; else nothing."""
    kspace = str(_beside(reference).get("kspace", ""))
    return f"k-space: {kspace}; scores do not carry over to measured k-space" if "retrospective" in kspace else ""

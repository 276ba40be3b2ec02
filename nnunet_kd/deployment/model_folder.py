"""A trained nnU-Net model folder, checked: which folds it holds and what its plans say."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError

_FOLD = re.compile(r"fold_(all|\d+)")
_DATASET = re.compile(r"Dataset\d{3}_[\w.-]+")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """What a folder ``TRAINER__PLANS__CONFIGURATION`` says about itself.

    Attributes:
        path: The folder.
        trainer: First part of its name.
        configuration: Last part of its name, one of the plans' configurations.
        plans: Content of ``plans.json``.
        dataset: Content of ``dataset.json``.
        fingerprint: Content of ``dataset_fingerprint.json``, where there is one.
        checkpoints: Fold (``"0"``, ..., or ``"all"``) to file.
    """

    path: Path
    trainer: str
    configuration: str
    plans: Mapping[str, Any]
    dataset: Mapping[str, Any]
    fingerprint: Mapping[str, Any] | None
    checkpoints: Mapping[str, Path]

    @property
    def dataset_name(self) -> str:
        """``DatasetXXX_Name``."""
        return str(self.plans["dataset_name"])

    @property
    def plans_name(self) -> str:
        """The name that ``nnUNetv2_predict -p`` takes."""
        return str(self.plans["plans_name"])


def read_model_folder(
    path: Path, *, folds: Sequence[str] | None = None, checkpoint_name: str = "checkpoint_final.pth"
) -> ModelFolder:
    """Read a model folder without opening its checkpoints.

    Args:
        path: The folder that holds ``fold_0``.
        folds: Those wanted, ``"all"`` for the fold of that name; ``None`` takes every fold that has the checkpoint.
        checkpoint_name: File name in each fold.

    Raises:
        UsageError: If it is no model folder, or a fold or checkpoint is missing.
    """
    if not path.is_dir():
        raise UsageError(f"expected a model folder, found none at {path}; give the one that holds fold_0 with -m")
    plans, dataset = _read_json(path / "plans.json"), _read_json(path / "dataset.json")
    trainer, configuration = _split_name(path.resolve().name, plans)
    if not _DATASET.fullmatch(str(plans.get("dataset_name"))):
        raise UsageError(
            f"expected a dataset_name DatasetXXX_Name in {path / 'plans.json'}, got {plans.get('dataset_name')!r}"
        )
    fingerprint = path / "dataset_fingerprint.json"
    return ModelFolder(
        path=path,
        trainer=trainer,
        configuration=configuration,
        plans=plans,
        dataset=dataset,
        fingerprint=_read_json(fingerprint) if fingerprint.is_file() else None,
        checkpoints=_find_checkpoints(path, folds, checkpoint_name),
    )


def _read_json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"expected {file.name} in {file.parent}, found none; give the folder that holds fold_0"
        ) from None
    except ValueError as error:
        raise UsageError(f"cannot read {file}: {error}; copy the model folder again") from error
    if not isinstance(content, dict):
        raise UsageError(f"expected a JSON object in {file}, got {type(content).__name__}; copy the model folder again")
    return content


def _split_name(name: str, plans: Mapping[str, Any]) -> tuple[str, str]:
    known = plans.get("configurations", {})
    trainer, _, rest = name.partition("__")
    plans_name, _, configuration = rest.partition("__")
    if configuration in known and plans_name == plans.get("plans_name"):
        return trainer, configuration
    raise UsageError(
        f"expected a folder named TRAINER__{plans.get('plans_name')}__CONFIGURATION with one of "
        f"{', '.join(known) or 'no configuration'}, got '{name}'; give the folder its name back"
    )


def _find_checkpoints(path: Path, folds: Sequence[str] | None, name: str) -> dict[str, Path]:
    present = {
        match[1]: folder / name
        for folder in sorted(path.iterdir())
        if (match := _FOLD.fullmatch(folder.name)) and (folder / name).is_file()
    }
    if not present:
        raise UsageError(f"found no fold with {name} in {path}; train one, or name another checkpoint with -chk")
    missing = [fold for fold in folds or () if fold not in present]
    if missing:
        raise UsageError(
            f"expected {name} in fold_{missing[0]} of {path}, found it in {', '.join(present)}; "
            f"train that fold or type: -f {' '.join(present)}"
        )
    return {fold: present[fold] for fold in dict.fromkeys(folds or present)}

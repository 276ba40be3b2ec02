"""An nnU-Net model folder: ``TRAINER__PLANS__CONFIGURATION`` with plans, data set and folds in it."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.nnunet_files import check_dataset, check_plans


def nnunet_folder(variable: str) -> Path:
    """Return one of nnU-Net's three folders.

    Args:
        variable: ``nnUNet_raw``, ``nnUNet_preprocessed`` or ``nnUNet_results``.

    Raises:
        UsageError: If the variable is not set or names no folder.
    """
    value = os.environ.get(variable)
    if not value:
        raise UsageError(f"{variable} is not set; type: export {variable}=/path/to/{variable}")
    folder = Path(value)
    if not folder.is_dir():
        raise UsageError(f"{variable} names {folder}, which is no folder; type: mkdir -p {folder}")
    return folder


def read_json(path: Path) -> Any:  # noqa: ANN401  # any JSON value
    """Read a JSON file.

    Raises:
        UsageError: If it is missing, cannot be read, or is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"expected a file at {path}, found none") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path} as JSON: {error}") from None


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object, as all of nnU-Net's do.

    Raises:
        UsageError: If it is missing, cannot be read, is damaged, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise UsageError(f"expected a JSON object {{...}} in {path}, got {type(content).__name__}; copy it again")
    return content


def write_json_atomically(data: Any, path: Path) -> None:  # noqa: ANN401  # any JSON value
    """Write JSON under a temporary name of this process, then rename."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(data, indent=4) + "\n", encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """What a model folder says about its models.

    Attributes:
        path: The folder itself.
        trainer: Trainer class name, from the folder's name.
        configuration: nnU-Net configuration, from the folder's name.
        plans: Content of plans.json.
        dataset_json: Content of dataset.json.
    """

    path: Path
    trainer: str
    configuration: str
    plans: dict[str, Any]
    dataset_json: dict[str, Any]

    @property
    def folds(self) -> tuple[int | str, ...]:
        """Folds that exist, numbers first and in order, then ``"all"``."""
        return folds_of(self.path)

    def checkpoint(self, fold: int | str, name: str) -> Path:
        """Return the path of a fold's checkpoint.

        Raises:
            UsageError: If fold or file is missing, or the file is empty; names the folds that exist and what to type.
        """
        path = self.path / f"fold_{fold}" / name
        if path.is_file() and path.stat().st_size == 0:
            raise UsageError(f"{path} is empty; copy it again, or name another checkpoint with -chk")
        if path.is_file():
            return path
        if not path.parent.is_dir():
            found = ", ".join(map(str, self.folds)) or "none"
            dataset = self.plans.get("dataset_name", "DATASET")
            raise UsageError(
                f"expected fold {fold} in {self.path}, found folds: {found}; train it with: "
                f"nnUNetv2_train {dataset} {self.configuration} {fold} -tr {self.trainer} "
                f"-p {self.plans.get('plans_name', 'PLANS')}, or choose among those"
            )
        found = ", ".join(sorted(file.name for file in path.parent.glob("*.pth"))) or "none"
        raise UsageError(f"expected {name} in {path.parent}, found checkpoints: {found}; name one of them with -chk")


def find_dataset_folder(text: str) -> Path:
    """Return a data set's folder in ``nnUNet_preprocessed``, by number or name.

    Raises:
        UsageError: If there is none, or more than one.
    """
    return one_dataset(text, nnunet_folder("nnUNet_preprocessed"), f"nnUNetv2_plan_and_preprocess -d {text}")


def one_dataset(text: str, parent: Path, command: str) -> Path:
    """Return the one ``DatasetXXX_Name`` in a folder that a number or a name means.

    Args:
        text: The number or the whole name.
        parent: Where to look.
        command: What makes one, for messages.

    Raises:
        UsageError: If there is none, or more than one.
    """
    start = f"Dataset{int(text):03d}_" if text.isdecimal() else None
    found = sorted(
        folder
        for folder in parent.iterdir()
        if folder.is_dir() and (folder.name == text if start is None else folder.name.startswith(start))
    )
    if len(found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise UsageError(f"expected one data set '{text}' in {parent}, found {names}; type: {command}")
    return found[0]


def folds_of(model: Path) -> tuple[int | str, ...]:
    """Return the folds of a model folder, numbers first and in order, then ``"all"``."""
    names = [folder.name.removeprefix("fold_") for folder in model.glob("fold_*") if folder.is_dir()]
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return (*numbers, "all") if "all" in names else tuple(numbers)


def open_model_folder(text: str | Path) -> ModelFolder:
    """Open a model folder given absolute, relative to ``nnUNet_results`` or to the working directory.

    Raises:
        UsageError: If it is missing, not named as nnU-Net names model folders, or its plans.json or dataset.json are
            missing or not as nnU-Net writes them.
    """
    path = _locate(text)
    parts = path.name.split("__")
    if len(parts) != 3:
        raise UsageError(f"expected a folder named TRAINER__PLANS__CONFIGURATION, got {path}; give the one with fold_X")
    plans, dataset_json = read_json_object(path / "plans.json"), read_json_object(path / "dataset.json")
    check_plans(plans, parts[2], str(path / "plans.json"))
    check_dataset(dataset_json, str(path / "dataset.json"))
    return ModelFolder(path=path, trainer=parts[0], configuration=parts[2], plans=plans, dataset_json=dataset_json)


def _locate(text: str | Path) -> Path:
    path = Path(text)
    with suppress(RuntimeError):  # "~name" of nobody stays a name
        path = path.expanduser()
    results = os.environ.get("nnUNet_results")
    candidates = [path] if path.is_absolute() or not results else [Path(results) / path, path]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate.resolve()
    where = " or ".join(map(str, candidates)) + ("" if results else " (nnUNet_results is not set)")
    raise UsageError(f"no model folder {where}; train the teacher with nnUNetv2_train or give another folder")


def portable(path: Path) -> str:
    """Name a model folder as plans files store it: relative to ``nnUNet_results`` if it lies there."""
    results = os.environ.get("nnUNet_results")
    if results and path.is_relative_to(Path(results).resolve()):
        return path.relative_to(Path(results).resolve()).as_posix()
    return str(path)

"""Which training it is: data, plans, fold and folder, found and checked before anything is built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.planning.model_folder import find_dataset_folder, nnunet_folder, read_json
from nnunet_kd.recon.data.preprocessed_facts import preprocess_again
from nnunet_kd.recon.planning.plan_blocks import check_name
from nnunet_kd.recon.planning.plans import Configuration, ReconPlans, read_plans


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        dataset: The data set's folder in ``nnUNet_preprocessed``.
        plans: The plans.
        configuration_name: Which of their configurations.
        fold: A number or ``"all"``.
        trainer: Name of the trainer.
        model_folder: ``TRAINER__PLANS__CONFIGURATION`` in ``nnUNet_results``; may not exist yet.
        training_cases: Names.
        validation_cases: Names; for fold ``all`` the same.
        kd: What the student learns from; ``None`` without a kd block.
    """

    dataset: Path
    plans: ReconPlans
    configuration_name: str
    fold: int | str
    trainer: str
    model_folder: Path
    training_cases: tuple[str, ...]
    validation_cases: tuple[str, ...]
    kd: KDSettings | None

    @property
    def configuration(self) -> Configuration:
        """The configuration that is trained."""
        return self.plans.configuration(self.configuration_name)

    @property
    def fold_folder(self) -> Path:
        """Where checkpoints and logs go."""
        return self.model_folder / f"fold_{self.fold}"

    @property
    def preprocessed(self) -> Path:
        """Folder of the preprocessed cases."""
        return self.dataset / self.configuration.data_identifier


def find_run(dataset: str, configuration: str, fold: str, trainer: str, plans_name: str) -> Run:
    """Find data, plans and fold.

    Args:
        dataset: Number or name.
        configuration: e.g. ``2d``.
        fold: A number or ``all``.
        trainer: Name of the trainer, for the folder.
        plans_name: Name of the plans file, without its ending.

    Raises:
        UsageError: If something is missing or damaged; says what to type.
    """
    folder = find_dataset_folder(dataset)
    check_name(plans_name, "-p")
    plans_file = folder / f"{plans_name}.json"
    if not plans_file.is_file():
        found = ", ".join(sorted(file.stem for file in folder.glob("*Plans*.json"))) or "none"
        raise UsageError(
            f"expected plans '{plans_name}' in {folder}, found: {found}; name one with -p, or type: "
            f"nnunet_kd recon plan -d {dataset}"
        )
    plans = read_plans(plans_file)
    cases = folder / plans.configuration(configuration).data_identifier
    number = read_fold(fold)
    training, validation = all_cases(cases) if number == "all" else read_split(folder, int(number))
    model = f"{trainer}__{plans.plans_name}__{configuration}"
    return Run(
        dataset=folder,
        plans=plans,
        configuration_name=configuration,
        fold=number,
        trainer=trainer,
        model_folder=nnunet_folder("nnUNet_results") / folder.name / model,
        training_cases=training,
        validation_cases=validation,
        kd=plans.distillation(configuration),
    )


def read_fold(text: str) -> int | str:
    """Return the fold that was typed.

    Raises:
        UsageError: If it is neither a number nor ``all``.
    """
    if text != "all" and not text.isdecimal():
        raise UsageError(f"fold: expected a number or 'all', got '{text}'; type e.g. 0")
    return text if text == "all" else int(text)


def _read_splits(path: Path) -> list[dict[str, Any]]:
    again = preprocess_again(path)
    if not path.is_file():
        raise UsageError(f"expected {path}, found none; type: {again}")
    splits = read_json(path)
    if not isinstance(splits, list) or not all(isinstance(s, dict) and {"train", "val"} <= s.keys() for s in splits):
        raise UsageError(f"{path}: expected a list of objects with 'train' and 'val'; type: {again} --overwrite")
    return splits


def all_cases(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return every preprocessed case, to train and to validate on: fold ``all`` needs no splits."""
    from nnunet_kd.recon.data.preprocessed import PreprocessedCases

    cases = tuple(PreprocessedCases(folder).facts)
    return cases, cases


def read_split(dataset: Path, fold: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cases to train and to validate on, as ``splits_final.json`` says.

    Raises:
        UsageError: If the file is missing or has another form, or has no such fold.
    """
    path = dataset / "splits_final.json"
    splits = _read_splits(path)
    if not splits:
        raise UsageError(f"fold: expected 'all', since {path} has no folds, got {fold}")
    if fold >= len(splits):
        raise UsageError(f"fold: expected 0 to {len(splits) - 1} or 'all', got {fold}; see {path}")
    chosen = splits[fold]
    for key in ("train", "val"):
        if not isinstance(chosen[key], list) or not all(isinstance(case, str) for case in chosen[key]):
            raise UsageError(f"{path}: expected a list of cases under '{key}' of fold {fold}, got {chosen[key]!r:.80}")
        if not chosen[key]:
            raise UsageError(f"{path}: expected cases under '{key}' of fold {fold}, found none; choose another fold")
    both = sorted(set(chosen["train"]) & set(chosen["val"]))
    if both:
        raise UsageError(f"{path}: '{both[0]}' is under 'train' and 'val' of fold {fold}; leave it in one of them")
    return tuple(chosen["train"]), tuple(chosen["val"])

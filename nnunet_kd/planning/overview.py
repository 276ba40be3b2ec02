"""What ``nnunet_kd plan`` prints: teacher beside student, and the next commands."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import NetworkCost, read_model_cost
from nnunet_kd.planning.checks import suits_patch
from nnunet_kd.planning.kd_block import KDSettings, parse_settings, read_settings
from nnunet_kd.planning.model_folder import ModelFolder, read_json
from nnunet_kd.planning.recipes import RECIPES, trainer_of, with_budget

_ROWS: dict[str, Callable[[NetworkCost], str]] = {
    "parameters": lambda cost: f"{cost.parameters:,}",
    "GMAC per patch": lambda cost: f"{cost.macs / 1e9:.3g}",
    "peak activations per patch [MB]": lambda cost: f"{cost.peak_activation_bytes / 1e6:.3g}",
    "weights on disk [MB]": lambda cost: f"{cost.megabytes:.3g}",
}


def side_by_side(
    plans: Mapping[str, Any],
    base: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
    teachers: Sequence[ModelFolder],
) -> str:
    """Return a table of what the networks cost on the student's patch, float32, batch 1.

    Args:
        plans: The student's plans.
        base: The plans it was derived from; they stand for the teacher where there is none,
            if they suit the patch.
        configuration: nnU-Net configuration.
        dataset_json: Content of dataset.json.
        teachers: Model folders; each is a column.
    """
    patch = plans["configurations"][configuration]["patch_size"]
    columns = {f"teacher {teacher.path.name}": read_model_cost(teacher, patch) for teacher in teachers}
    stand_in = planned_model(base, configuration, dataset_json)
    if not teachers and suits_patch(stand_in, patch):  # a geometry's patch may suit the student's strides only
        columns[f"network of {base['plans_name']}"] = read_model_cost(stand_in, patch)
    student = read_model_cost(planned_model(plans, configuration, dataset_json), patch)
    columns["student"] = student
    batch = plans["configurations"][configuration]["batch_size"]
    lines = [f"patch {'x'.join(map(str, patch))}, batch {batch} (from {base['plans_name']} of column A)"]
    lines += [f"  {key}: {name}" for key, name in zip(_letters(columns), columns, strict=True)]
    lines.append(f"{'':<34}" + "".join(f"{key:>14}" for key in _letters(columns)) + f"{'A / student':>14}")
    first = next(iter(columns.values()))
    for row, show in _ROWS.items():
        lines.append(
            f"{row:<34}"
            + "".join(f"{show(cost):>14}" for cost in columns.values())
            + f"{_ratio(row, first, student):>14}"
        )
    return "\n".join(lines)


def planned_model(plans: Mapping[str, Any], configuration: str, dataset_json: Mapping[str, Any]) -> ModelFolder:
    """Describe a model that is planned but not trained yet."""
    return ModelFolder(
        path=Path(plans["plans_name"]),
        trainer="nnUNetTrainer",
        configuration=configuration,
        plans=dict(plans),
        dataset_json=dict(dataset_json),
    )


def _letters(columns: Mapping[str, NetworkCost]) -> list[str]:
    return [chr(ord("A") + i) for i in range(len(columns) - 1)] + ["student"]


def _ratio(row: str, teacher: NetworkCost, student: NetworkCost) -> str:
    fields = {
        "parameters": "parameters",
        "GMAC per patch": "macs",
        "peak activations per patch [MB]": "peak_activation_bytes",
        "weights on disk [MB]": "megabytes",
    }
    return f"{getattr(teacher, fields[row]) / getattr(student, fields[row]):.1f}x"


def lesson(settings: KDSettings) -> str:
    """Say in a line what a student learns from.

    Example:
        >>> lesson(KDSettings())
        'labels only (a control, or a teacher to be)'
    """
    if not settings.uses_teachers:
        return "labels only (a control, or a teacher to be)"
    terms = []
    for term in settings.losses:
        options = "".join(f", {key} {value}" for key, value in term.options.items())
        schedule = "" if term.schedule == "constant" else f", {term.schedule}"
        terms.append(f"{term.name} (weight {term.weight:g}{schedule}{options})")
    source = settings.teachers[0]
    n = len(settings.teachers)
    who = "RANDOM weights" if source.checkpoint is None else source.checkpoint
    folds = {"same": "the fold being trained", "all": "all folds"}.get(str(source.folds), f"folds {source.folds}")
    outputs = "" if settings.teacher_outputs == "online" else f", outputs {settings.teacher_outputs}"
    return f"labels, and {n} teacher{'s' * (n > 1)} ({who}, {folds}{outputs}) through {' + '.join(terms)}"


def budget(settings: KDSettings) -> str:
    """Say in a line how long a student trains, the values of its method's trainer where the plans keep them.

    Example:
        >>> budget(KDSettings())
        '1000 epochs of 250 steps, SGD at 0.01'
    """
    own = with_budget(RECIPES[trainer_of(settings.method)], settings.budget)
    return f"{own.num_epochs} epochs of {own.num_iterations_per_epoch} steps, {own.optimizer} at {own.initial_lr:g}"


def what_is_planned(plans: Mapping[str, Any], configuration: str, preprocessed: Path) -> str:
    """Return what the student learns from, for how long, and which plans beside it have another budget.

    Args:
        plans: The student's.
        configuration: nnU-Net configuration.
        preprocessed: The data set's folder in ``nnUNet_preprocessed``.
    """
    settings = parse_settings(plans["kd"]["configurations"][configuration], "plans")
    seed = "not fixed" if settings.seed is None else settings.seed
    lines = [f"learns from: {lesson(settings)}", f"budget: {budget(settings)}; seed {seed}"]
    unequal = []
    for path in sorted(preprocessed.glob("nnUNetKD*Plans.json")):
        if path.stem != plans["plans_name"]:
            try:
                other = read_settings(read_json(path), configuration)
            except UsageError:  # somebody else's, or without this configuration
                continue
            if other is not None and budget(other) != budget(settings):
                unequal.append(f"  {path.stem}: {budget(other)}")
    if unequal:
        lines += ["note: arms are compared at one budget, and these plans of the data set have another:", *unequal]
    return "\n".join(lines)


def next_commands(plans: Mapping[str, Any], configuration: str, preprocessed: Path) -> list[str]:
    """Return the commands to type after planning, in their order.

    Args:
        plans: The student's plans.
        configuration: The configuration just planned.
        preprocessed: The data set's folder in ``nnUNet_preprocessed``.
    """
    import torch

    dataset, name = plans["dataset_name"], plans["plans_name"]
    device = "" if torch.cuda.is_available() else " -device cpu"
    planned = plans["configurations"][configuration]
    trainer = trainer_of(plans["kd"]["configurations"][configuration]["method"])
    commands = []
    if not (preprocessed / "dataset_fingerprint.json").is_file():  # nnU-Net's training copies it to the results
        commands.append(f"nnUNetv2_extract_fingerprint -d {dataset[7:10].lstrip('0')}")
    if not (preprocessed / planned["data_identifier"]).is_dir():
        commands.append(f"nnUNetv2_preprocess -d {dataset} -plans_name {name} -c {configuration}")
    previous = planned.get("previous_stage")
    if previous and previous not in plans["kd"]["configurations"]:
        commands.append(f"nnunet_kd plan -d {dataset} -c {previous} -p {name} --teacher MODEL_FOLDER_OF_{previous}")
    if previous:
        first = f"nnUNetv2_train {dataset} {previous} FOLD -tr {trainer} -p {name}{device}"
        commands.append(f"{first}   # every fold, before the next line")
    if plans["kd"]["configurations"][configuration].get("teacher_outputs") == "cached":
        commands.append(f"nnunet_kd cache_teacher -d {dataset} -c {configuration} -p {name} -f FOLD")
    commands.append(f"nnUNetv2_train {dataset} {configuration} FOLD -tr {trainer} -p {name}{device}")
    commands.append(
        f"nnUNetv2_predict -d {dataset} -c {configuration} -f FOLD -tr {trainer} -p {name} -i INPUT -o OUTPUT{device}"
    )
    model = f"{dataset}/{trainer}__{name}__{configuration}"
    commands.append(f"nnunet_kd release -m $nnUNet_results/{model} -f FOLD -o student.zip")
    return commands

"""The verb ``nnunet_kd plan``."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning import budget_options
from nnunet_kd.planning.geometries import GEOMETRIES
from nnunet_kd.planning.json_blocks import check_choice
from nnunet_kd.planning.kd_block import (
    OPTIMIZERS,
    PRECISIONS,
    SAMPLE_WEIGHTS,
    TEACHER_OUTPUTS,
    TERM_KEYS,
    Budget,
    CacheSettings,
    KDSettings,
    LossTerm,
    TeacherSource,
    parse_settings,
    settings_to_json,
)
from nnunet_kd.planning.model_folder import (
    ModelFolder,
    find_dataset_folder,
    open_model_folder,
    portable,
    read_json_object,
)
from nnunet_kd.planning.named_options import parse_named_options
from nnunet_kd.planning.nnunet_files import check_dataset, check_plans
from nnunet_kd.planning.presets import PRESETS
from nnunet_kd.planning.students import OWN, STUDENTS

if TYPE_CHECKING:
    from nnunet_kd.planning.assignment import Assignment
    from nnunet_kd.planning.budget_search import Limits
    from nnunet_kd.planning.planner import StudentRequest

EXAMPLE = (
    "nnunet_kd plan -d 4 -c 3d_fullres --shrink 8 \\\n"
    "      --teacher Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-d", metavar="ID", required=True, help="data set, number or name; must be preprocessed")
    parser.add_argument("-c", metavar="CONFIGURATION", required=True, help="2d, 3d_fullres, 3d_lowres, ...")
    parser.add_argument(
        "-p",
        metavar="PLANS",
        help="name of the student's plans (default: nnUNetKDPlans, or with METHOD and seed in it)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="plan a configuration anew that these plans have already"
    )
    parser.add_argument("--list", action=_PrintCatalogue, help="print methods, losses and students, a line each")
    parser.add_argument(
        "--show-taps",
        action="store_true",
        help="print the modules whose features losses can compare, student beside teacher, and plan nothing",
    )
    _add_teacher_arguments(parser.add_argument_group("teacher"))
    _add_student_arguments(parser.add_argument_group("student"))
    budget_options.add_arguments(
        parser.add_argument_group("largest student within a budget (in place of --shrink; needs the extra openvino)")
    )
    _add_budget_arguments(
        parser.add_argument_group("budget of training (default: nnU-Net's own, 1000 epochs of 250 steps)")
    )


class _PrintCatalogue(argparse.Action):
    """Print and exit, as ``--help`` does, before the required options are missed."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(option_strings, dest, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from nnunet_kd.planning.catalogue import catalogue

        print(catalogue())
        parser.exit()


def _add_teacher_arguments(group: Any) -> None:  # noqa: ANN401  # argparse's group class is private
    group.add_argument(
        "--teacher",
        metavar="MODEL_FOLDER",
        action="append",
        default=[],
        help="folder with fold_X in it, absolute or relative to nnUNet_results; several make an ensemble",
    )
    group.add_argument(
        "--folds",
        nargs="+",
        default=["same"],
        metavar="FOLD",
        help="same: the teacher of the fold being trained, blind to its validation cases (default); "
        "all, or numbers: an ensemble",
    )
    group.add_argument(
        "-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint in each fold (default: %(default)s)"
    )
    group.add_argument(
        "--random-teacher",
        action="store_true",
        help="give the teachers random weights: the control that shows whether the teacher's knowledge matters",
    )
    group.add_argument(
        "--method",
        choices=list(PRESETS),
        help="preset of losses (default: kd); none makes a control, or a teacher to be",
    )
    group.add_argument(
        "--losses",
        nargs="+",
        metavar="NAME[:KEY=VALUE,...]",
        help="losses instead of a preset, e.g. logits_kl:weight=1,temperature=4,schedule=warmup",
    )
    group.add_argument(
        "--teacher-outputs",
        choices=list(TEACHER_OUTPUTS),
        default="online",
        help="online: the teachers run on every batch (default); cached: 'nnunet_kd cache_teacher' runs them once over "
        "every case, also teachers of another configuration or preprocessing",
    )
    group.add_argument(
        "--no-mirroring", action="store_true", help="cache the teachers' outputs without averaging mirrored ones"
    )
    group.add_argument(
        "--from-plans",
        metavar="PLANS",
        help="where the student starts from (default: the first teacher's plans; nnUNetPlans for a control)",
    )


def _add_student_arguments(group: Any) -> None:  # noqa: ANN401
    group.add_argument(
        "--student",
        default="same",
        metavar="NAME[:KEY=VALUE,...]",
        help=f"network: {', '.join(STUDENTS)} (default: same, the teacher's own class); e.g. dsm_unet:alpha=0.5",
    )
    group.add_argument("--alpha", type=float, metavar="A", help="share of shifted channels, short for dsm_unet:alpha=A")
    group.add_argument(
        "--shrink",
        type=int,
        default=None,
        metavar="N",
        help="divide the features of every stage by N, at least 4 remain (default: 2; 1 with --method none and for "
        "networks that nnU-Net does not have)",
    )
    group.add_argument("--depth", type=int, metavar="N", help="keep the first N resolution stages")
    group.add_argument(
        "--geometry",
        choices=list(GEOMETRIES),
        help="patch and batch size of a published experiment (default: the plans')",
    )


def _add_budget_arguments(group: Any) -> None:  # noqa: ANN401
    group.add_argument("--epochs", type=int, metavar="N", help="epochs")
    group.add_argument("--iterations", type=int, metavar="N", help="training steps per epoch")
    group.add_argument("--val-iterations", type=int, metavar="N", help="validation steps per epoch")
    group.add_argument("--optimizer", choices=list(OPTIMIZERS), help="SGD is nnU-Net's; AdamW suits short schedules")
    group.add_argument(
        "--lr", type=float, metavar="RATE", help="first learning rate (nnU-Net: 1e-2 with SGD; 1e-3 with AdamW)"
    )
    group.add_argument(
        "--sample-weights",
        choices=list(SAMPLE_WEIGHTS),
        default="equal",
        help="confidence: pseudo-labelled cases count by their confidence (trainers with a loss of their own)",
    )
    group.add_argument("--seed", type=int, metavar="N", help="of initialisation and sampling")
    group.add_argument(
        "--precision", choices=list(PRECISIONS), help="of training steps on a CPU (default: bfloat16 where native)"
    )


def run(options: argparse.Namespace) -> None:
    """Check everything, write the student's plans, and show teacher beside student.

    Raises:
        UsageError: For whatever cannot be planned; nothing is written then but what a budget had measured.
    """
    from nnunet_kd.planning import planner
    from nnunet_kd.planning.assignment import Assignment
    from nnunet_kd.planning.taps import tap_tables

    limits = budget_options.read_limits(options)
    preprocessed = find_dataset_folder(options.d)
    dataset_json = read_json_object(preprocessed / "dataset.json")
    check_dataset(dataset_json, str(preprocessed / "dataset.json"))
    teachers = [open_model_folder(folder) for folder in options.teacher]
    for teacher in teachers:
        _check_teacher_options(teacher, options)
    method = _method(options)
    settings = _settings(options, method, teachers)
    name_part = "random" if options.random_teacher else options.method
    plans_name = options.p or planner.default_plans_name(name_part, options.seed)
    planner.check_plans_name(plans_name)
    student_name, student_options = _student(options)
    request = planner.StudentRequest(
        configuration=options.c,
        student=student_name,
        student_options=student_options,
        factor=_shrink_factor(options, method, student_name),
        depth=options.depth,
        geometry=options.geometry,
        plans_name=plans_name,
    )
    from_file = options.from_plans or not teachers
    assignment = Assignment(
        base=_base_plans(preprocessed, options.from_plans, options.c) if from_file else teachers[0].plans,
        settings=settings,
        teachers=teachers,
        preprocessed=preprocessed,
        dataset_json=dataset_json,
        existing=planner.check_existing(preprocessed / f"{plans_name}.json", request, overwrite=options.overwrite),
    )
    if limits is not None:
        _plan_within(limits, assignment, request, options)
        return
    plans = assignment.plans(request)
    if options.show_taps:
        patch = plans["configurations"][options.c]["patch_size"]
        print(tap_tables(assignment.model(plans, options.c), teachers, patch))
        return
    assignment.check_pairs(plans, options.c)
    _write(plans, assignment, options.c)


def _plan_within(
    limits: "Limits", assignment: "Assignment", request: "StudentRequest", options: argparse.Namespace
) -> None:
    from nnunet_kd.planning.budget_command import choose_student, write_search
    from nnunet_kd.planning.budget_report import table_text

    chosen = choose_student(request, limits, options, assignment)
    print(f"\n{table_text(chosen.search)}\n")
    _write(
        assignment.plans(chosen.request), assignment, options.c, lambda: write_search(chosen, assignment.preprocessed)
    )


def _write(
    plans: dict[str, Any],
    assignment: "Assignment",
    configuration: str,
    write_more: Callable[[], Sequence[Path]] = tuple,
) -> None:
    from nnunet_kd.planning.checks import suits_patch
    from nnunet_kd.planning.overview import next_commands, side_by_side, what_is_planned
    from nnunet_kd.planning.planner import write_plans

    preprocessed, patch = assignment.preprocessed, plans["configurations"][configuration]["patch_size"]
    teachers = [teacher for teacher in assignment.teachers if suits_patch(teacher, patch)]
    print(side_by_side(plans, assignment.base, configuration, assignment.dataset_json, teachers))
    print(what_is_planned(plans, configuration, preprocessed))
    written = [write_plans(plans, preprocessed), *write_more()]
    commands = "\n".join(f"  {line}" for line in next_commands(plans, configuration, preprocessed))
    print("\n" + "\n".join(f"wrote {path}" for path in written) + f"\n\nnext:\n{commands}")


def _check_teacher_options(teacher: ModelFolder, options: argparse.Namespace) -> None:
    if teacher.configuration != options.c and options.teacher_outputs != "cached":
        raise UsageError(
            f"--teacher: {teacher.path.name} is a {teacher.configuration} model, the student's configuration is "
            f"{options.c}; give a {options.c} teacher, type -c {teacher.configuration} or --teacher-outputs cached"
        )
    if not options.random_teacher and options.folds != ["same"]:
        for fold in teacher.folds if options.folds == ["all"] else options.folds:
            teacher.checkpoint(fold, options.chk)
    elif not options.random_teacher:
        if not teacher.folds:
            raise UsageError(
                f"expected trained folds in {teacher.path}, found none; train the teacher with nnUNetv2_train"
            )
        trained = [fold for fold in teacher.folds if (teacher.path / f"fold_{fold}" / options.chk).is_file()]
        for fold in trained or teacher.folds[:1]:  # the others may be trained until their students are
            teacher.checkpoint(fold, options.chk)


def _method(options: argparse.Namespace) -> str:
    method: str = options.method or "kd"
    if options.losses and options.method:
        raise UsageError("--method and --losses exclude each other; a preset has its own losses")
    learns = options.losses or PRESETS[method].losses
    if learns and not options.teacher:
        raise UsageError("expected --teacher MODEL_FOLDER, or --method none for a control or a teacher to be")
    if options.no_mirroring and options.teacher_outputs != "cached":
        raise UsageError("--no-mirroring is about cached outputs; type --teacher-outputs cached too, or leave it out")
    if not learns and options.random_teacher:
        raise UsageError(f"--method {method} learns from no teacher, so leave out --random-teacher")
    return method


def _student(options: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    name, values = parse_named_options(options.student, "--student", "dsm_unet:alpha=0.5")
    check_choice(name, STUDENTS, "--student")
    if options.alpha is not None:
        values["alpha"] = options.alpha
    return name, values


def _shrink_factor(options: argparse.Namespace, method: str, student: str) -> int:
    if options.shrink is None:
        return 1 if not PRESETS[method].losses or student in OWN else 2
    if options.shrink < 1:
        raise UsageError(f"--shrink: expected a whole number >= 1, got {options.shrink}")
    return int(options.shrink)


def _settings(options: argparse.Namespace, method: str, teachers: Sequence[ModelFolder]) -> KDSettings:
    from nnunet_kd.distillation.objective import refuse_image_losses
    from nnunet_kd.planning.planner import with_hashes

    losses = tuple(map(parse_loss, options.losses)) if options.losses else PRESETS[method].losses
    sources = [with_hashes(_source(teacher, options), teacher) for teacher in teachers] if losses else []
    settings = KDSettings(
        method="custom" if options.losses else method,
        seed=options.seed,
        teachers=tuple(sources),
        losses=losses,
        sample_weights=options.sample_weights,
        teacher_outputs=options.teacher_outputs,
        cache=CacheSettings(mirroring=not options.no_mirroring),
        budget=Budget(
            num_epochs=options.epochs,
            num_iterations_per_epoch=options.iterations,
            num_val_iterations_per_epoch=options.val_iterations,
            optimizer=options.optimizer,
            initial_lr=options.lr,
        ),
        precision=options.precision,
    )
    checked = parse_settings(settings_to_json(settings), "plan")  # the same checks as when training reads it
    refuse_image_losses(checked, "--losses")
    return checked


def _source(teacher: ModelFolder, options: argparse.Namespace) -> TeacherSource:
    folds = options.folds[0] if options.folds in (["same"], ["all"]) else tuple(map(_fold, options.folds))
    source = TeacherSource(model_folder=portable(teacher.path), folds=folds, checkpoint=options.chk)
    return replace(source, checkpoint=None) if options.random_teacher else source


def _fold(text: str) -> int | str:
    if text != "all" and not text.isdecimal():
        raise UsageError(f"--folds: expected 'same', 'all' or fold numbers, got '{text}'")
    return text if text == "all" else int(text)


def parse_loss(text: str) -> LossTerm:
    """Read ``NAME[:KEY=VALUE,...]``; values are JSON, or words.

    Raises:
        UsageError: If it does not have that form.

    Example:
        >>> parse_loss("logits_kl:weight=0.5,temperature=4").options
        {'temperature': 4}
        >>> parse_loss('fitnet:pairs=[["encoder.stages.1","encoder.stages.1"]]').options
        {'pairs': [['encoder.stages.1', 'encoder.stages.1']]}
    """
    name, values = parse_named_options(text, "--losses", "logits_kl:weight=1,temperature=2")
    common = {key: values.pop(key) for key in TERM_KEYS if key in values}
    return LossTerm(name=name, options=values, **common)


def _base_plans(preprocessed: Path, plans_name: str | None, configuration: str) -> dict[str, Any]:
    plans_name = plans_name or "nnUNetPlans"
    path = preprocessed / f"{plans_name}.json"
    if not path.is_file():
        found = sorted(file.stem for file in preprocessed.glob("*Plans.json"))
        check_choice(plans_name, found, "--from-plans")
    plans = read_json_object(path)
    check_plans(plans, configuration, str(path))
    return plans

"""``nnunet_kd recon plan``: plans of a data set, or of a student of networks trained on it."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_kd.planning.command import parse_loss
from nnunet_kd.planning.model_folder import nnunet_folder, write_json_atomically
from nnunet_kd.recon.planning import plan_options
from nnunet_kd.recon.planning.plans import ReconPlans

EXAMPLE = (
    "nnunet_kd recon plan -d 1\n"
    "  nnunet_kd recon plan -d 1 --teacher Dataset001_Knee/DCCNNTrainer__nnUNetReconPlans__2d --method kd_mri"
)

add_arguments = plan_options.add_arguments


def run(options: argparse.Namespace) -> None:
    """Check everything, write the plans, and say what was planned.

    Raises:
        UsageError: For whatever cannot be planned; nothing is written then.
    """
    from nnunet_kd.recon.data.dataset import open_dataset
    from nnunet_kd.recon.planning.fingerprint import read_fingerprint
    from nnunet_kd.recon.planning.overview import check_masks
    from nnunet_kd.recon.planning.planner import write_plans

    plan_options.check_options(options)
    dataset = open_dataset(options.d)
    folder = nnunet_folder("nnUNet_preprocessed") / dataset.name
    fingerprint = read_fingerprint(folder, dataset)
    if options.teacher:
        plans = _student(options, folder, dataset.name, fingerprint)
    else:
        plans = _teacher(options, folder, dataset, fingerprint)
    check_masks(plans, fingerprint)
    print("\n".join(described(plans, fingerprint)))
    write_json_atomically(dict(dataset.settings), folder / "dataset.json")  # as nnU-Net, for the model folders
    path = write_plans(plans, folder)
    print(f"\nwrote {path}\n\nnext:\n" + "\n".join(f"  {line}" for line in next_commands(plans, folder, options)))


def _teacher(
    options: argparse.Namespace,
    folder: Path,
    dataset: Any,  # noqa: ANN401  # a RawDataset, whose module needs no import for --help
    fingerprint: Mapping[str, Any],
) -> ReconPlans:
    from nnunet_kd.recon.planning import planner
    from nnunet_kd.recon.planning.baseline import after_baseline
    from nnunet_kd.recon.planning.distillation import student_friendly, student_plans_name
    from nnunet_kd.recon.planning.networks import SizeRequest

    friendly = options.method == "sft"
    if friendly:
        default = student_plans_name("sft", options.seed, published=options.published)
    else:
        default = planner.default_plans_name(published=options.published, seed=options.seed)
    name = options.p or default
    planner.check_plans_name(name)
    planner.check_free(folder / f"{name}.json", overwrite=options.overwrite)
    size = plan_options.size_request(options)
    request = planner.PlanRequest(
        plans_name=name,
        size=SizeRequest(network=size.network) if friendly else size,
        published=options.published,
        sampling=plan_options.sampling_settings(options),
        training=plan_options.training_settings(options),
        loss=plan_options.supervised_loss(options),
        normalisation=plan_options.normalisation_settings(options),
        batch_size=options.batch_size,
        gpu_memory=options.gpu_memory,
        baseline=options.baseline,
    )
    plans = planner.plan(dataset, fingerprint, after_baseline(request))
    return student_friendly(plans, size) if friendly else plans


def _student(
    options: argparse.Namespace, folder: Path, dataset_name: str, fingerprint: Mapping[str, Any]
) -> ReconPlans:
    from nnunet_kd.recon.planning import distillation, planner
    from nnunet_kd.recon.training.models import open_recon_model

    teachers = [open_recon_model(text) for text in options.teacher]
    name_part = "random" if options.random_teacher else options.method
    default = distillation.student_plans_name(name_part, options.seed, published=options.published)
    name = options.p or default
    planner.check_plans_name(name)
    request = distillation.StudentRequest(
        plans_name=name,
        method=options.method or "kd_mri",
        losses=tuple(map(parse_loss, options.losses)) if options.losses else None,
        size=plan_options.size_request(options),
        folds=options.folds[0] if options.folds in (["same"], ["all"]) else tuple(map(_fold, options.folds)),
        checkpoint=None if options.random_teacher else options.chk,
        training=plan_options.training_settings(options),
        loss=plan_options.supervised_loss(options),
        published=options.published,
        batch_size=options.batch_size,
    )
    plans = distillation.student_plans(teachers, request, dataset_name, fingerprint)
    return distillation.merged(plans, folder / f"{name}.json", overwrite=options.overwrite)


def _fold(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def described(plans: ReconPlans, fingerprint: Mapping[str, Any]) -> list[str]:
    """Return plans in a few lines, the true acceleration of their masks among them."""
    from nnunet_kd.recon.planning.networks import n_parameters
    from nnunet_kd.recon.planning.overview import acceleration_line

    lines = [f"task          {plans.task}, {plans.acquisition}, k-space {plans.kspace}"]
    if plans.truncation is not None:
        lines.append("truncation    " + " x ".join(f"{factor:g}" for factor in plans.truncation["factor"]))
    else:
        lines.append(acceleration_line(plans, fingerprint))
    scheme = plans.normalisation
    image = "fully sampled image, as published" if scheme.uses_reference else "zero-filled image"
    name = "maximum" if scheme.scheme != "percentile" else f"percentile {scheme.percentile:g}"
    lines.append(f"scale         {name} of the {image}, per {scheme.scope}")
    for name, one in plans.configurations.items():
        network = one.architecture.network_class_name.rpartition(".")[2]
        lines.append(
            f"{name:<14}{network}, {n_parameters(one.architecture):,} parameters, batch {one.batch_size}, "
            f"{one.training.num_epochs} epochs, {one.training.optimizer} {one.training.initial_lr:g}, "
            f"loss {one.loss['name']}, target {'whole' if one.crop is None else f'{one.crop[0]}x{one.crop[1]}'}"
        )
        settings = plans.distillation(name) if plans.kd else None
        if settings is not None:
            terms = ", ".join(f"{term.weight:g} {term.name}" for term in settings.losses) or "no distillation"
            lines.append(f"{'':<14}{terms}; {one.training.schedule}; {len(settings.teachers)} teachers")
        if one.generative is not None:
            base = "its own" if one.generative.baseline is None else one.generative.baseline
            kept = ", kept as it is" if one.generative.freeze_baseline else ""
            lines.append(f"{'':<14}against a discriminator; baseline {base}{kept}")
        if one.student_branches is not None:
            branches = n_parameters(one.student_branches)
            lines.append(f"{'':<14}student-friendly: branches of a student of {branches:,} parameters")
    return lines


def next_commands(plans: ReconPlans, folder: Path, options: argparse.Namespace) -> list[str]:
    """Return what to type next."""
    from nnunet_kd.recon.planning.overview import trainer_name

    commands = []
    configuration = next(iter(plans.configurations))
    if not (folder / plans.configurations[configuration].data_identifier).is_dir():
        commands.append(f"nnunet_kd recon preprocess -d {options.d} -p {plans.plans_name}")
    trainer = trainer_name(plans, configuration)
    return [*commands, f"nnunet_kd recon train {options.d} {configuration} 0 -tr {trainer} -p {plans.plans_name}"]

"""The verb ``nnunet_kd cache_teacher``: the teachers' outputs for every case, once, for all trainings that follow."""

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.distillation.cached_data import SoftLabels
    from nnunet_kd.distillation.soft_labels import ImageFacts
    from nnunet_kd.distillation.teacher_volumes import CacheJob
    from nnunet_kd.planning.kd_block import TeacherSource
    from nnunet_kd.planning.model_folder import ModelFolder

EXAMPLE = "nnunet_kd cache_teacher -d 4 -c 3d_fullres -p nnUNetKDPlans -f 0 -device cuda"

COMPRESSION = 2.5  # measured on hippocampus crops, which are mostly border; larger images have more certain voxels


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("-d", metavar="ID", required=True, help="data set, number or name")
    parser.add_argument("-c", metavar="CONFIGURATION", required=True, help="the student's: 2d, 3d_fullres, ...")
    parser.add_argument(
        "-p", metavar="PLANS", default="nnUNetKDPlans", help="the student's plans (default: %(default)s)"
    )
    parser.add_argument(
        "-f",
        dest="folds",
        nargs="+",
        metavar="FOLD",
        help="folds of the student (default: all that the teachers have). Where every fold learns from the same "
        "ensemble there is one cache for all",
    )
    parser.add_argument(
        "-tr",
        metavar="TRAINER",
        default="KDTrainer",
        help="the student's trainer; matters for cascades (default: %(default)s)",
    )
    parser.add_argument("-device", metavar="DEVICE", help="cuda, cpu or mps (default: cuda if there is one)")
    parser.add_argument(
        "-np", type=int, metavar="N", help="processes (default: one per core on a CPU, this one alone on a GPU)"
    )
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a running dask cluster that sees the same files, tcp://HOST:PORT"
    )
    parser.add_argument("--overwrite", action="store_true", help="make cases anew that are there and whole")


def run(options: argparse.Namespace) -> None:
    """Check everything, then fill one cache per fold, or one for all; finished cases are kept.

    Raises:
        UsageError: For whatever cannot be cached, before anything is written; for failed cases at the end.
    """
    from nnunet_kd.planning.model_folder import find_dataset_folder

    caches = prepare(
        find_dataset_folder(options.d),
        options.c,
        options.p,
        folds=options.folds,
        trainer=options.tr,
        device=options.device,
    )
    check_space(caches, overwrite=options.overwrite)
    for cache in caches:
        fill(
            cache,
            n_workers=0 if options.np is None and not cache.job.device.startswith("cpu") else options.np,
            scheduler=options.scheduler,
            overwrite=options.overwrite,
        )
        print(summary(cache))


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One cache to fill: the same members and cases for all its temperatures.

    Attributes:
        job: What workers are told.
        soft_labels: Where it lies.
        images: The cases and what their images look like.
        teachers: Names of the members.
        shared: Whether it serves all folds.
    """

    job: "CacheJob"
    soft_labels: "SoftLabels"
    images: Mapping[str, "ImageFacts"]
    teachers: Sequence[str]
    shared: bool


def prepare(
    dataset_folder: Path,
    configuration: str,
    plans_name: str,
    *,
    folds: Sequence[str] | None = None,
    trainer: str = "KDTrainer",
    device: str | None = None,
) -> list[Cache]:
    """Check plans, teachers and data, and record the teachers' checkpoints in the plans where they are not yet.

    Args:
        dataset_folder: ``nnUNet_preprocessed/DATASET``.
        configuration: The student's.
        plans_name: The student's.
        folds: Of the student; ``None`` for all that the teachers have.
        trainer: The student's.
        device: Where the teachers run; ``None`` chooses.

    Raises:
        UsageError: For the first thing that is wrong.
    """
    import torch

    from nnunet_kd.distillation.soft_labels import is_shared
    from nnunet_kd.distillation.teacher_volumes import CacheJob
    from nnunet_kd.planning.checks import check_teacher
    from nnunet_kd.planning.model_folder import open_model_folder

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    job = CacheJob(
        dataset_folder=dataset_folder,
        plans_name=plans_name,
        configuration=configuration,
        fold=0,
        teachers=(),
        device=device,
        previous_stage=previous_stage_folder(dataset_folder, plans_name, configuration, trainer),
        made=time.time(),
    )
    settings = job.settings
    _check_wanted(job)
    folders = [open_model_folder(source.model_folder) for source in settings.teachers]
    for folder in folders:
        check_teacher(folder, job.plans, configuration, job.dataset_json, cached=True)
    raw = _raw_folder(job, folders)
    record_hashes(job, folders)
    shared = is_shared(settings)
    paths = tuple(folder.path for folder in folders)
    wanted: list[int | str] = [0] if shared else _folds(folds, settings.teachers, folders)
    return [_cache(replace(job, fold=fold, teachers=paths, raw=raw), shared=shared) for fold in wanted]


def _raw_folder(job: "CacheJob", teachers: Sequence["ModelFolder"]) -> Path | None:
    """Return the raw data set if a teacher preprocesses images in its own way, after looking for every case."""
    from nnunet_kd.distillation.raw_images import raw_files
    from nnunet_kd.planning.checks import preprocessing_differences
    from nnunet_kd.planning.model_folder import nnunet_folder

    differing = {t.path.name: preprocessing_differences(t, job.plans, job.configuration) for t in teachers}
    for name, found in differing.items():
        if found:
            print(f"teacher {name} predicts the raw images preprocessed its own way ({', '.join(found)} differ)")
    if not any(differing.values()):
        return None
    raw = nnunet_folder("nnUNet_raw") / job.dataset_folder.name
    files = raw_files(raw)
    missing = [case for case in all_cases(job) if case not in files]
    if missing:
        raise UsageError(f"expected raw images of every preprocessed case in {raw}, found none of {missing[0]}")
    return raw


def _check_wanted(job: "CacheJob") -> None:
    settings, dataset = job.settings, job.plans["dataset_name"]
    if not settings.uses_teachers:
        raise UsageError(
            f"{job.plans_name}, {job.configuration} has no distillation loss, so there is nothing to cache"
        )
    if settings.teacher_outputs != "cached":
        raise UsageError(
            f"{job.plans_name}, {job.configuration} runs its teachers online; plan it with: nnunet_kd plan ... "
            f"-d {dataset} -c {job.configuration} -p {job.plans_name} --teacher-outputs cached --overwrite"
        )
    if not job.images.is_dir():
        raise UsageError(
            f"expected preprocessed data in {job.images}, found none; type: nnUNetv2_preprocess -d {dataset} "
            f"-plans_name {job.plans_name} -c {job.configuration}"
        )


def previous_stage_folder(dataset_folder: Path, plans_name: str, configuration: str, trainer: str) -> str | None:
    """Return where nnU-Net keeps the previous stage's segmentations of a cascade; ``None`` for what is no cascade.

    Raises:
        UsageError: If there are none.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from nnunet_kd.planning.model_folder import nnunet_folder, read_json

    plans = read_json(dataset_folder / f"{plans_name}.json")
    if configuration not in plans["configurations"]:
        raise UsageError(
            f"-c: {plans_name} has no configuration '{configuration}', only {', '.join(plans['configurations'])}"
        )
    stage = PlansManager(plans).get_configuration(configuration).previous_stage_name
    if stage is None:
        return None
    model = nnunet_folder("nnUNet_results") / dataset_folder.name / f"{trainer}__{plans_name}__{stage}"
    folder = model / "predicted_next_stage" / configuration
    if not folder.is_dir() or not any(folder.iterdir()):
        raise UsageError(
            f"expected the previous stage's predictions in {folder}, found none; train it first, every fold: "
            f"nnUNetv2_train {dataset_folder.name} {stage} FOLD -tr {trainer} -p {plans_name}"
        )
    return str(folder)


def record_hashes(job: "CacheJob", folders: Sequence["ModelFolder"]) -> None:
    """Write the SHA-256 of checkpoints that were not there when the student was planned into its plans.

    From then on the plans say which soft labels belong to them, wherever the teachers are.
    """
    from nnunet_kd.planning.model_folder import write_json_atomically
    from nnunet_kd.planning.planner import with_hashes

    recorded = job.plans["kd"]["configurations"][job.configuration]["teachers"]
    changed = False
    for source, folder, entry in zip(job.settings.teachers, folders, recorded, strict=True):
        if source.folds == "all" and source.sha256:
            continue  # a fold that was trained since does not join the ensemble unasked
        hashes = {**with_hashes(source, folder).sha256, **source.sha256}
        changed = changed or hashes != dict(source.sha256)
        entry["sha256"] = hashes
    if changed:
        path = job.dataset_folder / f"{job.plans_name}.json"
        write_json_atomically(job.plans, path)
        print(f"recorded the teachers' checkpoints in {path}")
        job.__dict__.pop("settings")


def _folds(
    asked: Sequence[str] | None, sources: Sequence["TeacherSource"], folders: Sequence["ModelFolder"]
) -> list[int | str]:
    if asked is not None:
        for text in asked:
            if text != "all" and not text.isdecimal():
                raise UsageError(f"-f: expected numbers or 'all', got '{text}'")
        return [text if text == "all" else int(text) for text in asked]
    own = [set(folder.folds) for source, folder in zip(sources, folders, strict=True) if source.folds == "same"]
    folds = sorted(set.intersection(*own), key=str)
    if not folds:
        raise UsageError(
            f"expected trained folds in {folders[0].path}, found none; train the teacher with nnUNetv2_train"
        )
    return folds


def _cache(job: "CacheJob", *, shared: bool) -> Cache:
    import torch

    from nnunet_kd.distillation.cached_data import image_facts
    from nnunet_kd.distillation.teacher_volumes import load_teachers

    # loaded once here, so that what is wrong with a teacher is one line and not one per case
    names = [member.name for member in load_teachers(replace(job, device="cpu"), torch.device("cpu"))]
    cases = all_cases(job) if shared else training_cases(job)
    dataset = job.dataset(cases)
    return Cache(
        job=job,
        soft_labels=job.soft_labels(),
        images={case: image_facts(dataset, case) for case in cases},
        teachers=names,
        shared=shared,
    )


def all_cases(job: "CacheJob") -> list[str]:
    """Return every preprocessed case."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

    cases: list[str] = sorted(infer_dataset_class(str(job.images)).get_identifiers(str(job.images)))
    return cases


def training_cases(job: "CacheJob") -> list[str]:
    """Return the training cases of a fold, by nnU-Net's own split; it writes ``splits_final.json`` if there is none."""
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    # all that nnU-Net's method asks of a trainer
    stand_in = SimpleNamespace(
        dataset_class=infer_dataset_class(str(job.images)),
        preprocessed_dataset_folder=str(job.images),
        preprocessed_dataset_folder_base=str(job.dataset_folder),
        folder_with_segs_from_previous_stage=job.previous_stage,
        fold=job.fold,
        print_to_log_file=lambda *_, **__: None,
    )
    return sorted(nnUNetTrainer.do_split(stand_in)[0])


# ---- filling ----


def unfinished(cache: Cache, *, overwrite: bool = False) -> list[str]:
    """Return the cases that are missing, damaged or of another image at any temperature."""
    from nnunet_kd.distillation.soft_labels import faults

    if overwrite:
        return list(cache.images)
    found = {case for folder in cache.soft_labels.folders.values() for case in faults(folder, cache.images)}
    return [case for case in cache.images if case in found]


def check_space(caches: Sequence[Cache], *, overwrite: bool = False) -> None:
    """Refuse what the disk has no room for, by the compression that was measured.

    Raises:
        UsageError: With both sizes.
    """
    from math import prod

    needed = 0.0
    for cache in caches:
        voxels = sum(prod(cache.images[case].shape) for case in unfinished(cache, overwrite=overwrite))
        needed += voxels * cache.soft_labels.n_riding / COMPRESSION
    folder = caches[0].job.dataset_folder
    free = shutil.disk_usage(folder).free
    print(f"about {_size(needed)} to write, {_size(free)} free")
    if needed > free:
        raise UsageError(f"expected about {_size(needed)} of free space in {folder}, found {_size(free)}; make room")


def _size(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.3g} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.3g} MB"


def fill(
    cache: Cache,
    *,
    n_workers: int | None = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    work: "Callable[[CacheJob, str], None] | None" = None,
) -> None:
    """Run the teachers over the cases that are not finished.

    Args:
        cache: What to fill.
        n_workers: Local processes, ``0`` for this one, ``None`` for one per core.
        scheduler: Address of a running cluster.
        overwrite: Make every case anew.
        work: What is done per case.

    Raises:
        FaultyCasesError: When all cases were tried and some failed; the others are kept.
    """
    from nnunet_kd.cases import map_cases
    from nnunet_kd.distillation.soft_labels import begin, finish
    from nnunet_kd.distillation.teacher_volumes import cache_case

    todo = unfinished(cache, overwrite=overwrite)
    for temperature, folder in cache.soft_labels.folders.items():
        begin(folder, cache.soft_labels.recipes[temperature], cache.teachers)
    which = "all folds" if cache.shared else f"fold {cache.job.fold}"
    print(f"{which}: {len(cache.images)} cases, {len(cache.images) - len(todo)} finished before")
    try:
        map_cases(
            partial(work or cache_case, cache.job), todo, description=which, scheduler=scheduler, n_workers=n_workers
        )
    finally:
        for folder in cache.soft_labels.folders.values():
            finish(folder)


def summary(cache: Cache) -> str:
    """Say where the cache lies, how large it is, which others there are, and what to type next."""
    from nnunet_kd.distillation.soft_labels import other_caches, read_records

    lines, others = [], []
    for temperature, folder in cache.soft_labels.folders.items():
        stored = sum(record["bytes"] for record in read_records(folder).values())
        lines.append(f"wrote {folder} ({_size(stored)}, T = {temperature:g}, {len(cache.teachers)} members)")
        others += other_caches(folder, cache.soft_labels.recipes[temperature])
    ours = {str(folder) for folder in cache.soft_labels.folders.values()}
    lines += [f"left alone: {line}" for line in others if line.split(":")[0] not in ours]
    fold = "FOLD" if cache.shared else cache.job.fold
    job = cache.job
    dataset = job.plans["dataset_name"]
    lines.append(f"train: nnUNetv2_train {dataset} {job.configuration} {fold} -tr KDTrainer -p {job.plans_name}")
    return "\n".join(lines)

"""Everything that is checked before a teacher runs; nothing is written here."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from nnunet_kd.cases import Fault, map_cases
from nnunet_kd.distillation.soft_labels import MANIFEST
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder
from nnunet_kd.pseudo_labels.channels import by_name, channel_names, parse_order
from nnunet_kd.pseudo_labels.dataset import Labelled, Target, find_target, open_labelled
from nnunet_kd.pseudo_labels.images import Checked, Requirements, check_scan, find_duplicates
from nnunet_kd.pseudo_labels.labelling import load_ensemble
from nnunet_kd.pseudo_labels.pool import Scan, pool_channels, read_pool
from nnunet_kd.pseudo_labels.splits import mixed_splits
from nnunet_kd.pseudo_labels.teachers import Teacher, check_same_task, open_teachers

_CHECK_SECONDS = 2.0  # reading and hashing one case; decides only whether a cluster pays


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for, as it was typed.

    Attributes:
        images: Folder of the pool.
        output: Name of the data set to write.
        teachers: Model folders.
        weights: One per teacher, ``None`` for equal ones.
        folds: Of every teacher, ``None`` for all.
        checkpoint: File in each fold.
        labelled: Number or name of the data set with labels, if there is one.
        channel_order: The pool's channels in the teachers' order, ``None`` to go by their names.
        prefix: Put before the names of the pool's cases.
        overwrite: Whether an earlier pseudo-labelled data set may be replaced.
        n_workers: Local processes, ``0`` for this one, ``None`` for one per core.
        scheduler: Address of a running dask cluster.
    """

    images: Path
    output: str
    teachers: Sequence[str]
    weights: Sequence[float] | None = None
    folds: Sequence[str] | None = None
    checkpoint: str = "checkpoint_final.pth"
    labelled: str | None = None
    channel_order: str | None = None
    prefix: str = ""
    overwrite: bool = False
    n_workers: int | None = None
    scheduler: str | None = None


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done.

    Attributes:
        models: The model folders of the teachers.
        teachers: What is used of each.
        members: Names of the networks.
        target: The data set to write.
        labelled: The data set with labels, if there is one.
        pool: The cases of the pool, duplicates included.
        files: Hash of the files of each of them.
        duplicates: Those that are left out, and why.
    """

    models: Sequence[ModelFolder]
    teachers: Sequence[Teacher]
    members: Sequence[str]
    target: Target
    labelled: Labelled | None
    pool: Sequence[Scan]
    files: Mapping[str, str]
    duplicates: Mapping[str, str]

    @property
    def wanted(self) -> list[Scan]:
        """The cases to label."""
        return [scan for scan in self.pool if scan.name not in self.duplicates]

    @property
    def ending(self) -> str:
        """Ending of every image and label file."""
        ending: str = self.models[0].dataset_json["file_ending"]
        return ending


def prepare(request: Request) -> Work:
    """Check teachers, target, labelled data, and every image.

    Raises:
        UsageError: For the first thing that is wrong; the faults of images are printed before, all of them.
    """
    models, teachers = open_teachers(request.teachers, request.weights, request.folds, request.checkpoint)
    labelled = _labelled(request, models[0])
    sources = [request.images, *([labelled.folder] if labelled else [])]
    target = find_target(request.output, sources=sources, overwrite=request.overwrite)
    pool, faults = _pool(request, models[0])
    # loaded once here, so that what is wrong with a teacher is one line and not one per case
    members = [each.member.name for each in load_ensemble(teachers, "cpu", mirroring=False)]
    known = labelled.scans if labelled else []
    checked = _check_images([*known, *pool], faults, models, request)
    hashes = [found.voxels for found in checked]
    names = [scan.name for scan in [*known, *pool]]
    duplicates = find_duplicates(
        dict(zip(names[len(known) :], hashes[len(known) :], strict=True)),
        dict(zip(names[: len(known)], hashes[: len(known)], strict=True)),
    )
    files = {scan.name: found.files for scan, found in zip(pool, checked[len(known) :], strict=True)}
    work = Work(
        models=models,
        teachers=teachers,
        members=members,
        target=target,
        labelled=labelled,
        pool=pool,
        files=files,
        duplicates=duplicates,
    )
    if not work.wanted:
        raise UsageError(f"-i: all {len(pool)} cases are duplicates of labelled ones; give images without labels")
    taken = [scan for scan in work.wanted if scan.name in {each.name for each in known}]
    _refuse(
        [Fault(scan.name, "a labelled case with other images has this name") for scan in taken],
        "give the pool's cases other names with --prefix, e.g. --prefix pool_",
    )
    return work


def _labelled(request: Request, model: ModelFolder) -> Labelled | None:
    if request.labelled is None:
        return None
    labelled = open_labelled(request.labelled)
    name = f"--labelled {labelled.folder.name}"
    check_same_task(model.dataset_json, f"teacher {model.path.name}", labelled.content, name)
    if labelled.content["file_ending"] != model.dataset_json["file_ending"]:
        raise UsageError(
            f"{name} has files ending in {labelled.content['file_ending']}, the teachers take "
            f"{model.dataset_json['file_ending']}; convert one of them"
        )
    mixed_splits([scan.name for scan in labelled.scans], [], labelled.splits)
    return labelled


def _pool(request: Request, model: ModelFolder) -> tuple[list[Scan], list[Fault]]:
    ours, theirs = channel_names(model.dataset_json), pool_channels(request.images)
    order = tuple(range(len(ours)))
    if request.channel_order is not None:
        order = parse_order(request.channel_order, len(ours))
    elif theirs:
        order = by_name(theirs, ours)
    unknown = not theirs and request.channel_order is None
    n_channels = len(theirs) or (len(ours) if unknown else None)
    ending = model.dataset_json["file_ending"]
    pool, faults = read_pool(request.images, ending, order, n_channels=n_channels, prefix=request.prefix)
    # the record of such a case would lie where the folder's own description lies
    taken = [scan.name for scan in pool if f"{scan.name}.json" == MANIFEST]
    faults += [Fault(name, "is a name that is taken; rename the files or type --prefix") for name in taken]
    packed = [scan for scan in pool if scan.packed]
    if packed and unknown and len(ours) > 1:
        raise UsageError(
            f"-i: {packed[0].files[0].name} has its channels in one file and no dataset.json names them; say which is "
            f"which with --channel-order, e.g. --channel-order {','.join(map(str, order))}"
        )
    return pool, faults


def _check_images(
    scans: Sequence[Scan], faults: Sequence[Fault], models: Sequence[ModelFolder], request: Request
) -> list[Checked]:
    """Read every image, and refuse them all if one has a fault."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    axes = [len(PlansManager(m.plans).get_configuration(m.configuration).patch_size) for m in models]
    needed = Requirements(
        reader=PlansManager(models[0].plans).image_reader_writer_class,
        volumes=max(axes) == 3,
    )
    checked = map_cases(
        partial(check_scan, needed=needed),
        scans,
        description="Checking images",
        name=attrgetter("name"),
        scheduler=request.scheduler,
        n_workers=request.n_workers,
        seconds_per_case=_CHECK_SECONDS,
    )
    messages: dict[str, list[str]] = {}
    for fault in faults:
        messages.setdefault(fault.case, []).append(fault.message)
    for scan, each in zip(scans, checked, strict=True):
        messages.setdefault(scan.name, []).extend(each.faults)
    _refuse([Fault(case, "; ".join(texts)) for case, texts in messages.items() if texts], "mend or remove them")
    return checked


def _refuse(faults: Sequence[Fault], cure: str) -> None:
    if len(faults) == 1:
        raise UsageError(f"{faults[0].case}: {faults[0].message}; {cure}; nothing was written")
    for fault in faults:
        print(f"  {fault.case}: {fault.message}", file=sys.stderr)  # noqa: T201  # all at once, before the one line
    if faults:
        raise UsageError(
            f"expected cases without faults, the {len(faults)} above have some; {cure}; nothing was written"
        )

"""The verb ``nnunet_kd pseudo_label``: an ensemble labels scans that nobody labelled, for a student to train on."""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError

if TYPE_CHECKING:
    from nnunet_kd.pseudo_labels.dataset import Row
    from nnunet_kd.pseudo_labels.labelling import LabelJob, Record
    from nnunet_kd.pseudo_labels.pool import Scan
    from nnunet_kd.pseudo_labels.preparation import Work

EXAMPLE = (
    "nnunet_kd pseudo_label -i Task01_BrainTumour/imagesTr -o Dataset501_BratsPseudo --labelled 43 \\\n"
    "      --teacher Dataset043_BraTS19/nnUNetTrainer__nnUNetPlans__3d_fullres"
)

_TRUST = ("confidence", "disagreement")
_PLANS = "nnUNetKDPlans"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "-i", dest="images", type=Path, required=True, metavar="IMAGES", help="folder of images, or of a raw data set"
    )
    parser.add_argument(
        "-o", dest="output", required=True, metavar="DATASET", help="DatasetXXX_Name, to be written into nnUNet_raw"
    )
    parser.add_argument(
        "--teacher",
        action="append",
        required=True,
        metavar="MODEL_FOLDER",
        help="folder with fold_X in it, absolute or relative to nnUNet_results; several make an ensemble",
    )
    parser.add_argument(
        "--weights", nargs="+", type=float, metavar="W", help="of the teachers in the mean, above 0 (default: equal)"
    )
    parser.add_argument(
        "-f", dest="folds", nargs="+", metavar="FOLD", help="folds of every teacher (default: all that are trained)"
    )
    parser.add_argument(
        "-chk", default="checkpoint_final.pth", metavar="FILE", help="checkpoint in each fold (default: %(default)s)"
    )
    parser.add_argument(
        "--labelled", metavar="DATASET", help="raw data set with labels to mix in and to look for duplicates in"
    )
    parser.add_argument(
        "--channel-order", metavar="N,N,...", help="the pool's channels in the teachers' order, e.g. 1,2,3,0"
    )
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before the names of the pool's cases")
    choice = parser.add_argument_group("which pseudo-labels are kept (default: all)")
    choice.add_argument(
        "--keep-fraction", type=float, default=1.0, metavar="X", help="share of the cases, the most confident ones"
    )
    choice.add_argument(
        "--max-disagreement", type=float, default=1.0, metavar="X", help="of the members, 1 - their mean Dice"
    )
    how = parser.add_argument_group("prediction")
    how.add_argument(
        "--whole-volume", action="store_true", help="one pass over the volume, four flips, in place of the window"
    )
    how.add_argument("--no-mirroring", action="store_true", help="do not average over mirrored images")
    how.add_argument("-device", metavar="DEVICE", help="cuda, cpu or mps (default: cuda if there is one)")
    how.add_argument(
        "-np", type=int, metavar="N", help="processes (default: one per core on a CPU, this one alone on a GPU)"
    )
    how.add_argument("--scheduler", metavar="ADDRESS", help="of a running dask cluster, tcp://HOST:PORT")
    parser.add_argument("--link", action="store_true", help="link images in place of copying them")
    parser.add_argument(
        "--soft-labels", action="store_true", help="print how to train on the teachers' probabilities as well"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier pseudo-labelled data set")


def run(options: argparse.Namespace) -> None:
    """Check everything, label what is not labelled yet, then write the data set.

    Raises:
        UsageError: For whatever cannot be done, before anything is written; for failed cases at the end.
    """
    import torch

    from nnunet_kd.pseudo_labels.preparation import Request, prepare
    from nnunet_kd.pseudo_labels.selection import check_limits

    check_limits(options.keep_fraction, options.max_disagreement)
    work = prepare(
        Request(
            images=options.images.absolute(),  # workers of a cluster have folders of their own
            output=options.output,
            teachers=options.teacher,
            weights=options.weights,
            folds=options.folds,
            checkpoint=options.chk,
            labelled=options.labelled,
            channel_order=options.channel_order,
            prefix=options.prefix,
            overwrite=options.overwrite,
            n_workers=options.np,
            scheduler=options.scheduler,
        )
    )
    for line in remarks(work):
        print(line)
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder, records = label(
        work,
        device=device,
        mirroring=not options.no_mirroring,
        whole_volume=options.whole_volume,
        n_workers=0 if options.np is None and not device.startswith("cpu") else options.np,
        scheduler=options.scheduler,
    )
    rows = judge(work, records, keep_fraction=options.keep_fraction, max_disagreement=options.max_disagreement)
    write(work, rows, folder, link=options.link, n_workers=options.np, scheduler=options.scheduler)
    print(summary(work, rows, folder))
    commands = next_commands(work, soft_labels=options.soft_labels, mirroring=not options.no_mirroring)
    print("\nnext:\n" + "\n".join(f"  {line}" for line in commands))


def remarks(work: "Work") -> list[str]:
    """Return what a person should know before hours of computing."""
    from nnunet_kd.pseudo_labels.channels import channel_names

    lines = [f"left out {case}: {reason}" for case, reason in work.duplicates.items()]
    names, order = channel_names(work.models[0].dataset_json), work.pool[0].order
    if order != tuple(range(len(names))):
        pairs = ", ".join(f"{number} as {name}" for number, name in zip(order, names, strict=True))
        lines.append(f"channels of the pool: {pairs}")
    return lines


# ---- labelling ----


def label(
    work: "Work",
    *,
    device: str,
    mirroring: bool,
    whole_volume: bool,
    n_workers: int | None = None,
    scheduler: str | None = None,
    per_case: "Callable[[LabelJob, tuple[Scan, str]], None] | None" = None,
) -> "tuple[Path, dict[str, Record]]":
    """Run the teachers over the cases that are not finished.

    Args:
        work: What was checked.
        device: Where the teachers run.
        mirroring: Whether outputs are averaged over mirrored images.
        whole_volume: Whether one pass takes the place of the sliding window.
        n_workers: Local processes, ``0`` for this one, ``None`` for one per core.
        scheduler: Address of a running cluster.
        per_case: What is done per case.

    Returns:
        The folder of the labels, and the record of every case.

    Raises:
        UsageError: When all cases were tried and some failed; the others are kept.
    """
    from nnunet_kd.cases import FaultyCasesError, map_cases
    from nnunet_kd.distillation.soft_labels import key, other_caches
    from nnunet_kd.pseudo_labels.labelling import FOLDER, STEP_SIZE, LabelJob, begin, finished, label_case
    from nnunet_kd.pseudo_labels.teachers import recipe

    what = recipe(work.models, work.teachers, mirroring=mirroring, step_size=STEP_SIZE, whole_volume=whole_volume)
    folder = work.target.preprocessed / FOLDER / key(what)
    job = LabelJob(tuple(work.teachers), device, mirroring, whole_volume, folder)

    def record_of(scan: "Scan") -> "Record | None":
        return finished(folder, scan.name, files=work.files[scan.name], ending=work.ending)

    todo = [scan for scan in work.wanted if record_of(scan) is None]
    begin(folder, what, work.members)
    for line in other_caches(folder, what):
        print(f"left alone, labels by other teachers or settings: {line}")
    n, n_members = len(work.wanted), len(work.members)
    print(f"{n} cases to label with {n_members} networks, {n - len(todo)} finished before")
    try:
        map_cases(
            partial(per_case or label_case, job),
            [(scan, work.files[scan.name]) for scan in todo],
            description="Labelling",
            name=_name,
            scheduler=scheduler,
            n_workers=n_workers,
        )
    except FaultyCasesError as error:
        for fault in error.faults:
            print(f"  {fault.case}: {fault.message}", file=sys.stderr)
        raise UsageError(
            f"{len(error.faults)} of {len(todo)} cases failed as said above; the others are kept: type the same again"
        ) from error
    records = {scan.name: record_of(scan) for scan in work.wanted}
    return folder, {case: record for case, record in records.items() if record is not None}


def _name(case: "tuple[Scan, str]") -> str:
    return case[0].name


# ---- the data set ----


def judge(
    work: "Work", records: "Mapping[str, Record]", *, keep_fraction: float, max_disagreement: float
) -> "list[Row]":
    """Say of every case of the pool whether it is kept.

    Raises:
        UsageError: If none is.
    """
    from nnunet_kd.pseudo_labels.dataset import Row
    from nnunet_kd.pseudo_labels.selection import Judgement, left_out

    judged = {
        case: Judgement(confidence=record["confidence"], disagreement=record["disagreement"])
        for case, record in records.items()
    }
    reasons = {**work.duplicates, **left_out(judged, keep_fraction=keep_fraction, max_disagreement=max_disagreement)}
    if not set(judged) - set(reasons):
        least = min(judgement.disagreement for judgement in judged.values())
        raise UsageError(
            f"--max-disagreement {max_disagreement:g} keeps none of {len(judged)} cases, the lowest disagreement is "
            f"{least:.3f}; raise it (the labels are kept, so that no teacher runs again)"
        )
    return [
        Row(case=s.name, source=s.files[0], record=records.get(s.name, {}), why=reasons.get(s.name, ""))
        for s in work.pool
    ]


def write(
    work: "Work",
    rows: "Sequence[Row]",
    folder: Path,
    *,
    link: bool,
    n_workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Write the raw data set, whole or not at all, then what nnU-Net keeps beside preprocessed data.

    Args:
        work: What was checked.
        rows: What became of the cases of the pool.
        folder: Of the pseudo-labels.
        link: Whether images are linked.
        n_workers: Local processes, ``0`` for this one, ``None`` for one per core.
        scheduler: Address of a running cluster.
    """
    from nnunet_kd.planning.nnunet_files import pseudo_labelled_cases
    from nnunet_kd.pseudo_labels.dataset import Placed, describe, write_dataset
    from nnunet_kd.pseudo_labels.labelling import label_file
    from nnunet_kd.pseudo_labels.splits import mixed_splits

    kept = {row.case: row.record for row in rows if not row.why}
    cases = [
        Placed(scan=scan, label=label_file(folder, scan.name, work.ending), link=link, pseudo=True)
        for scan in work.pool
        if scan.name in kept
    ]
    splits, earlier = None, {}
    if work.labelled is not None:
        labels, earlier = work.labelled.labels, pseudo_labelled_cases(work.labelled.content, "--labelled")
        cases += [Placed(scan=s, label=labels[s.name], link=link, pseudo=False) for s in work.labelled.scans]
        splits = mixed_splits(list(labels), list(kept), work.labelled.splits)
    content = describe(
        work.models[0].dataset_json,
        name=work.target.raw.name.partition("_")[2],
        n_training=len(cases),
        pseudo_labels=earlier | {case: {key: record[key] for key in _TRUST} for case, record in kept.items()},
        teachers=work.members,
    )
    write_dataset(work.target, cases, content, rows=rows, splits=splits, n_workers=n_workers, scheduler=scheduler)


def summary(work: "Work", rows: "Sequence[Row]", folder: Path) -> str:
    """Say what was written and what it must not be taken for."""
    from nnunet_kd.pseudo_labels.dataset import TABLE
    from nnunet_kd.pseudo_labels.labelling import FOLDER

    kept = [row.record for row in rows if not row.why]
    n_labelled = len(work.labelled.scans) if work.labelled else 0
    lines = [
        f"wrote {work.target.raw}: {len(kept)} pseudo-labelled of {len(rows)} cases, {n_labelled} labelled",
        *(f"median {key} of those kept: {median(record[key] for record in kept):.3f}" for key in _TRUST),
        f"every case of the pool: {work.target.raw / TABLE}",
        f"labels of all of them, for another choice without the teachers: {folder}",
    ]
    if work.labelled is None:
        lines.append(
            "NOTE: no case has a label of its own, so that nothing can be validated and no folds were written: train "
            "fold all, and score the student on labelled cases elsewhere; or give --labelled DATASET"
        )
    else:
        lines.append(
            "pseudo-labelled cases are in every fold's training set and in no validation set; where a teacher trained "
            "on validation cases, scores there are optimistic: judge students on cases that no teacher saw"
        )
    stale = [path for path in work.target.preprocessed.iterdir() if path.is_dir() and path.name != FOLDER]
    if stale:
        lines.append(
            f"NOTE: {work.target.preprocessed} holds data of an earlier data set of this name; preprocess again"
        )
    return "\n".join(lines)


def next_commands(work: "Work", *, soft_labels: bool, mirroring: bool) -> list[str]:
    """Return the commands to type next, in their order.

    Soft labels lie on the grid of preprocessed images, which do not exist yet: ``nnunet_kd cache_teacher`` makes them
    from the same teachers once the student is planned.

    Args:
        work: What was checked.
        soft_labels: Whether the student shall learn from the teachers' probabilities, too.
        mirroring: Whether those are averaged over mirrored images.
    """
    import torch

    from nnunet_kd.planning.model_folder import portable

    number, fold = work.target.number, "all" if work.labelled is None else "0"
    configuration = work.models[0].configuration
    device = "" if torch.cuda.is_available() else " -device cpu"
    if not soft_labels:
        return [
            f"nnUNetv2_plan_and_preprocess -d {number} -c {configuration} --verify_dataset_integrity",
            f"nnUNetv2_train {number} {configuration} {fold}{device}",
        ]
    teachers = " ".join(f"--teacher {shlex.quote(portable(teacher.path))}" for teacher in work.teachers)
    folds = {teacher.folds for teacher in work.teachers}
    same = " ".join(map(str, *folds)) if len(folds) == 1 else "all"
    options = f"--folds {same} -chk {work.teachers[0].checkpoint} --teacher-outputs cached"
    lines = [
        f"nnUNetv2_extract_fingerprint -d {number} --verify_dataset_integrity",
        f"nnunet_kd plan -d {number} -c {configuration} {teachers} {options}{'' if mirroring else ' --no-mirroring'}",
        f"nnUNetv2_preprocess -d {number} -plans_name {_PLANS} -c {configuration}",
        f"nnunet_kd cache_teacher -d {number} -c {configuration} -p {_PLANS}",
        f"nnUNetv2_train {number} {configuration} {fold} -tr KDTrainer -p {_PLANS}{device}",
    ]
    if len({teacher.weight for teacher in work.teachers}) > 1:
        shares = ", ".join(f"{teacher.weight:g}" for teacher in work.teachers)
        lines.insert(2, f'# set the teachers\' "weight" to {shares} in the kd block of {_PLANS}.json')
    return lines

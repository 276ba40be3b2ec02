"""From raw images to written masks on a CPU: nnU-Net's command with a teacher and its student, ours with the student.

``hippocampus``: the 40 real test cases; teacher with nnU-Net's defaults, student without mirroring through nnU-Net and
through ``nnunet_kd predict`` in float32, bfloat16 and int8. ``ct``: one volume of the size of a CT scan with networks
of nnU-Net's kind. All commands of these two take turns; each finished round is one JSON in ``results/deployment/`` and
is not repeated. ``planner``: what ``nnunet_kd plan --max-seconds`` chooses, and what that takes.

    python benchmarks/deployment.py run --data Task04_Hippocampus --teacher FOLDER (--student FOLDER | --train-student)
    python benchmarks/deployment.py report
"""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import deployment_ct as ct
from deployment_measure import (
    CT_STUDENTS,
    HIPPOCAMPUS_STUDENTS,
    STOCK,
    TEACHER,
    Command,
    Taken,
    agreement,
    clean_environment,
    dice_scores,
    file_megabytes,
    log_of,
    network_seconds,
    run_command,
    script,
    write_result,
)
from study import HERE, Workplace, convert_hippocampus, test_cases

RESULTS = HERE / "results" / "deployment"
SHRINK, SEED, ARM = 4, 0, "distilled"
BUDGETS = (0.1, 0.05, 0.035)  # seconds for a case
N_EXPORT_CASES = 40  # of the training cases, for parity and for int8's calibration


class Place:
    """The benchmark's scratch folder: nnU-Net's folders, images, bundles and predictions.

    Args:
        folder: Scratch folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nnunet = Workplace(folder, 1)
        names = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}
        self.environment = clean_environment({name: folder / path for name, path in names.items()})

    def install(self, model: Path) -> Path:
        """Copy a model folder to where nnU-Net looks for it, the last checkpoint of fold 0 alone."""
        if self.nnunet.results in model.parents:
            return model
        dataset = json.loads((model / "plans.json").read_text())["dataset_name"]
        target = self.nnunet.results / dataset / model.name
        (target / "fold_0").mkdir(parents=True, exist_ok=True)
        for name in ("plans.json", "dataset.json", "fold_0/checkpoint_final.pth"):
            shutil.copyfile(model / name, target / name)
        return target

    def export(self, model: Path, name: str, options: Sequence[str]) -> Path:
        """Export fold 0 of a model, again at every call, and return the bundle."""
        bundle = self.folder / "bundles" / name
        where = ["-m", str(model), "-f", "0", "-o", str(bundle), "--overwrite"]
        self.nnunet.call(["-m", "nnunet_kd", "export", *where, *options], f"export_{name}")
        return bundle


def stock_command(model: Path, *options: str) -> Command:
    """Return ``nnUNetv2_predict`` with fold 0 of a model."""
    trainer, plans, configuration = model.name.split("__")
    which = ["-d", model.parent.name, "-tr", trainer, "-p", plans, "-c", configuration, "-f", "0", "-device", "cpu"]
    words = [script("nnUNetv2_predict"), "-i", "{images}", "-o", "{output}", *which, *options]
    return Command(words=words, model=model)


def our_command(bundle: Path, *options: str) -> Command:
    """Return ``nnunet_kd predict`` with a bundle."""
    words = [script("nnunet_kd"), "predict", "-i", "{images}", "-o", "{output}", "-m", str(bundle), *options]
    return Command(words=words, model=bundle)


def copy_cases(place: Place, dataset: str, cases: Sequence[str], name: str) -> tuple[Path, Path]:
    """Copy images and labels of some cases into folders of their own, emptied first."""
    raw = place.nnunet.raw / dataset
    folders = []
    for kind, ending in (("images", "_0000.nii.gz"), ("labels", ".nii.gz")):
        target = place.folder / f"{name}_{kind}"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for case in cases:
            shutil.copyfile(raw / f"{kind}Tr" / f"{case}{ending}", target / f"{case}{ending}")
        folders.append(target)
    return folders[0], folders[1]


def train_student(place: Place, dataset: str, teacher: Path) -> Path:
    """Train the student of ``hippocampus.py`` at 1/4, seed 0, unless it is there."""
    from hippocampus import CONFIGURATION, SETTINGS, Run, training

    work = Workplace(place.folder, SETTINGS["threads"])
    what = training(Run(arm=ARM, shrink=SHRINK, seed=SEED), dataset, [teacher])
    folder = work.model_folder(what)
    if not (folder / "fold_0" / "checkpoint_final.pth").is_file():
        work.preprocess(dataset, CONFIGURATION, batch_size=SETTINGS["batch_size"])
        work.train(what)
    return folder


def fingerprint(models: Mapping[str, Path], cases: Sequence[str]) -> dict[str, Any]:
    """Return what rounds of one part must have in common: the checkpoints and the number of cases."""
    from nnunet_kd.distillation.checkpoints import file_sha256

    hashes = {name: file_sha256(folder / "fold_0" / "checkpoint_final.pth")[:16] for name, folder in models.items()}
    return {"models": hashes, "n_cases": len(cases)}


def waiting_rounds(results: Path, part: str, n_rounds: int, common: Mapping[str, Any]) -> list[int]:
    """Return the rounds that have no result yet.

    Raises:
        SystemExit: If results are there of other models or cases.
    """
    for path in sorted(results.glob(f"{part}_round*.json")):
        found = json.loads(path.read_text())
        if other := [key for key in common if found[key] != common[key]]:
            raise SystemExit(f"{path} was measured with other {other[0]}; remove it, or name another --results")
    return [n for n in range(1, n_rounds + 1) if not (results / f"{part}_round{n}.json").is_file()]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the benchmark.

    Attributes:
        name: Of its files.
        commands: By name.
        images: Folder of what they predict.
        common: Written with each round, see :func:`fingerprint`.
        describe: From the folders of label maps by command to more facts by command.
    """

    name: str
    commands: Mapping[str, Command]
    images: Path
    common: Mapping[str, Any]
    describe: Callable[[Mapping[str, Path]], Mapping[str, Mapping[str, Any]]]


def run_rounds(part: Part, place: Place, results: Path, rounds: Sequence[int]) -> None:
    """Run all commands in turn, every second round backwards, and write each round when it is finished."""
    commands = part.commands
    megabytes = {name: file_megabytes(command.model) for name, command in commands.items()}
    outputs = {name: place.folder / "predictions" / f"{part.name}_{i}" for i, name in enumerate(commands)}
    for number in rounds:
        for path in part.images.iterdir():  # every command finds the images in memory
            path.read_bytes()
        load = os.getloadavg()[0]
        taken: dict[str, Taken] = {}
        for name in list(commands) if number % 2 else reversed(list(commands)):
            taken[name] = run_command(commands[name], part.images, outputs[name], place.environment)
            print(f"{part.name} {number}: {name} {taken[name].seconds:.2f} s", flush=True)
        more = part.describe(outputs)
        found = {
            name: {
                "seconds": round(taken[name].seconds, 3),
                "peak_megabytes": round(taken[name].peak_megabytes, 1),
                "megabytes": round(megabytes[name], 3),
                **more[name],
            }
            for name in commands
        }
        facts = {"part": part.name, "round": number, "load": round(load, 2), **part.common, "commands": found}
        write_result(results / f"{part.name}_round{number}.json", facts)


def warm_up(place: Place, commands: Mapping[str, Command], images: Path) -> None:
    """Run every command once on little, so that libraries lie in memory for all of them."""
    for command in commands.values():
        run_command(command, images, place.folder / "predictions" / "warm_up", place.environment)


def hippocampus(place: Place, options: argparse.Namespace) -> None:
    """Measure the commands on the test cases."""
    data = options.data.resolve()
    dataset = convert_hippocampus(place.nnunet, data)
    teacher = place.install(options.teacher.resolve())
    student = train_student(place, dataset, teacher) if options.train_student else options.student.resolve()
    student = place.install(student)
    test = test_cases(data)
    cases = test[: options.cases]
    images, labels = copy_cases(place, dataset, cases, "test")
    first, _ = copy_cases(place, dataset, cases[:1], "warm_up")
    common = fingerprint({"teacher": teacher, "student": student}, cases)
    rounds = waiting_rounds(options.results, "hippocampus", options.rounds, common)
    if not rounds:
        return
    every = sorted(path.name.split(".")[0] for path in (place.nnunet.raw / dataset / "labelsTr").glob("*.nii.gz"))
    spare = [case for case in every if case not in test][:N_EXPORT_CASES]
    real = copy_cases(place, dataset, spare, "export")
    examples = ["--cases", str(real[0]), "--labels", str(real[1])]
    commands = {TEACHER: stock_command(teacher), STOCK: stock_command(student, "--disable_tta")}
    for name, precision in HIPPOCAMPUS_STUDENTS.items():
        bundle = place.export(student, f"hippocampus_{precision}", ["--precision", precision, *examples])
        commands[name] = our_command(bundle)
    warm_up(place, commands, first)

    def describe(outputs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "dice": dice_scores(labels, output, cases),
                "as_stock_student": agreement(outputs[STOCK], output, cases) if name in HIPPOCAMPUS_STUDENTS else None,
            }
            for name, output in outputs.items()
        }

    part = Part(name="hippocampus", commands=commands, images=images, common=common, describe=describe)
    run_rounds(part, place, options.results, rounds)


def synthetic_ct(place: Place, options: argparse.Namespace) -> None:
    """Measure the commands on a volume of the size of a CT scan, without mirroring."""
    images, little = place.folder / "ct_images", place.folder / "ct_warm_up_images"
    teacher, student = (ct.write_model(place.nnunet.results, shrink) for shrink in (1, SHRINK))
    shape = list(options.ct_shape)
    common = {**fingerprint({"teacher": teacher, "student": student}, [ct.CASE]), "shape": shape}
    rounds = waiting_rounds(options.results, "ct", options.rounds, common)
    if not rounds:
        return
    shutil.rmtree(images, ignore_errors=True)
    ct.write_volume(images / f"{ct.CASE}_0000.nii.gz", shape)
    ct.write_volume(little / f"{ct.CASE}_0000.nii.gz", [64, 64, 32])
    commands = {name: stock_command(model, "--disable_tta") for name, model in ((TEACHER, teacher), (STOCK, student))}
    bundle = place.export(student, "ct_f32", ["--cases", str(little), "--patches", "2", "--logit-tolerance", "0.5"])
    commands |= {name: our_command(bundle, *words) for name, words in CT_STUDENTS.items()}
    warm_up(place, commands, little)

    def describe(outputs: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        return {
            name: {
                "network": network_seconds(log_of(output).read_text()) if name in (TEACHER, STOCK) else None,
                "as_stock_student": agreement(outputs[STOCK], output, [ct.CASE]) if name in CT_STUDENTS else None,
            }
            for name, output in outputs.items()
        }

    part = Part(name="ct", commands=commands, images=images, common=common, describe=describe)
    run_rounds(part, place, options.results, rounds)


def planner(place: Place, options: argparse.Namespace) -> None:
    """Measure what the planner chooses within budgets."""
    from deployment_planner import run_planner

    run_planner(place.folder, options)


PARTS: dict[str, Callable[[Place, argparse.Namespace], None]] = {
    "hippocampus": hippocampus,
    "ct": synthetic_ct,
    "planner": planner,
}


def run(options: argparse.Namespace) -> None:
    """Measure what has no result yet, part by part."""
    needed = {"--data": options.data} if {"hippocampus", "planner"} & set(options.parts) else {}
    if "hippocampus" in options.parts:
        needed["--teacher"] = options.teacher
        needed["--student (or --train-student)"] = options.student or options.train_student
    if missing := [name for name, value in needed.items() if not value]:
        raise SystemExit(f"expected {', '.join(missing)} for the parts {', '.join(options.parts)}; or type: --parts ct")
    place = Place(options.work.resolve())
    for part in options.parts:
        PARTS[part](place, options)


def report(options: argparse.Namespace) -> None:
    """Write the tables and the picture of what is measured."""
    from deployment_report import write

    write(options.results, into_docs=options.results == RESULTS)


def main() -> None:
    """Parse and delegate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("run", help="measure what has no result yet")
    add = verb.add_argument
    add("--data", type=Path, help="Task04_Hippocampus in the Decathlon layout, with test_cases.txt")
    add("--teacher", type=Path, help="nnU-Net model folder that saw none of the test cases")
    student = verb.add_mutually_exclusive_group()
    student.add_argument("--student", type=Path, help="model folder of a student of it")
    student.add_argument("--train-student", action="store_true", help="train the student of hippocampus.py at 1/4")
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    add("--rounds", type=int, default=3, help="of all commands of a part in turn (default: %(default)s)")
    add("--cases", type=int, help="test cases to predict (default: all)")
    add("--ct-shape", type=int, nargs=3, default=(512, 512, 300), help="columns, rows, slices")
    add("--budgets", type=float, nargs="+", default=BUDGETS, help="seconds for the planner (default: %(default)s)")
    add("--work", type=Path, default=HERE / "work" / "deployment", help="scratch folder")
    verb.set_defaults(function=run)
    shown = verbs.add_parser("report", help="write the tables and the picture into docs/")
    shown.set_defaults(function=report)
    for each in (verb, shown):
        each.add_argument("--results", type=Path, default=RESULTS, help="default: the committed ones")
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()

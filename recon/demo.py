"""From phantoms to a comparison report, by the sub-verbs that users type, inside one folder."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nnunet_kd.errors import UsageError
from nnunet_kd.phantoms.children import own_command, run_child
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically
from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom_dataset

if TYPE_CHECKING:
    from nnunet_kd.phantoms.children import Bar

NUMBER, DATASET, CONFIGURATION = "990", "Dataset990_ReconPhantom", "2d"
RECORD = "recon_demo.json"
ARMS = ("zero-filled", "teacher", "student", "distilled")
TEACHER, STUDENT, DISTILLED = "nnUNetReconDemoPlans", "nnUNetReconDemoNonePlans", "nnUNetReconDemoKDPlans"

_OWN = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "predictions", "report", "logs", "cache", RECORD)
_N_TRAINING, _N_TEST = 24, 12
_PHANTOM = PhantomSettings(n_slices=5, matrix=(96, 96), phase=1.0, noise=0.01)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the demo that is done once.

    Attributes:
        key: Its name in the record and of its log.
        title: Shown beside the bar.
        words: What follows ``nnunet_kd recon``; empty for the data, which no command makes.
    """

    key: str
    title: str
    words: Sequence[str] = ()


def model_folder(plans: str, trainer: str) -> str:
    """Return a model folder relative to ``nnUNet_results``."""
    return f"{DATASET}/{trainer}__{plans}__{CONFIGURATION}"


def stages(folder: Path, epochs: int) -> list[Stage]:
    """Return all stages in order."""
    teacher = model_folder(TEACHER, "DCCNNTrainer")
    models = {
        "zero-filled": (teacher, ["--zero_filled"]),
        "teacher": (teacher, []),
        "student": (model_folder(STUDENT, "DCCNNKDTrainer"), []),
        "distilled": (model_folder(DISTILLED, "DCCNNKDTrainer"), []),
    }
    test = str(folder / "nnUNet_raw" / DATASET / "kspaceTs")
    budget = ["--epochs", str(epochs), "--batch-size", "4", "--lr-schedule", "cosine", "--seed", "0"]
    made = {arm: str(folder / "predictions" / arm) for arm in ARMS}

    def train(plans: str, trainer: str) -> list[str]:
        return ["train", NUMBER, CONFIGURATION, "0", "-tr", trainer, "-p", plans, "-device", "cpu", "--c"]

    def plan(plans: str, *words: str) -> list[str]:
        return ["plan", "-d", NUMBER, "-p", plans, "--overwrite", *words, *budget]

    student = ["--teacher", teacher, "--convs", "3"]
    arms = [word for arm in ARMS for word in ("--arm", f"{arm}={made[arm]}")]
    comparison = ["compare", "-r", test, *arms, "-o", str(folder / "report"), "--overwrite"]
    return [
        Stage(key="data", title="drawing phantoms"),
        Stage(key="fingerprint", title="fingerprint", words=["extract_fingerprint", "-d", NUMBER, "--overwrite"]),
        Stage(key="plan_teacher", title="planning the teacher", words=plan(TEACHER)),
        Stage(
            key="preprocess",
            title="preprocessing",
            words=["preprocess", "-d", NUMBER, "-p", TEACHER, "-c", CONFIGURATION],
        ),
        Stage(key="train_teacher", title="training the teacher", words=train(TEACHER, "DCCNNTrainer")),
        Stage(key="plan_student", title="planning the student", words=plan(STUDENT, *student, "--method", "none")),
        Stage(key="train_student", title="training the student alone", words=train(STUDENT, "DCCNNKDTrainer")),
        Stage(key="plan_distilled", title="planning its twin", words=plan(DISTILLED, *student, "--method", "kd_mri")),
        Stage(key="train_distilled", title="training it distilled", words=train(DISTILLED, "DCCNNKDTrainer")),
        *(
            Stage(
                key=f"predict_{arm}",
                title=f"reconstructing, {arm}",
                words=["predict", "-i", test, "-o", made[arm], "-m", model, "--overwrite", *words],
            )
            for arm, (model, words) in models.items()
        ),
        Stage(key="compare", title="comparing", words=comparison),
    ]


def open_folder(folder: Path, epochs: int, *, overwrite: bool) -> dict[str, float]:
    """Make the folder, or take up what an earlier demo left in it; return the seconds of finished stages.

    Raises:
        UsageError: If it holds something else, or a demo of another length.
    """
    record = folder / RECORD
    if not folder.is_dir() or not any(folder.iterdir()):
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        write_json_atomically({"epochs": epochs, "finished": {}}, record)
        return {}
    strange = [entry.name for entry in folder.iterdir() if entry.name not in _OWN]
    if strange or not record.is_file():
        raise UsageError(f"expected a new folder or one of this demo, {folder} holds other things; type another -o")
    state = read_json_object(record)
    if overwrite:
        _clear(folder)
        return open_folder(folder, epochs, overwrite=False)
    if state.get("epochs") != epochs:
        raise UsageError(
            f"{folder} holds a demo of {state.get('epochs')} epochs; type --epochs {state.get('epochs')} to go on "
            "or --overwrite to begin anew"
        )
    finished: dict[str, float] = state["finished"]
    return finished


def _clear(folder: Path) -> None:
    import shutil

    for name in _OWN:
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / RECORD).unlink(missing_ok=True)


def environment(folder: Path) -> dict[str, str]:
    """Return the variables of every command: nnU-Net's folders lie inside the demo's."""
    inside = {name: str(folder / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    return {**os.environ, **inside, "MPLCONFIGDIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}


def run_demo(folder: Path, epochs: int, *, overwrite: bool = False) -> dict[str, float]:
    """Do every stage that is not finished yet; return the seconds of all.

    Raises:
        ChildFailedError: If a command fails.
        UsageError: If the folder is not the demo's.
    """
    finished = open_folder(folder, epochs, overwrite=overwrite)
    todo = stages(folder, epochs)
    bar: Bar = tqdm(total=len(todo), unit="stage")
    with bar:
        for stage in todo:
            bar.set_description(stage.title)
            if stage.key not in finished:
                begun = time.monotonic()
                _do(stage, folder)
                finished[stage.key] = round(time.monotonic() - begun, 1)
                write_json_atomically({"epochs": epochs, "finished": finished}, folder / RECORD)
            bar.update()
    return finished


def _do(stage: Stage, folder: Path) -> None:
    if not stage.words:
        target = folder / "nnUNet_raw" / DATASET
        if not target.is_dir():
            make_phantom_dataset(target, _N_TRAINING, n_test=_N_TEST, settings=_PHANTOM, seed=0)
        return
    log = folder / "logs" / f"{stage.key}.log"
    log.parent.mkdir(exist_ok=True)
    run_child([*own_command("recon"), *stage.words], log=log, environment=environment(folder))


def conclusion(folder: Path, finished: Mapping[str, float]) -> str:
    """Return the table, how long it took, and the places of report and pictures."""
    content = read_json_object(folder / "report" / "report.json")
    lines = [f"{'':<14}{'PSNR [dB]':>10}   95 % interval over {len(content['cases'])} volumes"]
    for row in content["rows"]:
        if row["metric"] == "PSNR":
            mean = row["mean"]
            lines.append(f"{row['arm']:<14}{mean['value']:>10.2f}   {mean['low']:.2f} to {mean['high']:.2f}")
    minutes = sum(finished.values()) / 60
    return "\n".join(
        [
            "",
            *lines,
            "",
            "Phantoms and a short schedule on a CPU: this shows the way, not what the method can reach.",
            f"{minutes:.1f} minutes. Report: {folder / 'report' / 'report.md'}",
            f"Pictures: {folder / 'report' / 'reconstructions.png'}, {folder / 'report' / 'comparison.png'}",
        ]
    )

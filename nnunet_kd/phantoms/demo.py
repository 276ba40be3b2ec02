"""From nothing to a comparison report, with nnU-Net's own commands, inside one folder."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from nnunet_kd.phantoms.children import Reader, counter, nnunet_command, number, own_command, run_child
from nnunet_kd.phantoms.demo_data import hold_out, write_phantoms
from nnunet_kd.phantoms.demo_folder import DemoFolder, DemoSettings
from nnunet_kd.phantoms.schedule import N_EPOCHS, USED_SHARE, slowdown, student_steps, teacher_steps
from nnunet_kd.phantoms.stopwatch import StepTimes

if TYPE_CHECKING:
    from nnunet_kd.phantoms.children import Bar

CONFIGURATION, TRAINER, FOLD = "3d_fullres", "KDTrainer", "0"
SHRINK = 8
# arm: its plans, in the order of training
ARMS = {"teacher": "nnUNetKDTeacherPlans", "student": "nnUNetKDNonePlans", "distilled": "nnUNetKDPlans"}

_RATES = {"teacher": "1e-3", "student": "1e-2", "distilled": "1e-2"}  # small networks want the larger learning rate
_SEED = "0"
_N_VALIDATION_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the demo that is done once.

    Attributes:
        key: Its name in the record.
        title: Shown beside its bar.
        run: Does it and advances the bar.
        unit: What the bar counts.
        total: How many; asked when the stage begins.
    """

    key: str
    title: str
    run: Callable[["Bar"], None]
    unit: str = "step"
    total: Callable[[], int] = lambda: 1


def run_demo(folder: DemoFolder, settings: DemoSettings) -> None:
    """Do every stage that is not finished yet.

    Raises:
        ChildFailedError: If a command fails.
        UsageError: If the data do not fit.
    """
    began = time.monotonic() - sum(folder.finished.values())
    deadline = began + USED_SHARE * 60 * settings.minutes
    stages = demo_stages(folder, settings, deadline)
    for position, stage in enumerate(stages, start=1):
        title = f"{position:2}/{len(stages)} {stage.title}"
        if stage.key in folder.finished:
            tqdm.write(f"{title}: finished before")
            continue
        begun = time.monotonic()
        bar: Bar = tqdm(total=stage.total(), desc=title, unit=stage.unit)
        with bar:
            stage.run(bar)
        folder.finish(stage.key, time.monotonic() - begun)


def demo_stages(folder: DemoFolder, settings: DemoSettings, deadline: float) -> list[Stage]:
    """Return all stages in order.

    Args:
        folder: Where they work.
        settings: Which data.
        deadline: When all should be done, on the monotonic clock.
    """
    make_data = partial(_convert, source=settings.data) if settings.data else _make_phantoms
    train = [
        Stage(
            key=f"train_{arm}",
            title=f"training the {_title(arm)}",
            run=partial(_train, folder, arm=arm, deadline=deadline),
            unit="epoch",
            total=lambda: N_EPOCHS,
        )
        for arm in ARMS
    ]
    predict = [
        Stage(
            key=f"predict_{arm}",
            title=f"predicting with the {_title(arm)}",
            run=partial(_predict, folder, arm=arm),
            unit="case",
            total=lambda: folder.data.n_test,
        )
        for arm in ARMS
    ]
    return [
        Stage(key="data", title="data", run=partial(make_data, folder)),
        Stage(
            key="preprocess",
            title="planning and preprocessing",
            run=partial(_preprocess, folder),
            unit="case",
            total=lambda: folder.data.n_train,
        ),
        Stage(key="measure", title="timing this machine", run=partial(_measure, folder, deadline=deadline)),
        *train,
        *predict,
        Stage(key="report", title="comparing", run=partial(_compare, folder)),
    ]


def _title(arm: str) -> str:
    return {"teacher": "teacher", "student": "student alone", "distilled": "distilled student"}[arm]


def _child(
    folder: DemoFolder, name: str, command: Sequence[str], bar: "Bar | None" = None, read: Reader | None = None
) -> str:
    """Run a command and return its output."""
    log = folder.logs / f"{name}.log"
    run_child(command, log=log, environment=folder.environment(), bar=bar, read=read)
    return log.read_text(encoding="utf-8", errors="replace")


def _make_phantoms(folder: DemoFolder, bar: "Bar") -> None:
    write_phantoms(folder.raw)
    bar.update()


def _convert(folder: DemoFolder, bar: "Bar", *, source: Path) -> None:
    _child(folder, "convert", [*own_command("convert"), "decathlon", str(source.resolve()), "--overwrite"], bar)
    hold_out(folder.data.folder, source)


def _preprocess(folder: DemoFolder, bar: "Bar") -> None:
    workers = folder.environment()["nnUNet_def_n_proc"]
    command = [nnunet_command("nnUNetv2_plan_and_preprocess"), "-d", str(folder.data.number), "-c", CONFIGURATION]
    read = number(r"Preprocessing cases.*?(\d+)/\d+ \[")
    _child(folder, "preprocess", [*command, "-npfp", workers, "-np", workers], bar, read)


def _measure(folder: DemoFolder, bar: "Bar", *, deadline: float) -> None:
    plans = folder.preprocessed / folder.data.folder.name / "nnUNetPlans.json"
    command = [sys.executable, "-m", "nnunet_kd.phantoms.stopwatch", str(plans), CONFIGURATION, str(SHRINK)]
    times = StepTimes(**json.loads(_child(folder, "measure", command, bar).strip().splitlines()[-1]))
    n_steps = teacher_steps(times, deadline - time.monotonic())
    folder.state["times"] = asdict(times)
    folder.state["n_steps"] = {"teacher": n_steps}


def _train(folder: DemoFolder, bar: "Bar", *, arm: str, deadline: float) -> None:
    started = (model_folder(folder, arm) / f"fold_{FOLD}").is_dir()
    if not started:
        if arm != "teacher" and "students" not in folder.state["n_steps"]:
            _fit_students(folder, deadline)
        _child(folder, f"plan_{arm}", plan_command(folder, arm))
    name = folder.data.folder.name
    command = [nnunet_command("nnUNetv2_train"), name, CONFIGURATION, FOLD, "-tr", TRAINER, "-p", ARMS[arm]]
    command += ["-device", "cpu", *(["--c"] if started else [])]
    _child(folder, f"train_{arm}", command, bar, number(r"Epoch (\d+)\s*$"))


def _fit_students(folder: DemoFolder, deadline: float) -> None:
    times, n_steps = StepTimes(**folder.state["times"]), folder.state["n_steps"]["teacher"]
    log = (folder.logs / "train_teacher.log").read_text(encoding="utf-8", errors="replace")
    times = times.slower(slowdown(times, log, n_steps // N_EPOCHS))
    folder.state["n_steps"]["students"] = student_steps(times, deadline - time.monotonic(), at_most=n_steps)
    folder.save()


def plan_command(folder: DemoFolder, arm: str) -> list[str]:
    """Return the words that plan an arm; the two students differ in nothing but the teacher."""
    n_steps = folder.state["n_steps"]["teacher" if arm == "teacher" else "students"]
    command = [*own_command("plan"), "-d", str(folder.data.number), "-c", CONFIGURATION, "-p", ARMS[arm]]
    if arm != "teacher":
        command += ["--teacher", str(model_folder(folder, "teacher")), "--shrink", str(SHRINK)]
    if arm != "distilled":
        command += ["--method", "none"]
    command += ["--epochs", str(N_EPOCHS), "--iterations", str(n_steps // N_EPOCHS), "--seed", _SEED, "--overwrite"]
    return [*command, "--val-iterations", str(_N_VALIDATION_STEPS), "--optimizer", "AdamW", "--lr", _RATES[arm]]


def _predict(folder: DemoFolder, bar: "Bar", *, arm: str) -> None:
    output = folder.predictions / arm
    output.mkdir(exist_ok=True)
    command = [nnunet_command("nnUNetv2_predict"), "-d", str(folder.data.number), "-c", CONFIGURATION, "-f", FOLD]
    command += ["-tr", TRAINER, "-p", ARMS[arm], "-i", str(folder.data.folder / "imagesTs"), "-o", str(output)]
    # in one process and without mirroring, for every arm: starting workers takes longer than these cases
    command += ["-device", "cpu", "-npp", "0", "-nps", "0", "--disable_tta"]
    _child(folder, f"predict_{arm}", command, bar, counter(r"^done with "))


def _compare(folder: DemoFolder, bar: "Bar") -> None:
    _child(folder, "compare", compare_command(folder), bar)


def compare_command(folder: DemoFolder) -> list[str]:
    """Return the words that compare all arms."""
    command = [*own_command("compare"), "--reference", str(folder.data.folder / "labelsTs")]
    for arm in ARMS:
        command += ["--arm", f"{arm}={folder.predictions / arm}", "--model", f"{arm}={model_folder(folder, arm)}"]
    return [*command, "-o", str(folder.report), "--overwrite"]


def model_folder(folder: DemoFolder, arm: str) -> Path:
    """Return nnU-Net's folder of an arm's model."""
    return folder.results / folder.data.folder.name / f"{TRAINER}__{ARMS[arm]}__{CONFIGURATION}"

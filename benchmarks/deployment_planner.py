"""Budgets for ``nnunet_kd plan --max-seconds``, and what the students that they choose really take once trained."""

import argparse
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment_measure import write_result
from study import Training, Workplace, convert_hippocampus

CONFIGURATION = "3d_fullres"
N_COPIES = 10  # of the case, so that there are warm ones
# enough that label maps look like label maps
TRAINING = ("--method", "none", "--seed", "0", "--epochs", "1", "--iterations", "100", "--val-iterations", "2")


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the planner's page says.

    Attributes:
        student: The chosen one, in its words.
        case: That it was measured on.
        seconds: From file to file.
    """

    student: str
    case: str
    seconds: float


def read_page(text: str) -> Prediction:
    """Read the page that ``nnunet_kd plan`` writes beside the plans.

    Raises:
        ValueError: If it lacks something.
    """
    patterns = {
        "student": r"^chosen: (.+?), [\d.e+-]+ s\b",
        "case": r"; case (\S+) of",
        "seconds": r"\| sum \| (\S+) \|",
    }
    found = {name: re.search(pattern, text, re.MULTILINE) for name, pattern in patterns.items()}
    if missing := [name for name, match in found.items() if match is None]:
        raise ValueError(f"expected {', '.join(missing)} in the planner's page, found none")
    words = {name: match.group(1) for name, match in found.items() if match is not None}
    return Prediction(student=words["student"], case=words["case"], seconds=float(words["seconds"]))


def run_planner(work: Path, options: argparse.Namespace) -> None:
    """Plan, train shortly, export and measure the student of every budget that has no result yet."""
    from nnunet_kd.hardware import n_cores

    place = Workplace(work, n_cores(), compiled=False)
    dataset = convert_hippocampus(place, options.data.resolve())
    place.preprocess(dataset, CONFIGURATION, batch_size=4)
    for budget in options.budgets:
        path = options.results / f"planner_{budget:g}.json"
        if path.is_file():
            continue
        training = Training(
            name=f"budget {budget:g}",
            dataset=dataset,
            configuration=CONFIGURATION,
            options=["--max-seconds", f"{budget:g}", "--threads", str(n_cores()), *TRAINING],
        )
        place.train(training)
        page = place.preprocessed / dataset / f"{training.plans}_{CONFIGURATION}_budget.md"
        predicted = read_page(page.read_text(encoding="utf-8"))
        measured = measure(place, training, predicted.case, options.rounds)
        facts = {"budget": budget, "parameters": place.parameters(training), "predicted": vars(predicted)}
        write_result(path, {"part": "planner", **facts, "measured": measured})
        print(
            f"planner: {budget:g} s, {predicted.student}: {predicted.seconds:g} s, {measured['case']['median']:.3g} s"
        )


def measure(place: Workplace, training: Training, case: str, n_rounds: int) -> dict[str, Any]:
    """Export a trained student and return the summary of ``nnunet_kd benchmark`` on copies of a case."""
    from nnunet_kd.hardware import n_cores

    images, bundle, report = (place.folder / f"planner_{name}" for name in ("images", "bundle", "report"))
    shutil.rmtree(images, ignore_errors=True)
    images.mkdir()
    for copy in range(N_COPIES):
        source = place.raw / training.dataset / "imagesTr" / f"{case}_0000.nii.gz"
        shutil.copyfile(source, images / f"{case}_copy{copy}_0000.nii.gz")
    model = str(place.model_folder(training))
    export = ["export", "-m", model, "-f", "0", "-o", str(bundle), "--cases", str(images), "--overwrite"]
    place.call(["-m", "nnunet_kd", *export], f"{training.name}.export", 1)
    how = ["--repeats", str(n_rounds), "--threads", str(n_cores()), "--overwrite"]
    words = ["benchmark", "-m", f"student={bundle}", "-i", str(images), "-o", str(report), *how]
    place.call(["-m", "nnunet_kd", *words], f"{training.name}.benchmark", 1)
    summary: dict[str, Any] = json.loads((report / "benchmark.json").read_text())["summary"]["student"]
    return summary

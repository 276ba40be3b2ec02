"""What a training step costs: distilled over plain, and KDTrainer's CPU step over nnUNetTrainer's.

The networks are those of the hippocampus benchmark (patch 40x56x40, batch 4; teacher 32-64-128-256 channels) on
phantoms. All steps of a comparison run interleaved in this process, and medians are reported.

    python benchmarks/training_step.py [--repeats 9] [--threads 2] [--compile] [-o results/training_step.json]
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- training step: begin -->", "<!-- training step: end -->"
SECONDS = ("nnUNetTrainer step", "plain step", "distilled step", "teacher forward")
RATIOS = ("distilled / plain", "distilled / (plain + teacher forward)", "nnUNetTrainer / plain")
DATASET = "Dataset900_Steps"
TEACHER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


def prepare(root: Path) -> None:
    """Write, plan and preprocess a phantom data set whose plans have the hippocampus benchmark's network."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir()
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ |= {"nnUNet_def_n_proc": "1", "nnUNet_n_proc_DA": "1"}
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    from nnunet_kd.phantoms.dataset import write_phantom_dataset

    write_phantom_dataset(root / "raw", dataset_id=900, name="Steps", n_train=5, n_test=0, seed=0, shape=(36, 50, 35))
    api.extract_fingerprints([900], num_processes=1, show_progress_bar=False)
    api.plan_experiments([900])
    api.preprocess([900], configurations=["3d_fullres"], num_processes=[1])
    path = root / "preprocessed" / DATASET / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    plans["configurations"]["3d_fullres"] |= {"batch_size": 4, "patch_size": [40, 56, 40]}
    path.write_text(json.dumps(plans))
    folder = root / "results" / DATASET / TEACHER
    (folder / "fold_0").mkdir(parents=True)
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text((root / "preprocessed" / DATASET / "dataset.json").read_text())


def plan(name: str, shrink: int, *options: str) -> None:
    """Plan a student with ``nnunet_kd plan``."""
    from nnunet_kd.cli import main as nnunet_kd

    arguments = ["plan", "-d", "900", "-c", "3d_fullres", "--shrink", str(shrink), "-p", name, "--optimizer", "AdamW"]
    if nnunet_kd([*arguments, *options]):
        raise SystemExit("planning failed")


def trainer(name: str, plans: str, *, online: bool = True) -> Any:  # noqa: ANN401  # nnU-Net's classes have no types
    """Build a trainer and bring it to its first step, without data loaders; ``online`` loads its teachers."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    built = get_trainer_from_args(DATASET, "3d_fullres", 0, name, plans, False, torch.device("cpu"))
    built.initialize()
    built.set_deep_supervision_enabled(True)
    built.network.train()
    if name == "KDTrainer" and built.kd.uses_teachers and online:
        built.teachers = built._load_teachers()
    return built


def batch(built: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return noise with labels at every scale of deep supervision."""
    import torch

    torch.manual_seed(0)
    patch = built.configuration_manager.patch_size
    labels = torch.randint(0, 3, (built.batch_size, 1, *patch)).float()
    scales = [
        [round(n * s) for n, s in zip(patch, scale, strict=True)] for scale in built._get_deep_supervision_scales()
    ]
    targets = [torch.nn.functional.interpolate(labels, size=size) for size in scales]
    return {"data": torch.randn(built.batch_size, 1, *patch), "target": targets}


def medians(steps: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Time functions in turn, A B C A B C ..., after one warm-up each; return median seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(repeats + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def measure(shrink: int, repeats: int) -> dict[str, float]:
    """Compare the steps of one student size."""
    import torch

    teacher = ["--teacher", f"{DATASET}/{TEACHER}"]
    plan(f"nnUNetKDPlain{shrink}Plans", shrink, "--method", "none")
    plan(f"nnUNetKDDistilled{shrink}Plans", shrink, *teacher, "--random-teacher")
    plain, distilled = (trainer("KDTrainer", f"nnUNetKD{arm}{shrink}Plans") for arm in ("Plain", "Distilled"))
    stock = trainer("nnUNetTrainer", f"nnUNetKDPlain{shrink}Plans")
    one = batch(plain)

    def teacher_forward() -> None:
        with torch.no_grad(), distilled.autocast():
            distilled.teachers.members[0].network(one["data"])

    steps = {
        "nnUNetTrainer step": lambda: stock.train_step(one),
        "plain step": lambda: plain.train_step(one),
        "distilled step": lambda: distilled.train_step(one),
        "teacher forward": teacher_forward,
    }
    found = medians(steps, repeats)
    found["distilled / plain"] = found["distilled step"] / found["plain step"]
    found["distilled / (plain + teacher forward)"] = found["distilled step"] / (
        found["plain step"] + found["teacher forward"]
    )
    found["nnUNetTrainer / plain"] = found["nnUNetTrainer step"] / found["plain step"]
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measure every size and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="compile the teacher (nnUNet_compile=true)")
    parser.add_argument("-o", type=Path, default=HERE / "results" / "training_step.json")
    options = parser.parse_args()
    import torch

    from nnunet_kd.hardware import describe

    torch.set_num_threads(options.threads)
    os.environ["nnUNet_compile"] = "true" if options.compile else "false"
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        sizes = {f"shrink {shrink}": measure(shrink, options.repeats) for shrink in (8, 4, 1)}
    result = {
        "hardware": describe(), "threads": options.threads, "torch": torch.__version__, "repeats": options.repeats,
        "python": platform.python_version(), "teacher compiled": options.compile, "sizes": sizes,
    }  # fmt: skip
    options.o.parent.mkdir(parents=True, exist_ok=True)
    options.o.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    write_table()


def write_table() -> None:
    """Replace the marked part of docs/benchmarks.md by all committed results of this script."""
    rows = []
    for path in sorted((HERE / "results").glob("training_step*.json")):
        result = json.loads(path.read_text())
        how = f"{result['threads']} threads, teacher {'compiled' if result['teacher compiled'] else 'eager'}"
        for size, found in result["sizes"].items():
            seconds = [f"{found[name]:.3f}" for name in SECONDS]
            rows.append("| " + " | ".join([how, size, *seconds, *(f"{found[name]:.2f}" for name in RATIOS)]) + " |")
    head = ["how", "student", *(f"{name} [s]" for name in SECONDS), *RATIOS]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n\nMedians; {result['hardware']}.\n{END}{after}")


if __name__ == "__main__":
    main()

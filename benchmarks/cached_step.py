"""What training from cached soft labels costs: the step and the loader.

The set-up is training_step.py's: the hippocampus benchmark's networks (patch 40x56x40, batch 4) on phantoms, all steps
and batches of a comparison interleaved in this process, medians reported. The cache holds the mean over two members of
full size with random weights, mirrored along all axes; what a cache cost to make no longer matters when it is used.

    python benchmarks/cached_step.py [--repeats 25] [--threads 1]
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

from training_step import DATASET, HERE, PAGE, TEACHER, batch, medians, plan, prepare, trainer

RESULT = HERE / "results" / "cached_step.json"
BEGIN, END = "<!-- cached step: begin -->", "<!-- cached step: end -->"
MEMBERS = ("--teacher", f"{DATASET}/{TEACHER}", "--random-teacher", "--folds", "0", "1")


def cached_trainer(name: str) -> Any:  # noqa: ANN401  # nnU-Net's classes have no types
    """Fill the cache of planned students and bring their trainer to its first step."""
    from nnunet_kd.cli import main as nnunet_kd
    from nnunet_kd.distillation.cached_data import soft_labels_for_training

    if nnunet_kd(["cache_teacher", "-d", "900", "-c", "3d_fullres", "-p", name, "-device", "cpu", "-np", "0"]):
        raise SystemExit("caching failed")
    built = trainer("KDTrainer", name, online=False)
    built.soft_labels = soft_labels_for_training(built)
    return built


def with_soft_labels(one: dict[str, Any], built: Any) -> dict[str, Any]:  # noqa: ANN401
    """Let random soft labels ride behind the images of a batch."""
    import torch

    data = one["data"]
    soft = torch.rand(len(data), built.soft_labels.n_riding + 1, *data.shape[2:])
    return {**one, "data": torch.cat([data, (soft / soft.sum(dim=1, keepdim=True))[:, 1:]], dim=1)}


def measure(shrink: int, repeats: int) -> dict[str, float]:
    """Compare one student size with and without soft labels."""
    plan(f"nnUNetKDPlain{shrink}Plans", shrink, "--method", "none")
    plan(f"nnUNetKDCached{shrink}Plans", shrink, *MEMBERS, "--teacher-outputs", "cached")
    plain = trainer("KDTrainer", f"nnUNetKDPlain{shrink}Plans")
    cached = cached_trainer(f"nnUNetKDCached{shrink}Plans")
    one = batch(plain)
    two = with_soft_labels(one, cached)
    loaders = {"plain": plain.get_dataloaders()[0], "cached": cached.get_dataloaders()[0]}
    found = medians(
        {
            "plain step": lambda: plain.train_step(one),
            "cached step": lambda: cached.train_step(two),
            "plain batch": lambda: next(loaders["plain"]),
            "cached batch": lambda: next(loaders["cached"]),
        },
        repeats,
    )
    found["cached step / plain step"] = found["cached step"] / found["plain step"]
    found["cached batch / plain batch"] = found["cached batch"] / found["plain batch"]
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measure every size, write JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    import torch

    from nnunet_kd.hardware import describe

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        os.environ["nnUNet_n_proc_DA"] = "0"  # batches are made in this process, where they can be timed
        sizes = {f"shrink {shrink}": measure(shrink, options.repeats) for shrink in (8, 4, 1)}
    result = {
        "hardware": describe(), "threads": options.threads, "torch": torch.__version__, "repeats": options.repeats,
        "python": platform.python_version(), "sizes": sizes,
    }  # fmt: skip
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    write_table(result)


def write_table(result: dict[str, Any]) -> None:
    """Replace the marked part of docs/benchmarks.md."""
    columns = list(next(iter(result["sizes"].values())))
    rows = [
        "| " + " | ".join([size, *(f"{found[name]:.3f}" for name in columns)]) + " |"
        for size, found in result["sizes"].items()
    ]
    head = [
        "student",
        *(f"{name} [s]" if name.split()[-1] in ("step", "batch") and "/" not in name else name for name in columns),
    ]
    table = "\n".join(["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *rows])
    page = PAGE.read_text()
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    note = f"Medians of {result['repeats']}, {result['threads']} thread; {result['hardware']}."
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{note}\n{END}{after}")


if __name__ == "__main__":
    main()

"""How fast KD-MRI's students reconstruct a slice on a CPU beside their teachers, in PyTorch and exported to OpenVINO.

Random weights, batch 1, evaluation mode; Fourier transforms and data consistency are PyTorch's everywhere. All networks
of a group run in turn in every arithmetic, and medians are reported. Our U-Net runs beside fastMRI's of the same size
on the same slice, where that package lies; only the file of its U-Net is loaded, since the package wants others.

    python benchmarks/recon_speed.py [--repeats 15] [--threads 1] [--fastmri-unet FILE] [-o results/recon_speed.json]
"""

import argparse
import json
import platform
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from study_report import replace_marked
from training_step import medians

HERE = Path(__file__).resolve().parent
PUBLISHED = 2.0  # student over teacher on a CPU, knee: abstract of https://arxiv.org/abs/2004.05319
WAYS = ("PyTorch float32", "PyTorch bfloat16", "OpenVINO f32", "OpenVINO bf16")
FASTMRI = "U-Net of fastMRI's package"
UNET = {"channels": 32, "pools": 4}

Step = Callable[[], Any]
# group: (matrix, networks); the first one is the teacher
GROUPS: dict[str, tuple[tuple[int, int], dict[str, tuple[str, dict[str, Any]]]]] = {
    "DC-CNN, heart": (
        (150, 150),
        {
            "teacher, 5x5": ("DCCNN", {"cascades": 5, "convs": 5, "complex_data": False}),
            "student, 5x3": ("DCCNN", {"cascades": 5, "convs": 3, "complex_data": False}),
        },
    ),
    "DC-CNN, knee": (
        (640, 368),
        {
            "teacher, 5x5": ("DCCNN", {"cascades": 5, "convs": 5, "complex_data": False}),
            "student, 5x3": ("DCCNN", {"cascades": 5, "convs": 3, "complex_data": False}),
        },
    ),
    "VDSR, brain": (
        (256, 256),
        {
            "teacher, 11 layers": ("VDSR", {"layers": 11, "channels": 64}),
            "student, 7 layers": ("VDSR", {"layers": 7, "channels": 64}),
        },
    ),
    "U-Net": ((320, 320), {"our U-Net": ("UNet", UNET)}),
}


def acquired(matrix: tuple[int, int]) -> Any:  # noqa: ANN401  # an Acquisition
    """Return a slice of noise under a random mask of factor 4."""
    import torch

    from nnunet_kd.recon.physics.operators import acquire

    generator = torch.Generator().manual_seed(0)
    kspace = torch.randn(1, 1, *matrix, dtype=torch.complex64, generator=generator)
    mask = (torch.rand(1, matrix[1], generator=generator) < 0.25).float()
    mask[:, matrix[1] // 2 - 5 : matrix[1] // 2 + 5] = 1
    return acquire(kspace, mask)


def ways(network: Any, acquisition: Any, folder: Path, threads: int) -> dict[str, Step]:  # noqa: ANN401  # modules
    """Return functions that reconstruct the slice, by arithmetic; exports are checked against PyTorch first."""
    import torch

    from nnunet_kd.deployment.runtimes import computes_bf16
    from nnunet_kd.recon.deployment.parts import recorded_shapes, save_parts, use_parts

    def step(each: Any, *, bf16: bool = False) -> Step:  # noqa: ANN401
        def once() -> Any:  # noqa: ANN401
            context = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext()
            with torch.inference_mode(), context:
                return each(acquisition)

        return once

    with recorded_shapes(network) as shapes:
        expected = step(network)()
    folder.mkdir()
    save_parts(network, shapes, folder)
    found = {WAYS[0]: step(network), WAYS[1]: step(network, bf16=True)}
    for way, precision in zip(WAYS[2:], ("f32", "bf16") if computes_bf16() else ("f32",), strict=False):
        exported = use_parts(deepcopy(network), list(shapes), folder, precision=precision, threads=threads)
        found[way] = step(exported)
        difference = float((found[way]() - expected).abs().max() / expected.abs().max())
        if difference > (1e-3 if precision == "f32" else 0.1):
            raise SystemExit(f"{way} differs from PyTorch by {difference:.3g} of the largest intensity: void")
    return found


def fastmri_unet(file: Path | None) -> Any:  # noqa: ANN401  # a module, or None
    """Return fastMRI's U-Net of our U-Net's size, ``None`` where its file is not to be had."""
    import torch

    package = find_spec("fastmri") if file is None else None
    if package is not None and package.origin:
        file = Path(package.origin).parent / "models" / "unet.py"
    if file is None:
        return None
    spec = spec_from_file_location("fastmri_unet", file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"cannot load {file}")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(0)
    return module.Unet(1, 1, chans=UNET["channels"], num_pool_layers=UNET["pools"]).eval()


def fastmri_ways(network: Any, acquisition: Any) -> dict[str, Step]:  # noqa: ANN401
    """Return the same functions of fastMRI's network: magnitude, mean 0 and deviation 1, network, and back."""
    import torch

    def step(*, bf16: bool) -> Step:
        def once() -> Any:  # noqa: ANN401
            context = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else nullcontext()
            with torch.inference_mode(), context:
                image = acquisition.image.abs()[:, None]
                mean, scale = image.mean(), image.std() + 1e-11
                return network((image - mean) / scale).float() * scale + mean

        return once

    return {WAYS[0]: step(bf16=False), WAYS[1]: step(bf16=True)}


def measure(group: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Return parameters, and seconds per slice by arithmetic, of a group's networks."""
    import torch

    from nnunet_kd.recon import networks

    matrix, listed = GROUPS[group]
    acquisition = acquired(tuple(options.size) if options.size else matrix)
    nets, steps = {}, {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for number, (name, (kind, arguments)) in enumerate(listed.items()):
            torch.manual_seed(0)
            nets[name] = getattr(networks, kind)(**arguments).eval()
            steps[name] = ways(nets[name], acquisition, Path(folder) / str(number), options.threads)
        if group == "U-Net" and (theirs := fastmri_unet(options.fastmri_unet)) is not None:
            nets[FASTMRI], steps[FASTMRI] = theirs, fastmri_ways(theirs, acquisition)
        flat = {f"{name}\t{way}": step for name, found in steps.items() for way, step in found.items()}
        seconds = medians(flat, options.repeats)
    return {
        name: {"parameters": sum(weight.numel() for weight in net.parameters())}
        | {way: round(seconds[f"{name}\t{way}"], 6) for way in steps[name]}
        for name, net in nets.items()
    }


def table(groups: dict[str, dict[str, dict[str, float]]], sizes: dict[str, list[int]]) -> str:
    """Return the Markdown table: seconds per slice and, in brackets, how many times faster than its teacher."""
    lines = ["| slice | network | parameters | " + " | ".join(f"{way} [s]" for way in WAYS) + " |"]
    lines.append("|---" * (3 + len(WAYS)) + "|")
    for group, found in groups.items():
        first = next(iter(found.values()))
        place = f"{group}, {'x'.join(map(str, sizes[group]))}"
        for name, row in found.items():
            cells = [_cell(row.get(way), None if row is first else first.get(way)) for way in WAYS]
            lines.append("| " + " | ".join([place, name, f"{row['parameters']:,}", *cells]) + " |")
    return "\n".join(lines)


def _cell(seconds: float | None, teacher: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.4f}" + (f" ({teacher / seconds:.2f}x)" if teacher else "")


def main() -> None:
    """Measure, write JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--repeats", type=int, default=15)
    add("--threads", type=int, default=1)
    add("--fastmri-unet", type=Path, metavar="FILE", help="fastmri/models/unet.py, where the package is not installed")
    add("--size", type=int, nargs=2, metavar=("H", "W"), help="of every slice: for a trial, docs stay as they are")
    add("-o", type=Path, default=HERE / "results" / "recon_speed.json")
    options = parser.parse_args()
    import torch

    from nnunet_kd.hardware import describe

    torch.set_num_threads(options.threads)
    groups = {group: measure(group, options) for group in GROUPS}
    sizes = {group: options.size or list(matrix) for group, (matrix, _) in GROUPS.items()}
    result = {
        "hardware": describe(), "threads": options.threads, "torch": torch.__version__, "repeats": options.repeats,
        "python": platform.python_version(), "published ratio": PUBLISHED, "sizes": sizes, "groups": groups,
    }  # fmt: skip
    options.o.write_text(json.dumps(result, indent=1) + "\n")
    print(table(groups, sizes))
    if options.size is None:
        note = f"Medians of {options.repeats}, threads: {options.threads}; {result['hardware']}."
        replace_marked("recon speed", f"{table(groups, sizes)}\n\n{note}")


if __name__ == "__main__":
    main()

"""How fast the students of the published methods are on a CPU, as a ratio to their teacher in the same run.

Random weights, batch 1, evaluation mode, PyTorch; all networks of a group run in turn, medians are reported.

    python benchmarks/network_speed.py [--repeats 7] [--threads 1] [-o results/network_speed.json]
"""

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from study_report import replace_marked
from training_step import medians

HERE = Path(__file__).resolve().parent
# group: (shape of the input, number of outputs, networks); the first one is the teacher
GROUPS: dict[str, tuple[tuple[int, ...], int, dict[str, tuple[str, dict[str, Any]]]]] = {
    "hippocampus patch 40x56x40": (
        (1, 1, 40, 56, 40),
        3,
        {
            "nnU-Net 3-D, 32 to 256 channels": ("nnunet", {"features": (32, 64, 128, 256)}),
            "nnU-Net 3-D, 1/8 of them": ("nnunet", {"features": (4, 8, 16, 32)}),
            "ResUNet": ("ResUNet", {}),
            "2-D U-Net of Distill DSM": ("DSMUNet", {"shift": "none"}),
            "residual shift": ("DSMUNet", {"shift": "residual"}),
            "Distill DSM, alpha 1/4": ("DSMUNet", {"alpha": 0.25}),
            "Distill DSM, alpha 1/2": ("DSMUNet", {"alpha": 0.5}),
            "Distill DSM, alpha 1": ("DSMUNet", {"alpha": 1.0}),
        },
    ),
    "slice 384x384": (
        (1, 1, 384, 384),
        2,
        {
            "UNet++": ("UNetPlusPlus", {}),
            "RA-UNet": ("RAUNet", {}),
            "ResNet-18": ("ResNet18", {}),
            "MobileNetV2": ("MobileNetV2", {}),
            "ERFNet": ("ERFNet", {}),
            "ENet": ("ENet", {}),
        },
    ),
}


def build(kind: str, shape: tuple[int, ...], n_outputs: int, options: dict[str, Any]) -> Any:  # noqa: ANN401  # a module
    """Build a network in evaluation mode."""
    import torch

    from nnunet_kd import networks

    torch.manual_seed(0)
    if kind != "nnunet":
        return getattr(networks, kind)(shape[1], n_outputs, **options).eval()
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    n = len(options["features"])
    return PlainConvUNet(
        shape[1], n, options["features"], nn.Conv3d, 3, [1] + [2] * (n - 1), 2, n_outputs, 2, conv_bias=True,
        norm_op=nn.InstanceNorm3d, norm_op_kwargs={"affine": True}, nonlin=nn.LeakyReLU, deep_supervision=False,
    ).eval()  # fmt: skip


def measure(group: str, repeats: int) -> dict[str, dict[str, float]]:
    """Return parameters, multiply-accumulates, and seconds per pass in float32 and bfloat16 of a group's networks."""
    import torch

    from nnunet_kd.networks.cost import network_cost

    shape, n_outputs, listed = GROUPS[group]
    nets = {name: build(kind, shape, n_outputs, options) for name, (kind, options) in listed.items()}
    image = torch.randn(shape)

    def run(network: Any, *, bf16: bool) -> Callable[[], Any]:  # noqa: ANN401
        def once() -> None:
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                network(image)

        return once

    seconds = {
        precision: medians({name: run(net, bf16=precision == "bfloat16") for name, net in nets.items()}, repeats)
        for precision in ("float32", "bfloat16")
    }
    costs = {name: network_cost(net, shape) for name, net in nets.items()}
    return {
        name: {
            "parameters": costs[name].parameters,
            "gmac": round(costs[name].macs / 1e9, 3),
            **{precision: round(found[name], 5) for precision, found in seconds.items()},
        }
        for name in nets
    }


def table(groups: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the Markdown table; ratios are the teacher's seconds over the network's."""
    lines = ["| input | network | parameters | GMAC | float32 [s] | teacher / it | bfloat16 [s] | teacher / it |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for group, found in groups.items():
        teacher = next(iter(found.values()))
        for name, row in found.items():
            times = [
                cell
                for precision in ("float32", "bfloat16")
                for cell in (f"{row[precision]:.4f}", f"{teacher[precision] / row[precision]:.1f}")
            ]
            lines.append("| " + " | ".join([group, name, f"{row['parameters']:,}", f"{row['gmac']:g}", *times]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure, write JSON and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", type=Path, default=HERE / "results" / "network_speed.json")
    options = parser.parse_args()
    import torch

    from nnunet_kd.hardware import describe

    torch.set_num_threads(options.threads)
    groups = {group: measure(group, options.repeats) for group in GROUPS}
    result = {
        "hardware": describe(), "threads": options.threads, "torch": torch.__version__, "repeats": options.repeats,
        "python": platform.python_version(), "groups": groups,
    }  # fmt: skip
    options.o.write_text(json.dumps(result, indent=1) + "\n")
    note = f"Medians of {options.repeats}, threads: {options.threads}; {result['hardware']}."
    replace_marked("network speed", f"{table(groups)}\n\n{note}")
    print(table(groups))


if __name__ == "__main__":
    main()

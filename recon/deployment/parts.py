"""The convolutions of a network as files of OpenVINO; Fourier transforms and data consistency stay as they are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.deployment.conversion import save_openvino, to_openvino
from nnunet_kd.deployment.runtimes import Network, import_runtime, network_from_file
from nnunet_kd.recon.networks.unet_body import UNetBody

Shape = tuple[int, ...]


def part_names(network: nn.Module) -> list[str]:
    """Return the dotted names of a network's convolution stacks and U-Nets, the outermost ones.

    Each takes one array ``(B, C, H, W)`` and returns one: a cascade of DC-CNN, all layers of VDSR, a U-Net's body.

    Example:
        >>> from nnunet_kd.recon.networks import DCCNN, UNet
        >>> part_names(DCCNN(cascades=2)), part_names(UNet(channels=2))
        (['cascades.0', 'cascades.1'], ['body'])
    """
    found: list[str] = []
    for name, module in network.named_modules():
        is_inside = name.startswith(tuple(f"{outer}." for outer in found))
        if name and not is_inside and isinstance(module, nn.Sequential | UNetBody):
            found.append(name)
    return found


@contextmanager
def recorded_shapes(network: nn.Module) -> Iterator[dict[str, Shape]]:
    """Note what each part is given while the network runs inside the context.

    Yields:
        Shape ``(1, C, H, W)`` by name of the part; parts that never ran are not in it.
    """
    shapes: dict[str, Shape] = {}

    def note(name: str) -> Any:  # noqa: ANN401  # a hook
        def hook(_: nn.Module, arguments: tuple[Tensor]) -> None:
            shapes[name] = (1, *arguments[0].shape[1:])

        return hook

    hooks = [network.get_submodule(name).register_forward_pre_hook(note(name)) for name in part_names(network)]
    try:
        yield shapes
    finally:
        for hook in hooks:
            hook.remove()


def save_parts(network: nn.Module, shapes: dict[str, Shape], folder: Path) -> None:
    """Write the parts of a network, each in a folder of its name.

    Args:
        network: In evaluation mode, on the CPU.
        shapes: Of each part's input, as :func:`recorded_shapes` notes them.
        folder: Existing.

    Raises:
        UsageError: If OpenVINO is missing or cannot convert a part.
        OSError: If they cannot be written.
    """
    for name, shape in shapes.items():
        place = folder / name
        place.mkdir()
        save_openvino(to_openvino(network.get_submodule(name), shape), place)


def use_parts(
    network: nn.Module, names: Sequence[str], folder: Path, *, precision: str = "f32", threads: int | None = None
) -> nn.Module:
    """Replace parts of a network by what :func:`save_parts` wrote of them; for the CPU, without gradients.

    Args:
        network: Changed in place; the weights of its parts no longer matter.
        names: Of the parts.
        folder: Of :func:`save_parts`.
        precision: ``f32`` or ``bf16``.
        threads: Cores to use; ``None`` takes all.
    """
    for name in names:
        old = network.get_submodule(name)
        new = ExportedPart(folder / name / "model.xml", precision, threads, pools=getattr(old, "pools", None))
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, new)
    return network.eval()


class ExportedPart(nn.Module):
    """A part that OpenVINO runs; one network per size of its input is opened when the first such input comes.

    Args:
        file: OpenVINO's ``model.xml``.
        precision: ``f32`` or ``bf16``.
        threads: Cores to use; ``None`` takes all.
        pools: Of a U-Net's body, which says to what its input is padded.
    """

    def __init__(self, file: Path, precision: str, threads: int | None, pools: int | None = None) -> None:
        super().__init__()
        self.file, self.precision, self.threads, self.pools = file, precision, threads, pools
        self.opened: dict[Shape, Network] = {}

    def forward(self, channels: Tensor) -> Tensor:
        """Return what the part returns, float32, of ``(B, C, H, W)``."""
        shape = (1, *channels.shape[1:])
        if shape not in self.opened:
            self.opened[shape] = _open(self.file, shape, self.precision, self.threads)
        return torch.from_numpy(self.opened[shape](channels.detach().float().numpy()))


def _open(file: Path, shape: Shape, precision: str, threads: int | None) -> Network:
    model = import_runtime("openvino").Core().read_model(str(file))
    if tuple(model.input(0).shape) == shape:
        return network_from_file(file, "openvino", precision, threads)
    model.reshape(shape)
    # the file may stay mapped while the network lives, which some systems do not let go of
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        return network_from_file(save_openvino(model, Path(folder)), "openvino", precision, threads)

"""A trained model's network as a file for OpenVINO or ONNX Runtime: folds averaged as logits, one fixed patch shape."""

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.deployment.bundle import MODEL_FILES
from nnunet_kd.deployment.release import Release
from nnunet_kd.deployment.runtimes import import_runtime
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network
from nnunet_kd.planning.model_folder import ModelFolder

OPSET = 17  # of ONNX; known to every ONNX Runtime since 1.12


class MeanOfFolds(nn.Module):
    """The mean of several networks' logits, as nnU-Net averages folds before softmax or sigmoid.

    Args:
        networks: One per fold.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, patch: Tensor) -> Tensor:
        """Return logits ``(B, n_outputs, *patch)`` of patches ``(B, C, *patch)``."""
        first, *others = self.networks
        total: Tensor = first(patch)
        for network in others:
            total = total + network(patch)
        return total / len(self.networks) if others else total


def trained_network(model: ModelFolder, release: Release) -> nn.Module:
    """Return the network of all folds of a release, in evaluation mode and without deep supervision.

    Args:
        model: The trained model.
        release: What :func:`nnunet_kd.deployment.release.prepare_release` read and checked of it.

    Raises:
        UsageError: If the network cannot be built.
    """
    # a release's plans name no file of pretrained weights: the checkpoint has all weights
    folder = replace(model, plans=release.documents["plans.json"])
    networks = []
    for checkpoint in release.checkpoints.values():
        network = build_network(folder, deep_supervision=False)
        network.load_state_dict(checkpoint["network_weights"])
        networks.append(network)
    return MeanOfFolds(networks).eval().requires_grad_(requires_grad=False)


class StandardNorm(nn.Module):
    """Instance or group normalisation in standard operators, exact in ONNX Runtime.

    ``InstanceNormalization`` adds up all voxels of a channel in single precision there: at 128^3 logits are off by
    10^-3. Here means are taken axis by axis.

    Args:
        norm: The layer to stand in for; its weights are shared.
        n_groups: Groups of channels that are normalised together.
    """

    def __init__(self, norm: nn.Module, n_groups: int) -> None:
        super().__init__()
        self.n_groups = n_groups
        self.eps = float(norm.eps)  # type: ignore[arg-type]  # both kinds of layers have it
        self.weight, self.bias = norm.weight, norm.bias

    def forward(self, features: Tensor) -> Tensor:
        """Return a map of the same shape, ``(B, C, *spatial)``."""
        grouped = features.reshape(features.shape[0], self.n_groups, -1, *features.shape[2:])
        centred = grouped - _mean(grouped)
        normed = (centred * torch.rsqrt(_mean(centred * centred) + self.eps)).reshape(features.shape)
        per_channel = (1, -1, *[1] * (features.ndim - 2))
        if isinstance(self.weight, Tensor):
            normed = normed * self.weight.view(per_channel)
        if isinstance(self.bias, Tensor):
            normed = normed + self.bias.view(per_channel)
        return normed


def _mean(values: Tensor) -> Tensor:
    for axis in range(values.ndim - 1, 1, -1):
        values = values.mean(dim=axis, keepdim=True)
    return values


def with_standard_norms(network: nn.Module) -> nn.Module:
    """Return a copy whose instance and group normalisations are :class:`StandardNorm`; the network stays as it is."""
    copy = deepcopy(network)
    new: dict[nn.Module, nn.Module] = {}  # nnU-Net's blocks hold each layer under two names
    for parent in list(copy.modules()):
        for name, child in list(parent._modules.items()):
            if child is None or not (n_groups := _n_groups(child)):
                continue
            if child not in new:
                new[child] = StandardNorm(child, n_groups)
            setattr(parent, name, new[child])
    return copy


def _n_groups(layer: nn.Module) -> int:
    """Return the groups that a layer normalises by the patch's own statistics, 0 for other layers."""
    if isinstance(layer, nn.GroupNorm):
        return layer.num_groups
    instance = isinstance(layer, nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d)
    return int(layer.num_features) if instance and not layer.track_running_stats else 0  # type: ignore[arg-type]


def to_openvino(network: nn.Module, shape: Sequence[int]) -> Any:  # noqa: ANN401  # OpenVINO's model
    """Convert a network to OpenVINO's representation, in float32.

    Args:
        network: In evaluation mode.
        shape: ``(1, C, *patch)``.

    Returns:
        An ``openvino.Model`` from ``image`` to ``logits`` of that shape.

    Raises:
        UsageError: If OpenVINO is missing or cannot convert the network.
    """
    ov = import_runtime("openvino")
    with torch.no_grad(), _without_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what tracing says of branches on shapes; the shape is fixed
        try:
            model = ov.convert_model(network, example_input=torch.zeros(*shape), input=[tuple(shape)])
        except Exception as error:  # tracing runs the network's own code
            raise _cannot_convert("OpenVINO", error) from error
    model.input(0).get_tensor().set_names({"image"})
    model.output(0).get_tensor().set_names({"logits"})
    return model


def save_openvino(model: Any, folder: Path, *, half_weights: bool = False) -> Path:  # noqa: ANN401  # OpenVINO's model
    """Write a model's two files and return the one to open.

    Args:
        model: An ``openvino.Model``.
        folder: Existing.
        half_weights: Store float32 weights in float16, which halves the file and rounds the weights.

    Raises:
        OSError: If they cannot be written.
    """
    file = folder / MODEL_FILES["openvino"][0]
    try:
        import_runtime("openvino").save_model(model, str(file), compress_to_fp16=half_weights)
    except RuntimeError as error:  # OpenVINO has no word of its own for a full disk
        raise OSError(None, " ".join(str(error).split())[:160], str(file)) from error
    return file


def save_onnx(network: nn.Module, shape: Sequence[int], folder: Path) -> Path:
    """Write a network as one ONNX file of standard operators, without a path of this machine, and return it.

    Args:
        network: In evaluation mode.
        shape: ``(1, C, *patch)``.
        folder: Existing.

    Raises:
        UsageError: If the package ``onnx`` is missing or the network cannot be converted.
        OSError: If the file cannot be written.
    """
    file = folder / MODEL_FILES["onnx"][0]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # the newer exporter stores the source path of every operation in the file
            torch.onnx.export(
                with_standard_norms(network),
                (torch.zeros(*shape),),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=["image"],
                output_names=["logits"],
            )
        except OSError:
            raise
        except Exception as error:  # tracing runs the network's own code
            if "onnx" in str(error) and "not installed" in str(error):
                raise UsageError("onnx is not installed; type: pip install 'nnunet-kd[onnx]'") from error
            raise _cannot_convert("ONNX", error) from error
    return file


def _cannot_convert(target: str, error: Exception) -> UsageError:
    reason = " ".join(str(error).split())[:160]
    return UsageError(
        f"the network cannot be converted to {target} ({type(error).__name__}: {reason}); try the other --format, or "
        "predict with nnUNetv2_predict"
    )


@contextmanager
def _without_telemetry() -> Iterator[None]:
    """Keep OpenVINO's converter from reporting its use over the network, which it does unasked outside of CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before

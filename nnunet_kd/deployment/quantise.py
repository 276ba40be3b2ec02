"""Int8 by NNCF's post-training quantisation, calibrated on patches that hold foreground."""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.example_patches import Patch
from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require

_CONVOLUTIONS = {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData"}
Array = NDArray[np.float32]


def import_nncf() -> Any:  # noqa: ANN401  # a module
    """Import NNCF, with its reports over the network off and its log reduced to errors.

    Raises:
        UsageError: If it is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # read at import; NNCF has no other switch
    nncf = require("nncf")
    nncf.set_log_level(logging.ERROR)
    return nncf


def quantise(
    model: Any,  # noqa: ANN401  # OpenVINO's model
    calibration: Sequence[Patch],
    *,
    score: Callable[[list[Array]], float] | None = None,
    checked: Sequence[Patch] = (),
    max_drop: float | None = None,
) -> Any:  # noqa: ANN401  # OpenVINO's model
    """Return an OpenVINO model whose convolutions are int8, the first and last ones excepted.

    The convolutions that read the image and those that write the logits stay in float32: they cost little, and their
    errors reach every voxel.

    Args:
        model: With an input of batch size 1.
        calibration: Patches that ranges of activations are taken from, at least one.
        score: From the logits of ``checked`` to a mean Dice. With ``max_drop``, layers are returned to float32, those
            that matter most first, until the score has fallen by no more.
        checked: Patches that are scored.
        max_drop: Largest drop of the score.

    Raises:
        UsageError: If NNCF is missing, or there is nothing to calibrate with.
    """
    nncf = import_nncf()
    if not calibration:
        raise UsageError(
            "int8 is calibrated with real patches: name a folder of images with --cases, or set nnUNet_preprocessed to "
            "where the model's data set was preprocessed"
        )
    spared = nncf.IgnoredScope(names=sorted(border_convolutions(model)))
    data = nncf.Dataset(list(calibration), _as_input)
    settings = {"subset_size": len(calibration), "ignored_scope": spared, "preset": nncf.QuantizationPreset.MIXED}
    if max_drop is None or score is None:
        return nncf.quantize(model, data, **settings)

    def validate(compiled: Any, items: Iterable[Patch]) -> float:  # noqa: ANN401  # OpenVINO's compiled model
        return score([np.array(compiled(_as_input(patch))[0][0]) for patch in items])

    return nncf.quantize_with_accuracy_control(
        model,
        calibration_dataset=data,
        validation_dataset=nncf.Dataset(list(checked), _as_input),
        validation_fn=validate,
        max_drop=max_drop,
        **settings,
    )


def _as_input(patch: Patch) -> Array:
    return patch.image[None]


def border_convolutions(model: Any) -> set[str]:  # noqa: ANN401  # OpenVINO's model
    """Return the names of the convolutions that no other convolution lies before, or none after."""

    def sources(node: Any) -> list[Any]:  # noqa: ANN401  # OpenVINO's node
        return [node.input_value(index).get_node() for index in range(node.get_input_size())]

    def targets(node: Any) -> list[Any]:  # noqa: ANN401
        return [entry.get_node() for output in node.outputs() for entry in output.get_target_inputs()]

    found = _next_convolutions([entry.get_node() for entry in model.inputs], targets)
    return found | _next_convolutions(list(model.get_results()), sources)


def _next_convolutions(nodes: list[Any], neighbours: Callable[[Any], list[Any]]) -> set[str]:
    found, seen = set(), set()
    while nodes:
        node = nodes.pop()
        name = node.get_friendly_name()
        if name in seen:
            continue
        seen.add(name)
        if node.get_type_name() in _CONVOLUTIONS:
            found.add(name)
        else:
            nodes += neighbours(node)
    return found

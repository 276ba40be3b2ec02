"""Student architectures: pure functions from a teacher's ``architecture`` block to a smaller one."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib import import_module
from inspect import signature
from typing import Any

from nnunet_kd.errors import UsageError

MINIMUM_FEATURES = 4
# nnU-Net halves the weight of each coarser output and gives the coarsest 0, so two stages would leave no output
MINIMUM_STAGES = 3
_UNETS = "dynamic_network_architectures.architectures.unet."
_RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6)  # nnU-Net's residual encoder planners
_PER_STAGE = ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage", "n_blocks_per_stage")
_BLOCKS = ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder")
_SHARED = (
    "n_stages",
    "features_per_stage",
    "conv_op",
    "kernel_sizes",
    "strides",
    "conv_bias",
    "norm_op",
    "norm_op_kwargs",
    "dropout_op",
    "dropout_op_kwargs",
    "nonlin",
    "nonlin_kwargs",
)

Architecture = dict[str, Any]


def same(architecture: Mapping[str, Any]) -> Architecture:
    """Keep the teacher's own network class."""
    return deepcopy(dict(architecture))


def plain_unet(architecture: Mapping[str, Any]) -> Architecture:
    """Return nnU-Net's plain convolutional U-Net, two convolutions per stage, on the teacher's stages."""
    n = _n_stages(architecture)
    return _unet(
        architecture, "PlainConvUNet", {"n_conv_per_stage": [2] * n, "n_conv_per_stage_decoder": [2] * (n - 1)}
    )


def resenc_unet(architecture: Mapping[str, Any]) -> Architecture:
    """Return nnU-Net's residual encoder U-Net with its planners' blocks per stage, on the teacher's stages."""
    n = _n_stages(architecture)
    blocks = {"n_blocks_per_stage": list(_RESENC_BLOCKS[:n]), "n_conv_per_stage_decoder": [1] * (n - 1)}
    return _unet(architecture, "ResidualEncoderUNet", blocks)


NNUNETS: Mapping[str, Callable[..., Architecture]] = {
    "same": same,
    "plain_unet": plain_unet,
    "resenc_unet": resenc_unet,
}
# networks of ours: the module holds the class and ``student_block(architecture, **options)``
OWN: Mapping[str, str] = {
    "res_unet": "nnunet_kd.networks.res_unet",
    "dsm_unet": "nnunet_kd.networks.dsm_unet",
    "unet_plus_plus": "nnunet_kd.networks.unet_plus_plus",
    "ra_unet": "nnunet_kd.networks.ra_unet",
    "resnet18": "nnunet_kd.networks.resnet18",
    "mobilenetv2": "nnunet_kd.networks.mobilenetv2",
    "enet": "nnunet_kd.networks.enet",
    "erfnet": "nnunet_kd.networks.erfnet",
}
STUDENTS = (*NNUNETS, *OWN)


def block_function(student: str) -> Callable[..., Architecture]:
    """Return the function that makes a student's ``architecture`` block from its teacher's.

    Args:
        student: A name of :data:`STUDENTS`.
    """
    if student in NNUNETS:
        return NNUNETS[student]
    function: Callable[..., Architecture] = import_module(OWN[student]).student_block
    return function


def student_options(student: str) -> tuple[str, ...]:
    """Return the names of a student's own options, as ``alpha`` of ``dsm_unet``."""
    return tuple(signature(block_function(student)).parameters)[1:]


def _make(student: str, architecture: Mapping[str, Any], options: Mapping[str, Any]) -> Architecture:
    known = student_options(student)
    for name in options:
        if name not in known:
            takes = f"takes {', '.join(known)}" if known else "has no options"
            raise UsageError(f"--student {student}: unknown option '{name}'; it {takes}")
    return block_function(student)(architecture, **options)


def _unet(architecture: Mapping[str, Any], name: str, blocks: Mapping[str, Any]) -> Architecture:
    given = architecture["arch_kwargs"]
    missing = [key for key in _SHARED if key not in given]
    if missing:
        raise UsageError(
            f"--student {name}: the teacher's network {architecture['network_class_name']} has no '{missing[0]}' in "
            "its plans, so its stages cannot be taken over; give another student or teacher"
        )
    return {
        "network_class_name": _UNETS + name,
        "arch_kwargs": {**{key: deepcopy(given[key]) for key in _SHARED}, **blocks},
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def _n_stages(architecture: Mapping[str, Any]) -> int:
    kwargs = architecture["arch_kwargs"]
    if "n_stages" not in kwargs:
        raise UsageError(
            f"the teacher's network {architecture['network_class_name']} has no stages in its plans; "
            "give another teacher"
        )
    return int(kwargs["n_stages"])


def shrink(architecture: Mapping[str, Any], factor: int) -> Architecture:
    """Divide every entry of ``features_per_stage``, and ``stem_channels`` if given, by ``factor``; at least 4 each.

    Example:
        >>> block = {"network_class_name": "", "arch_kwargs": {"features_per_stage": [32, 64, 128, 256]}}
        >>> shrink(block, 8)["arch_kwargs"]["features_per_stage"]
        [4, 8, 16, 32]
    """
    smaller = deepcopy(dict(architecture))
    kwargs = smaller["arch_kwargs"]
    if factor == 1:
        return smaller
    if not isinstance(kwargs.get("features_per_stage"), list):
        raise UsageError(
            f"--shrink: the network {smaller['network_class_name']} has no list features_per_stage in its plans; "
            "take --student plain_unet or --shrink 1"
        )
    kwargs["features_per_stage"] = [max(MINIMUM_FEATURES, n // factor) for n in kwargs["features_per_stage"]]
    if isinstance(kwargs.get("stem_channels"), int):
        kwargs["stem_channels"] = max(MINIMUM_FEATURES, kwargs["stem_channels"] // factor)
    return smaller


def cut_depth(architecture: Mapping[str, Any], n_stages: int) -> Architecture:
    """Keep the first ``n_stages`` resolution stages.

    Raises:
        UsageError: If there are fewer, fewer than 3 would remain, or the network's number of stages is fixed.
    """
    if "n_stages" not in architecture["arch_kwargs"]:
        name = str(architecture["network_class_name"]).rpartition(".")[2]
        raise UsageError(f"--depth: {name} has a fixed number of stages; leave --depth out or take another --student")
    present = _n_stages(architecture)
    if not MINIMUM_STAGES <= n_stages <= present:
        raise UsageError(f"--depth: expected {MINIMUM_STAGES} to {present} (the teacher's stages), got {n_stages}")
    smaller = deepcopy(dict(architecture))
    kwargs = smaller["arch_kwargs"]
    kwargs["n_stages"] = n_stages
    for key in _PER_STAGE:
        if isinstance(kwargs.get(key), list):
            kwargs[key] = kwargs[key][:n_stages]
    if isinstance(kwargs.get("n_conv_per_stage_decoder"), list):
        # the decoder's list starts at the bottleneck; the stages that stay are the finest ones
        kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][present - n_stages :]
    return smaller


def with_fewer_blocks(architecture: Mapping[str, Any], divisor: int) -> Architecture:
    """Divide the convolutions or residual blocks of every stage by ``divisor``; at least one each remains.

    Example:
        >>> block = {"network_class_name": "", "arch_kwargs": {"n_blocks_per_stage": [1, 3, 4, 6]}}
        >>> with_fewer_blocks(block, 2)["arch_kwargs"]["n_blocks_per_stage"]
        [1, 1, 2, 3]
    """
    smaller = deepcopy(dict(architecture))
    for key in _BLOCKS:
        value = smaller["arch_kwargs"].get(key)
        if isinstance(value, list):
            smaller["arch_kwargs"][key] = [max(1, n // divisor) for n in value]
        elif isinstance(value, int):
            smaller["arch_kwargs"][key] = max(1, value // divisor)
    return smaller


def student_architecture(
    architecture: Mapping[str, Any],
    *,
    student: str,
    factor: int,
    depth: int | None,
    fewer_blocks: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Architecture:
    """Derive the student's ``architecture`` block from the teacher's.

    Args:
        architecture: The teacher's block: ``network_class_name``, ``arch_kwargs``, ``_kw_requires_import``.
        student: A name of :data:`STUDENTS`.
        factor: Divides the features, >= 1.
        depth: Number of stages to keep; ``None`` keeps all.
        fewer_blocks: Divides the convolutions or residual blocks of every stage, >= 1.
        options: The student's own, see :func:`student_options`.

    Raises:
        UsageError: If the teacher's block lacks what the student needs, or for an option it does not have.
    """
    smaller = with_fewer_blocks(shrink(_make(student, architecture, options or {}), factor), fewer_blocks)
    return smaller if depth is None else cut_depth(smaller, depth)

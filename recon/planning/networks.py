"""Networks that plans know by a short name, with their sizes as teacher and as student."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.planning.generative_block import Generative, parse_generative
from nnunet_kd.recon.planning.plans import Architecture, Configuration, build_network

SMALLEST = 4  # channels that remain


@dataclass(frozen=True, kw_only=True)
class NetworkFamily:
    """A network class and what plans make of it.

    Attributes:
        class_name: Dotted path.
        teacher: Arguments of the full size.
        student: Those that a student has instead, unless it is told others.
        published: Those that KD-MRI's preset has instead; ``None`` where it has no such network.
        task: Whose default it is.
        loss: On the true images, unless another is asked for.
        training: What its recipe has instead of the usual.
        generative: What its adversarial training has instead of the usual; ``None``: it has none.
    """

    class_name: str
    teacher: Mapping[str, Any]
    student: Mapping[str, Any]
    published: Mapping[str, Any] | None = None
    task: str | None = None
    loss: str = "l1"
    training: Mapping[str, Any] = field(default_factory=dict)
    generative: Mapping[str, Any] | None = None

    @property
    def sizes(self) -> tuple[str, ...]:
        """Arguments that set the size."""
        return tuple(key for key, value in self.teacher.items() if type(value) is int)


_AGAINST_EACH_OTHER = {"initial_lr": 2e-4, "lr_schedule": "cosine"}

NETWORKS: Mapping[str, NetworkFamily] = {
    "dc_cnn": NetworkFamily(
        class_name="nnunet_kd.recon.networks.dc_cnn.DCCNN",
        teacher={
            "cascades": 5,
            "convs": 5,
            "channels": 32,
            "complex_data": True,
            "residual": True,
            "data_consistency": "hard",
        },
        student={"convs": 3},
        published={"complex_data": False, "residual": False, "data_consistency": "real"},
        task="reconstruction",
    ),
    "vdsr": NetworkFamily(
        class_name="nnunet_kd.recon.networks.vdsr.VDSR",
        teacher={"layers": 11, "channels": 64, "complex_data": False},
        student={"layers": 7},
        published={},
        task="super_resolution",
    ),
    "unet": NetworkFamily(
        class_name="nnunet_kd.recon.networks.unet.UNet",
        teacher={"channels": 32, "pools": 4, "complex_data": False},
        student={"channels": 16},
    ),
    "varnet": NetworkFamily(
        class_name="nnunet_kd.recon.networks.varnet.VarNet",
        teacher={"cascades": 12, "channels": 18, "pools": 4},
        student={"channels": 9},
    ),
    "adaptive_cs_net": NetworkFamily(
        class_name="nnunet_kd.recon.networks.adaptive_cs_net.AdaptiveCSNet",
        teacher={"blocks": 8, "channels": 16, "scales": 3, "complex_data": True, "embed_acceleration": True},
        student={"channels": 8},
        loss="ms_ssim_l1",
    ),
    "texture_net": NetworkFamily(
        class_name="nnunet_kd.recon.networks.texture_net.TextureNet",
        teacher={
            "blocks": 8,
            "channels": 16,
            "scales": 3,
            "tokens": 32,
            "token_channels": 64,
            "texture_channels": 16,
            "modulation": "spatial",
            "attention": True,
            "null_space": True,
        },
        student={"channels": 8, "texture_channels": 8},
        loss="ms_ssim_l1",
        training=_AGAINST_EACH_OTHER,
        generative={"kl_weight": 0.0},
    ),
    "stylish": NetworkFamily(
        class_name="nnunet_kd.recon.networks.stylish.Stylish",
        teacher={"channels": 32, "pools": 4, "style_channels": 320, "encoder_channels": 32, "iterations": 2},
        student={"channels": 16},
        training=_AGAINST_EACH_OTHER,
        # as published: one sample, one verdict, one vector; the discriminator learns as fast as the generator
        generative={
            "n_samples": 1,
            "spread_weight": 0.0,
            "adversarial_weight": 0.01,
            "discriminator": {"judges": "image", "game": "logistic", "cutoff": None, "rate": 1.0},
            "proxy": {"compares": "vector", "weight": 1.0},
        },
    ),
}


@dataclass(frozen=True, kw_only=True)
class SizeRequest:
    """What was asked for of a network's size; ``None`` and empty leave the default.

    Attributes:
        network: Short name.
        sizes: Arguments by name, such as ``convs``.
        shrink: Divides the channels, >= 1; at least :data:`SMALLEST` remain.
        inherited: Arguments of a trained baseline that this network goes on from.
    """

    network: str | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    shrink: int | None = None
    inherited: Mapping[str, Any] = field(default_factory=dict)


def family_of(task: str, name: str | None) -> NetworkFamily:
    """Return the family asked for, or the task's own."""
    if name is not None:
        return NETWORKS[name]
    return next(family for family in NETWORKS.values() if family.task == task)


def teacher_architecture(task: str, request: SizeRequest, *, published: bool) -> Architecture:
    """Return a network of full size.

    Args:
        task: Of the data set.
        request: What was asked for.
        published: Whether KD-MRI's form is wanted.

    Raises:
        UsageError: For a size the network does not have, or a published form that does not exist.
    """
    family = family_of(task, request.network)
    arguments = dict(family.teacher)
    if published:
        if family.published is None:
            raise UsageError(f"--published: KD-MRI has no network '{request.network}'; leave --network out")
        arguments |= family.published
    arguments |= request.inherited
    return _resized(Architecture(network_class_name=family.class_name, arch_kwargs=arguments), family, request)


def student_architecture(teacher: Architecture, request: SizeRequest) -> Architecture:
    """Return the teacher's network made smaller: by default as published, else as asked for.

    Args:
        teacher: The teacher's.
        request: What was asked for; ``network`` names another class than the teacher's.

    Raises:
        UsageError: For a size the network does not have, or a network that is not known and no ``shrink``.
    """
    name = request.network or _short_name(teacher)
    family = NETWORKS.get(name or "")
    if family is None:
        raise UsageError(f"--network: {teacher.network_class_name} is none of {', '.join(NETWORKS)}; name one of them")
    arguments = deepcopy(dict(family.teacher))
    if family.class_name == teacher.network_class_name:
        arguments = deepcopy(dict(teacher.arch_kwargs))
    if not request.sizes and request.shrink is None:
        arguments |= family.student
    context = teacher.arch_kwargs.get("n_context")
    if context is not None:
        arguments["n_context"] = context
    return _resized(Architecture(network_class_name=family.class_name, arch_kwargs=arguments), family, request)


def planned_loss(architecture: Architecture) -> dict[str, Any]:
    """Return the loss on the true images that a network has unless another is asked for."""
    name = _short_name(architecture)
    return {"name": "l1" if name is None else NETWORKS[name].loss}


def planned_training(architecture: Architecture) -> dict[str, Any]:
    """Return what a network's recipe has instead of the usual, by name."""
    name = _short_name(architecture)
    return {} if name is None else dict(NETWORKS[name].training)


def planned_generative(architecture: Architecture, baseline: str | None) -> Generative | None:
    """Return how a generative network is trained; ``None`` for another.

    Args:
        architecture: The network.
        baseline: Of a trained one, ``MODEL_FOLDER[:FOLD]``; it is kept as it is.

    Raises:
        UsageError: If the network has no baseline to load.
    """
    name = _short_name(architecture)
    settings = None if name is None else NETWORKS[name].generative
    if baseline is not None and name != "texture_net":
        raise UsageError("--baseline: only texture_net starts from a trained one; type --network texture_net")
    if settings is None:
        return None
    chosen = {} if baseline is None else {"baseline": baseline, "freeze_baseline": True}
    return parse_generative({**settings, **chosen}, "generative")


def _short_name(architecture: Architecture) -> str | None:
    names = (name for name, family in NETWORKS.items() if family.class_name == architecture.network_class_name)
    return next(names, None)


def _resized(architecture: Architecture, family: NetworkFamily, request: SizeRequest) -> Architecture:
    arguments = dict(architecture.arch_kwargs)
    for key, value in request.sizes.items():
        if key not in family.sizes:
            raise UsageError(f"--{key}: {family.class_name} has no such size; it has: {', '.join(family.sizes)}")
        arguments[key] = value
    if request.shrink is not None:
        if request.shrink < 1:
            raise UsageError(f"--shrink: expected a whole number >= 1, got {request.shrink}")
        arguments["channels"] = max(arguments["channels"] // request.shrink, SMALLEST)
    return Architecture(network_class_name=architecture.network_class_name, arch_kwargs=arguments)


def with_context(architecture: Architecture, n_neighbours: int) -> Architecture | None:
    """Return the network with neighbouring slices as input, or ``None`` if it takes none."""
    from importlib import import_module

    module, _, name = architecture.network_class_name.rpartition(".")
    if "n_context" not in signature(getattr(import_module(module), name)).parameters:
        return None
    arguments = {**architecture.arch_kwargs, "n_context": 2 * n_neighbours}
    return Architecture(network_class_name=architecture.network_class_name, arch_kwargs=arguments)


def n_parameters(architecture: Architecture) -> int:
    """Count the parameters of a network."""
    network = build_network(Configuration(data_identifier="", batch_size=1, architecture=architecture))
    return sum(parameter.numel() for parameter in network.parameters())

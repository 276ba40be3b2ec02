"""Plans of a reconstruction data set: everything a training needs, in nnU-Net's shape.

The file lies in ``nnUNet_preprocessed/DatasetXXX_Name/`` and is copied into every model folder, so that a network can
be built again from its folder alone. The ``kd`` block is that of :mod:`nnunet_kd.planning.kd_block`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_keys, check_number, read_block, write_block
from nnunet_kd.planning.kd_block import KDSettings, read_settings
from nnunet_kd.planning.model_folder import read_json_object

if TYPE_CHECKING:
    from torch import nn

TASKS = ("reconstruction", "super_resolution")
ACQUISITIONS = ("single_coil", "multi_coil")
FOURIER = "centred, orthonormal"
SCHEMES = ("max", "percentile", "reference_max")
SCOPES = ("slice", "volume")
LOSSES = ("l1", "ssim", "l1_ssim")
OPTIMIZERS = ("Adam", "AdamW", "RMSprop", "SGD")
LR_SCHEDULES = ("step", "cosine", "poly")
SCHEDULES = ("joint", "staged")
PRECISIONS = (None, "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How the one scalar is found by which k-space, image and target of a slice are divided.

    Attributes:
        scheme: ``max`` or ``percentile`` of the zero-filled image's magnitude, which is measured data only. The
            published ``reference_max`` is the maximum of the fully sampled image, so it cannot serve on
            prospectively undersampled data; ``max`` takes its place there.
        percentile: In (0, 100], of ``percentile``.
        scope: ``slice``: each slice has its own scalar; ``volume``: the largest of its slices' for all.
    """

    scheme: str = "max"
    percentile: float = 99.9
    scope: str = "slice"

    @property
    def uses_reference(self) -> bool:
        """Whether more than the measured data decides on the scale."""
        return self.scheme == "reference_max"


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A network by name.

    Attributes:
        network_class_name: Dotted path of the class.
        arch_kwargs: Its arguments, passed as they are.
    """

    network_class_name: str
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Training:
    """The recipe.

    Attributes:
        num_epochs: Of the whole run, both stages included, >= 1: arms with the same number have the same budget.
        num_iterations_per_epoch: Steps, >= 1; ``None`` is one pass over the slices.
        optimizer: One of :data:`OPTIMIZERS`.
        initial_lr: First learning rate, > 0.
        lr_schedule: ``step`` multiplies the rate by ``lr_gamma`` every ``lr_step`` epochs; ``cosine`` and ``poly``
            (nnU-Net's) fall to 0 at the end.
        lr_step: Epochs, >= 1.
        lr_gamma: In (0, 1].
        seed: Of initialisation and sampling; ``None`` leaves them random.
        schedule: Of a student: ``joint`` adds the distillation terms to the loss from the start; ``staged`` trains on
            the feature terms only for the first half of the epochs, then on loss and outputs; optimiser and learning
            rate start anew there.
        precision: Of the convolutions on a CPU: ``float32``, ``bfloat16``, or ``None`` for bfloat16 where native.
    """

    num_epochs: int = 150
    num_iterations_per_epoch: int | None = None
    optimizer: str = "Adam"
    initial_lr: float = 1e-3
    lr_schedule: str = "step"
    lr_step: int = 40
    lr_gamma: float = 0.1
    seed: int | None = None
    schedule: str = "joint"
    precision: str | None = None

    @property
    def first_stage_epochs(self) -> int:
        """Epochs on the feature terms only: half of all when staged, else 0."""
        return self.num_epochs // 2 if self.schedule == "staged" else 0


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """One way to train on a data set.

    Attributes:
        data_identifier: Folder of the preprocessed data, beside the plans.
        batch_size: Slices per step, >= 1.
        n_neighbours: Slices on each side that the network sees too, >= 0.
        crop: ``(h, w)`` of the target's centre that is learnt and scored; ``None`` is all of it.
        architecture: The network.
        loss: ``name`` of :data:`LOSSES` and its settings.
        metrics: Names of what validation computes, the first chooses the best checkpoint.
        training: The recipe.
    """

    data_identifier: str
    batch_size: int
    architecture: Architecture
    n_neighbours: int = 0
    crop: tuple[int, int] | None = None
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "l1"})
    metrics: tuple[str, ...] = ("psnr", "ssim", "nmse")
    training: Training = field(default_factory=Training)


@dataclass(frozen=True, kw_only=True)
class ReconPlans:
    """The content of a plans file.

    Attributes:
        dataset_name: ``DatasetXXX_Name``.
        plans_name: Name of the file without its ending; ends in ``Plans``.
        task: One of :data:`TASKS`.
        acquisition: One of :data:`ACQUISITIONS`.
        kspace: Where the k-space comes from, for reports: ``measured``, or ``retrospective, ...``.
        fourier: The transform's convention; one exists.
        n_coils: Coils of every case; 1 for a single coil.
        matrix: Largest k-space matrix ``(H, W)`` of the data set; cases may be smaller.
        sampling: Settings of the masks, ``None`` for super-resolution.
        truncation: ``{"factor": [fy, fx]}``, ``None`` for reconstruction.
        normalisation: The scalar of each slice.
        configurations: By name, ``2d`` and ``2d_neighbours``.
        kd: The ``kd`` block as it stands in the file; ``None`` without one.
    """

    dataset_name: str
    plans_name: str
    task: str
    acquisition: str
    configurations: Mapping[str, Configuration]
    kspace: str = "measured"
    fourier: str = FOURIER
    n_coils: int = 1
    matrix: tuple[int, int] = (0, 0)
    sampling: Mapping[str, Any] | None = None
    truncation: Mapping[str, Any] | None = None
    normalisation: Normalisation = field(default_factory=Normalisation)
    kd: Mapping[str, Any] | None = None

    def configuration(self, name: str) -> Configuration:
        """Return a configuration.

        Raises:
            UsageError: If the plans have none of that name.
        """
        if name not in self.configurations:
            known = ", ".join(self.configurations)
            raise UsageError(f"plans '{self.plans_name}' have no configuration '{name}'; they have: {known}")
        return self.configurations[name]

    def distillation(self, name: str) -> KDSettings | None:
        """Return the distillation of a configuration, ``None`` where the plans have no ``kd`` block.

        Raises:
            UsageError: As :func:`nnunet_kd.planning.kd_block.read_settings`.
        """
        if self.kd is None:
            return None
        return read_settings({"kd": self.kd, "plans_name": self.plans_name, "dataset_name": self.dataset_name}, name)

    def to_json(self) -> dict[str, Any]:
        """Return the object that :func:`parse_plans` reads back unchanged."""
        data: dict[str, Any] = write_block(self)
        return {key: value for key, value in data.items() if value is not None}


def read_plans(path: Path) -> ReconPlans:
    """Read and check a plans file.

    Raises:
        UsageError: If it is missing or damaged, has an unknown key or a value out of range; names file and key.
    """
    return parse_plans(read_json_object(path), str(path))


def parse_plans(data: Mapping[str, Any], where: str) -> ReconPlans:
    """Turn the JSON object of a plans file into checked plans.

    Args:
        data: The object.
        where: How to name it in messages.

    Raises:
        UsageError: Names the place, what was expected and what came.
    """
    check_keys(data, ReconPlans.__dataclass_fields__, where)
    configurations = data.get("configurations")
    if not isinstance(configurations, Mapping) or not configurations:
        raise UsageError(f"{where}, configurations: expected an object with at least one, got {configurations!r:.80}")
    plans = read_block(
        ReconPlans,
        data,
        where,
        normalisation=_parse_normalisation(data.get("normalisation", {}), f"{where}, normalisation"),
        matrix=_parse_size(data.get("matrix", (0, 0)), f"{where}, matrix", at_least=0),
        configurations={
            name: _parse_configuration(block, f"{where}, configurations, {name}")
            for name, block in configurations.items()
        },
    )
    _check_plans(plans, where)
    return plans


def _check_plans(plans: ReconPlans, where: str) -> None:
    check_choice(plans.task, TASKS, f"{where}, task")
    check_choice(plans.acquisition, ACQUISITIONS, f"{where}, acquisition")
    check_choice(plans.fourier, (FOURIER,), f"{where}, fourier")
    check_number(plans.n_coils, f"{where}, n_coils", at_least=1, whole=True)
    for key in ("dataset_name", "plans_name", "kspace"):
        if not isinstance(getattr(plans, key), str):
            raise UsageError(f"{where}, {key}: expected a text, got {getattr(plans, key)!r:.80}")
    needed = "sampling" if plans.task == "reconstruction" else "truncation"
    if not isinstance(getattr(plans, needed), Mapping):
        raise UsageError(f"{where}: {plans.task} needs an object '{needed}', got {getattr(plans, needed)!r:.80}")


def _parse_normalisation(data: Mapping[str, Any], where: str) -> Normalisation:
    normalisation = read_block(Normalisation, data, where)
    check_choice(normalisation.scheme, SCHEMES, f"{where}, scheme")
    check_choice(normalisation.scope, SCOPES, f"{where}, scope")
    check_number(normalisation.percentile, f"{where}, percentile", above=0, at_most=100)
    return normalisation


def _parse_configuration(data: Mapping[str, Any], where: str) -> Configuration:
    check_keys(data, Configuration.__dataclass_fields__, where)
    crop = data.get("crop")
    configuration = read_block(
        Configuration,
        data,
        where,
        architecture=_parse_architecture(data.get("architecture", {}), f"{where}, architecture"),
        crop=None if crop is None else _parse_size(crop, f"{where}, crop"),
        metrics=tuple(data.get("metrics", Configuration.metrics)),
        training=_parse_training(data.get("training", {}), f"{where}, training"),
    )
    check_number(configuration.batch_size, f"{where}, batch_size", at_least=1, whole=True)
    check_number(configuration.n_neighbours, f"{where}, n_neighbours", at_least=0, whole=True)
    if not isinstance(configuration.loss, Mapping):
        raise UsageError(f"{where}, loss: expected an object with a 'name', got {configuration.loss!r:.80}")
    check_choice(configuration.loss.get("name"), LOSSES, f"{where}, loss, name")
    return configuration


def _parse_architecture(data: Mapping[str, Any], where: str) -> Architecture:
    architecture = read_block(Architecture, data, where)
    if not isinstance(architecture.network_class_name, str) or "." not in architecture.network_class_name:
        raise UsageError(f"{where}, network_class_name: expected module.Class, got {architecture.network_class_name!r}")
    if not isinstance(architecture.arch_kwargs, Mapping):
        raise UsageError(f"{where}, arch_kwargs: expected an object, got {type(architecture.arch_kwargs).__name__}")
    return architecture


def _parse_training(data: Mapping[str, Any], where: str) -> Training:
    training = read_block(Training, data, where)
    check_number(training.num_epochs, f"{where}, num_epochs", at_least=1, whole=True)
    check_number(training.lr_step, f"{where}, lr_step", at_least=1, whole=True)
    check_number(training.initial_lr, f"{where}, initial_lr", above=0, at_most=10)
    check_number(training.lr_gamma, f"{where}, lr_gamma", above=0, at_most=1)
    if training.num_iterations_per_epoch is not None:
        check_number(training.num_iterations_per_epoch, f"{where}, num_iterations_per_epoch", at_least=1, whole=True)
    if training.seed is not None:
        check_number(training.seed, f"{where}, seed", at_least=0, at_most=2**32 - 1, whole=True)
    check_choice(training.optimizer, OPTIMIZERS, f"{where}, optimizer")
    check_choice(training.lr_schedule, LR_SCHEDULES, f"{where}, lr_schedule")
    check_choice(training.schedule, SCHEDULES, f"{where}, schedule")
    check_choice(training.precision, PRECISIONS, f"{where}, precision")
    return training


def _parse_size(data: Any, where: str, at_least: int = 1) -> tuple[int, int]:  # noqa: ANN401  # any JSON value
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise UsageError(f"{where}: expected [height, width], got {data!r:.80}")
    for size in data:
        check_number(size, where, at_least=at_least, whole=True)
    return (data[0], data[1])


def build_network(configuration: Configuration) -> "nn.Module":
    """Build a configuration's network with fresh weights.

    Raises:
        UsageError: If its class cannot be imported, is no network, or does not take the arguments.
    """
    from torch import nn

    architecture = configuration.architecture
    module_name, _, class_name = architecture.network_class_name.rpartition(".")
    try:
        network_class = getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"cannot find the network {architecture.network_class_name}: {error}") from None
    if not isinstance(network_class, type) or not issubclass(network_class, nn.Module):
        raise UsageError(f"expected {architecture.network_class_name} to be a torch.nn.Module, it is none")
    try:
        network: nn.Module = network_class(**architecture.arch_kwargs)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{architecture.network_class_name}: {error}; see arch_kwargs in the plans") from None
    return network

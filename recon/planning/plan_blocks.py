"""The blocks of which reconstruction plans consist, read from JSON and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_keys, check_number, read_block
from nnunet_kd.recon.planning.generative_block import Generative, parse_generative

SCHEMES = ("max", "percentile", "reference_max")
SCOPES = ("slice", "volume")
OPTIMIZERS = ("Adam", "AdamW", "RMSprop", "SGD")
LR_SCHEDULES = ("step", "cosine", "poly")
SCHEDULES = ("joint", "staged")
PRECISIONS = (None, "float32", "bfloat16")
MAXIMUM_SEED = 2**32 - 1


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
        loss: ``name`` of :data:`nnunet_kd.recon.training.supervision.SUPERVISIONS` and its settings.
        metrics: Names of what validation computes, the first chooses the best checkpoint.
        training: The recipe.
        student_branches: The student for whom this network is a student-friendly teacher: during training the
            student's cascades branch off from it. ``None`` for every other network.
        generative: How a generative network is trained; ``None`` for every other.
    """

    data_identifier: str
    batch_size: int
    architecture: Architecture
    n_neighbours: int = 0
    crop: tuple[int, int] | None = None
    loss: Mapping[str, Any] = field(default_factory=lambda: {"name": "l1"})
    metrics: tuple[str, ...] = ("psnr", "ssim", "nmse")
    training: Training = field(default_factory=Training)
    student_branches: Architecture | None = None
    generative: Generative | None = None


def parse_normalisation(data: Mapping[str, Any], where: str) -> Normalisation:
    """Read and check the block ``normalisation``."""
    normalisation = read_block(Normalisation, data, where)
    check_choice(normalisation.scheme, SCHEMES, f"{where}, scheme")
    check_choice(normalisation.scope, SCOPES, f"{where}, scope")
    check_number(normalisation.percentile, f"{where}, percentile", above=0, at_most=100)
    return normalisation


def parse_configuration(data: Mapping[str, Any], where: str) -> Configuration:
    """Read and check one configuration.

    Raises:
        UsageError: For an unknown key or a value out of range; names the place.
    """
    check_keys(data, Configuration.__dataclass_fields__, where)
    # imported here: the losses need torch, reading a block's shape does not
    from nnunet_kd.recon.training.supervision import build_supervision

    crop, branches, generative = data.get("crop"), data.get("student_branches"), data.get("generative")
    configuration = read_block(
        Configuration,
        data,
        where,
        architecture=_parse_architecture(data.get("architecture", {}), f"{where}, architecture"),
        crop=None if crop is None else parse_size(crop, f"{where}, crop"),
        metrics=_parse_metrics(data.get("metrics", Configuration.metrics), f"{where}, metrics"),
        training=_parse_training(data.get("training", {}), f"{where}, training"),
        student_branches=None if branches is None else _parse_architecture(branches, f"{where}, student_branches"),
        generative=None if generative is None else parse_generative(generative, f"{where}, generative"),
    )
    check_name(configuration.data_identifier, f"{where}, data_identifier")
    check_number(configuration.batch_size, f"{where}, batch_size", at_least=1, whole=True)
    check_number(configuration.n_neighbours, f"{where}, n_neighbours", at_least=0, whole=True)
    if not isinstance(configuration.loss, Mapping):
        raise UsageError(f"{where}, loss: expected an object with a 'name', got {configuration.loss!r:.80}")
    build_supervision(configuration.loss, f"{where}, loss")
    return configuration


def check_name(value: Any, where: str) -> None:  # noqa: ANN401  # any JSON value
    """Refuse what names no single file or folder: it would be read or written elsewhere."""
    if not isinstance(value, str) or value in ("", ".", "..") or any(mark in value for mark in "/\\\0"):
        raise UsageError(f"{where}: expected a name without slashes, got {value!r:.80}")


def _parse_metrics(data: Any, where: str) -> tuple[str, ...]:  # noqa: ANN401  # any JSON value
    if not isinstance(data, list | tuple) or not data or not all(isinstance(name, str) for name in data):
        raise UsageError(f"{where}: expected a list of names, the first for the best checkpoint, got {data!r:.80}")
    return tuple(data)


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
        check_number(training.seed, f"{where}, seed", at_least=0, at_most=MAXIMUM_SEED, whole=True)
    check_choice(training.optimizer, OPTIMIZERS, f"{where}, optimizer")
    check_choice(training.lr_schedule, LR_SCHEDULES, f"{where}, lr_schedule")
    check_choice(training.schedule, SCHEDULES, f"{where}, schedule")
    check_choice(training.precision, PRECISIONS, f"{where}, precision")
    return training


def parse_size(data: Any, where: str) -> tuple[int, int]:  # noqa: ANN401  # any JSON value
    """Read ``[height, width]``, both >= 1."""
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise UsageError(f"{where}: expected [height, width], got {data!r:.80}")
    for size in data:
        check_number(size, where, at_least=1, whole=True)
    return (data[0], data[1])

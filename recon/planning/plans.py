"""Plans of a reconstruction data set: everything a training needs, in nnU-Net's shape.

The file lies in ``nnUNet_preprocessed/DatasetXXX_Name/`` and is copied into every model folder, so that a network can
be built again from its folder alone. The ``kd`` block is that of :mod:`nnunet_kd.planning.kd_block`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice, check_keys, check_number, read_block, write_block
from nnunet_kd.planning.kd_block import KDSettings, read_settings
from nnunet_kd.planning.model_folder import read_json_object
from nnunet_kd.recon.planning.plan_blocks import (
    Architecture,
    Configuration,
    Normalisation,
    Training,
    check_name,
    parse_configuration,
    parse_normalisation,
    parse_size,
)

if TYPE_CHECKING:
    from torch import nn

TASKS = ("reconstruction", "super_resolution")
ACQUISITIONS = ("single_coil", "multi_coil")
FOURIER = "centred, orthonormal"

__all__ = [
    "ACQUISITIONS",
    "FOURIER",
    "TASKS",
    "Architecture",
    "Configuration",
    "Normalisation",
    "ReconPlans",
    "Training",
    "build_network",
    "parse_plans",
    "read_plans",
]


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
        coils: Every number of coils that the data set's cases have; ``(1,)`` for a single coil.
        matrices: Every k-space matrix ``(H, W)`` that they have.
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
    coils: tuple[int, ...] = (1,)
    matrices: tuple[tuple[int, int], ...] = ()
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
        normalisation=parse_normalisation(data.get("normalisation", {}), f"{where}, normalisation"),
        coils=tuple(_items(data, "coils", where, default=(1,))),
        matrices=tuple(parse_size(size, f"{where}, matrices") for size in _items(data, "matrices", where)),
        configurations={
            name: parse_configuration(block, f"{where}, configurations, {name}")
            for name, block in configurations.items()
        },
    )
    _check_plans(plans, where)
    return plans


def _items(data: Mapping[str, Any], key: str, where: str, default: Sequence[Any] = ()) -> Sequence[Any]:
    items = data.get(key, default)
    if not isinstance(items, list | tuple):
        raise UsageError(f"{where}, {key}: expected a list, got {type(items).__name__}")
    return items


def _check_plans(plans: ReconPlans, where: str) -> None:
    check_choice(plans.task, TASKS, f"{where}, task")
    check_choice(plans.acquisition, ACQUISITIONS, f"{where}, acquisition")
    check_choice(plans.fourier, (FOURIER,), f"{where}, fourier")
    for n_coils in plans.coils:
        check_number(n_coils, f"{where}, coils", at_least=1, whole=True)
    for key in ("dataset_name", "plans_name"):
        check_name(getattr(plans, key), f"{where}, {key}")
    if not isinstance(plans.kspace, str):
        raise UsageError(f"{where}, kspace: expected a text, got {plans.kspace!r:.80}")
    needed = "sampling" if plans.task == "reconstruction" else "truncation"
    if not isinstance(getattr(plans, needed), Mapping):
        raise UsageError(f"{where}: {plans.task} needs an object '{needed}', got {getattr(plans, needed)!r:.80}")


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
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UsageError(f"cannot find the network {architecture.network_class_name}: {error}") from None
    if not isinstance(network_class, type) or not issubclass(network_class, nn.Module):
        raise UsageError(f"expected {architecture.network_class_name} to be a torch.nn.Module, it is none")
    try:
        network: nn.Module = network_class(**architecture.arch_kwargs)
    except (TypeError, ValueError, RuntimeError, OverflowError, MemoryError) as error:  # sizes beyond the memory, too
        reason = " ".join(str(error).split())
        raise UsageError(f"{architecture.network_class_name}: {reason:.200}; see arch_kwargs in the plans") from None
    return network

"""From a fingerprint to plans: networks, batch size, masks, recipe."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.data.dataset import RawDataset
from nnunet_kd.recon.planning.memory import kept_bytes_per_pixel, planned_batch_size
from nnunet_kd.recon.planning.networks import (
    SizeRequest,
    planned_generative,
    planned_loss,
    planned_training,
    teacher_architecture,
    with_context,
)
from nnunet_kd.recon.planning.plans import (
    Architecture,
    Configuration,
    Normalisation,
    ReconPlans,
    Training,
    build_network,
    parse_plans,
)
from nnunet_kd.recon.planning.sampling import FIXED, planned_sampling

SHARED_PLANS = "nnUNetReconPlans"
METRICS = ("psnr", "ssim", "nmse")
NEIGHBOURS = 1  # on each side, in 2d_neighbours
GPU_MEMORY = 8.0  # [GB], nnU-Net's own budget


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """What was asked for; ``None`` and empty leave the planner's choice.

    Attributes:
        plans_name: Name of the plans.
        size: Of the network.
        published: Whether to plan KD-MRI's setting to the letter.
        sampling: Settings of masks that replace those of ``dataset.json``.
        training: Settings of the recipe, by name.
        loss: ``name`` and settings.
        normalisation: Settings, by name.
        batch_size: Slices per step.
        gpu_memory: Budget [GB].
        baseline: Of a generative network, ``MODEL_FOLDER[:FOLD]``.
        only: Name of the one configuration to plan; ``None`` plans all.
    """

    plans_name: str
    size: SizeRequest = field(default_factory=SizeRequest)
    published: bool = False
    sampling: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] | None = None
    normalisation: Mapping[str, Any] = field(default_factory=dict)
    batch_size: int | None = None
    gpu_memory: float = GPU_MEMORY
    baseline: str | None = None
    only: str | None = None


# KD-MRI as its released code trains, see docs/reference/recon-plans.md
PUBLISHED_SEED = 42
PUBLISHED_BATCH = 4
PUBLISHED_TRAINING = Training(
    num_epochs=150, optimizer="Adam", initial_lr=1e-3, lr_schedule="step", lr_step=40, lr_gamma=0.1, seed=PUBLISHED_SEED
)
PUBLISHED_NORMALISATION = Normalisation(scheme="reference_max")
PUBLISHED_MASK = "variable_density"
PUBLISHED_METRICS = ("mse", "psnr", "ssim", "nmse", "hfn")


def default_plans_name(*, published: bool, seed: int | None) -> str:
    """Name the plans of a teacher or of any network that learns from none.

    Example:
        >>> default_plans_name(published=False, seed=None), default_plans_name(published=True, seed=1)
        ('nnUNetReconPlans', 'nnUNetReconPublishedS1Plans')
    """
    return f"nnUNetRecon{'Published' if published else ''}{'' if seed is None else f'S{seed}'}Plans"


def check_plans_name(name: str) -> None:
    """Refuse names from which a results folder could not be split again.

    Raises:
        UsageError: If the name holds ``__`` or signs that files do not take everywhere, or does not end in ``Plans``.
    """
    if "__" in name or not re.fullmatch(r"[\w.+-]*Plans", name):
        raise UsageError(
            "-p: expected a name of letters, digits and _.+- that ends in 'Plans' without '__' and '/', "
            f"got '{name}'; e.g. nnUNetReconPlans"
        )


def plan(dataset: RawDataset, fingerprint: Mapping[str, Any], request: PlanRequest) -> ReconPlans:
    """Plan every configuration of a data set.

    Args:
        dataset: The raw data set.
        fingerprint: Its facts.
        request: What was asked for.

    Raises:
        UsageError: If the data set and what was asked for do not go together.
    """
    settings = dataset.settings
    if request.published and settings["acquisition"] != "single_coil":
        raise UsageError("--published: KD-MRI takes single-coil data, this data set has several coils; leave it out")
    plans = ReconPlans(
        dataset_name=dataset.name,
        plans_name=request.plans_name,
        task=settings["task"],
        acquisition=settings["acquisition"],
        kspace=settings["kspace"],
        coils=tuple(fingerprint["coils"]),
        matrices=tuple((h, w) for h, w in fingerprint["matrices"]),
        sampling=planned_masks(settings, request) if settings["task"] == "reconstruction" else None,
        truncation=settings["truncation"] if settings["task"] == "super_resolution" else None,
        normalisation=planned_normalisation(request),
        configurations=planned_configurations(settings, fingerprint, request),
    )
    return parse_plans(plans.to_json(), "plan")  # the same checks as when training reads them


def planned_masks(settings: Mapping[str, Any], request: PlanRequest) -> dict[str, Any]:
    """Return the block ``sampling``: that of ``dataset.json``, what was asked for, KD-MRI's fixed mask."""
    block = {**settings["sampling"], **request.sampling}
    if request.published and block.get("mask") != "file":
        accelerations = {"acceleration": block["acceleration"]} if "acceleration" in block else {}
        block = {"mask": PUBLISHED_MASK, "axis": block.get("axis", "rows"), **accelerations}
    if request.published:
        block[FIXED] = PUBLISHED_SEED
    return planned_sampling(block, "sampling (dataset.json and options)").to_json()


def planned_normalisation(request: PlanRequest) -> Normalisation:
    """Return how scales are found."""
    base = PUBLISHED_NORMALISATION if request.published else Normalisation()
    return Normalisation(**{**vars(base), **request.normalisation})


def planned_configurations(
    settings: Mapping[str, Any], fingerprint: Mapping[str, Any], request: PlanRequest
) -> dict[str, Configuration]:
    """Return ``2d`` and, where the network takes neighbours and the preset allows it, ``2d_neighbours``."""
    architecture = teacher_architecture(settings["task"], request.size, published=request.published)
    # single slices of one coil are stored whole, whatever is done with them: all plans share them
    shared = settings["acquisition"] == "single_coil" and planned_normalisation(request).scope == "slice"
    folder = f"{SHARED_PLANS if shared else request.plans_name}_2d"
    configurations = {}
    if request.only != "2d_neighbours":
        configurations["2d"] = planned_configuration(architecture, fingerprint, request, folder)
    neighbours = with_context(architecture, NEIGHBOURS)
    if neighbours is not None and not request.published and request.only != "2d":
        configurations["2d_neighbours"] = planned_configuration(neighbours, fingerprint, request, folder, NEIGHBOURS)
    return configurations


def planned_configuration(
    architecture: Architecture,
    fingerprint: Mapping[str, Any],
    request: PlanRequest,
    data_identifier: str,
    n_neighbours: int = 0,
) -> Configuration:
    """Return one configuration."""
    base = PUBLISHED_TRAINING if request.published else Training()
    configuration = Configuration(
        data_identifier=data_identifier,
        batch_size=PUBLISHED_BATCH if request.published else 1,
        architecture=architecture,
        n_neighbours=n_neighbours,
        crop=planned_crop(fingerprint),
        loss=request.loss or planned_loss(architecture),
        metrics=PUBLISHED_METRICS if request.published else METRICS,
        training=Training(**{**vars(base), **planned_training(architecture), **request.training}),
        generative=planned_generative(architecture, request.baseline),
    )
    if request.batch_size is None and request.published:
        return configuration
    size = request.batch_size or suitable_batch_size(configuration, fingerprint, request.gpu_memory)
    return Configuration(**{**vars(configuration), "batch_size": size})


def planned_crop(fingerprint: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the targets' common size if they are cut out of the matrix, as fastMRI's 320 x 320 are."""
    shapes = fingerprint["target_shapes"]
    if len(shapes) != 1 or shapes == fingerprint["matrices"]:
        return None
    return (shapes[0][0], shapes[0][1])


def suitable_batch_size(configuration: Configuration, fingerprint: Mapping[str, Any], gpu_memory: float) -> int:
    """Return the batch size for a memory budget, see :mod:`nnunet_kd.recon.planning.memory`.

    Args:
        configuration: Network and neighbours.
        fingerprint: Of the data set.
        gpu_memory: Budget [GB], > 0.

    Raises:
        UsageError: If the budget is none.
    """
    if not 0 < gpu_memory < float("inf"):
        raise UsageError(f"--gpu-memory: expected GB > 0, got {gpu_memory}")
    if configuration.generative is not None:  # every sample is kept, and what the discriminator sees of it
        gpu_memory /= 1 + configuration.generative.n_samples
    kept = kept_bytes_per_pixel(build_network(configuration), max(fingerprint["coils"]), 2 * configuration.n_neighbours)
    return planned_batch_size(kept, fingerprint["matrices"], fingerprint["n_slices"], gpu_memory)


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace plans unasked.

    Raises:
        UsageError: If there are plans of that name.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists; type --overwrite to plan anew, or choose another name with -p")


def write_plans(plans: ReconPlans, folder: Path) -> Path:
    """Write ``<plans_name>.json`` into ``nnUNet_preprocessed/DatasetXXX_Name``."""
    path = folder / f"{plans.plans_name}.json"
    write_json_atomically(plans.to_json(), path)
    return path

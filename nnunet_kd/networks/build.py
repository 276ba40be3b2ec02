"""Build the network of a model folder as nnU-Net's predictor does: through its trainer's static method."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder


def find_trainer(name: str) -> type:
    """Return a trainer class by its name, searched as nnU-Net searches.

    Raises:
        UsageError: If there is none, or if a file that nnU-Net searches for it cannot be imported.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        trainer: type = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise UsageError(
            f"nnU-Net does not find the trainer {name}; install the package it is from, "
            "or set nnUNet_extTrainer to its folder"
        ) from error
    except Exception as error:  # nnU-Net imports every file of those folders
        raise UsageError(
            f"nnU-Net cannot search for the trainer {name}: {type(error).__name__}: {error}; type: nnunet_kd doctor"
        ) from error
    return trainer


def has_trained_deep_supervision(trainer: type) -> bool:
    """Return whether a trainer trains the coarser outputs. Its variants without say so in their names only."""
    return not any("NoDeepSupervision" in parent.__name__ for parent in trainer.__mro__)


def n_channels(folder: ModelFolder) -> tuple[int, int]:
    """Return the numbers of input channels (a cascade's previous stage included) and of outputs."""
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(folder.plans)
    configuration = plans.get_configuration(folder.configuration)
    n_inputs = determine_num_input_channels(plans, configuration, folder.dataset_json)
    return int(n_inputs), int(plans.get_label_manager(folder.dataset_json).num_segmentation_heads)


def build_network(folder: ModelFolder, *, trainer: str | None = None, deep_supervision: bool) -> nn.Module:
    """Build an untrained network; the global random state is left as it was.

    Args:
        folder: A model folder.
        trainer: Trainer class name; ``None`` takes the folder's.
        deep_supervision: Whether the network returns all its outputs. It does not where the
            trainer never trained the coarser ones.

    Raises:
        UsageError: If the trainer or the network class is not installed, or the plans do not suit the class.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    trainer_class = find_trainer(trainer or folder.trainer)
    plans = PlansManager(folder.plans)
    configuration = plans.get_configuration(folder.configuration)
    build: Callable[..., nn.Module] = trainer_class.build_network_architecture  # type: ignore[attr-defined]
    described: tuple[Any, ...] = (plans, configuration)
    if "plans_manager" not in inspect.signature(build).parameters:  # trainers written before nnU-Net 2.7
        described = (
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
        )
    deep_supervision = deep_supervision and has_trained_deep_supervision(trainer_class)
    with torch.random.fork_rng(devices=[]):
        try:
            return build(*described, *n_channels(folder), deep_supervision)
        except ImportError as error:
            raise UsageError(f"the network of {folder.path} cannot be built here: {error}; install it") from error
        except Exception as error:  # the network's own code meets what the plans say
            raise UsageError(
                f"the network of {folder.path} cannot be built from its plans: {type(error).__name__}: {error!s:.200}; "
                "plan or copy it again"
            ) from error

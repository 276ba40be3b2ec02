"""From a model folder, or from plans alone, to a predictor."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import sample_settings
from nnunet_kd.recon.deployment.bundle import bundle_network, is_recon_bundle, open_recon_bundle
from nnunet_kd.recon.inference.predictor import Predictor
from nnunet_kd.recon.inference.samples import SampleRequest, check_samples
from nnunet_kd.recon.planning.plans import Configuration, ReconPlans

if TYPE_CHECKING:
    from nnunet_kd.recon.data.measuring import SampleSettings


def choose_device(name: str) -> torch.device:
    """Return a device.

    Raises:
        UsageError: If this machine has none of that name.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name, False):
        raise UsageError(f"expected a device of this machine for -device, '{name}' is none; type: -device cpu")
    return torch.device(name)


def open_predictor(
    model_folder: Path | str,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cpu",
    sampling: dict[str, Any] | None = None,
    precision: str = "float32",
    batch_size: int | None = None,
    samples: SampleRequest | None = None,
) -> Predictor:
    """Load the networks of a model folder, or of a bundle, which fixes fold, device and precision.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``, or what ``nnunet_kd recon export`` wrote.
        folds: ``None`` takes all that were trained.
        checkpoint: File in each fold.
        device: ``cpu``, ``cuda`` or ``mps``.
        sampling: What replaces settings of the plans' masks.
        precision: ``float32`` or ``bfloat16``, of the convolutions.
        batch_size: ``None`` takes the plans'.
        samples: Of generative networks; ``None``: the mean of a few, from seed 0 on.

    Raises:
        UsageError: If folder, folds or checkpoint are missing or damaged, or the settings mean nothing.
    """
    from nnunet_kd.recon.training.models import load_network, open_recon_model

    if is_recon_bundle(Path(model_folder)):
        check_samples(samples, [])
        _check_bundle_options(Path(model_folder), folds, device, precision)
        return _bundle_predictor(Path(model_folder), sampling or {}, batch_size)
    model = open_recon_model(model_folder)
    chosen = folds or model.folds
    if not chosen:
        raise UsageError(f"expected a trained fold in {model.path}, found none; train with: nnunet_kd recon train")
    place = choose_device(device)
    networks = [load_network(model.path, fold, checkpoint)[0].to(place) for fold in chosen]
    check_samples(samples, networks)
    wanted = {} if samples is None else samples.settings()
    return Predictor(
        settings=changed_settings(model.plans, model.configuration, sampling or {}),
        networks=networks,
        coils=model.plans.coils if model.plans.acquisition == "single_coil" else (),
        batch_size=batch_size or model.configuration.batch_size,
        device=place,
        precision=precision,
        **wanted,
    )


def _check_bundle_options(path: Path, folds: Sequence[int | str] | None, device: str, precision: str) -> None:
    wrong = [("-f", folds is not None), ("-device", device != "cpu"), ("--precision", precision != "float32")]
    for option, is_given in wrong:
        if is_given:
            raise UsageError(
                f"{path} is an exported bundle, whose fold, device (cpu) and precision are fixed; leave {option} out"
            )


def _bundle_predictor(path: Path, sampling: dict[str, Any], batch_size: int | None) -> Predictor:
    bundle = open_recon_bundle(path)
    configuration = bundle.plans.configuration(bundle.configuration)
    return Predictor(
        settings=changed_settings(bundle.plans, configuration, sampling),
        networks=[bundle_network(bundle, torch.get_num_threads())],
        coils=bundle.plans.coils if bundle.plans.acquisition == "single_coil" else (),
        batch_size=batch_size or configuration.batch_size,
    )


def zero_filling(plans: ReconPlans, configuration: Configuration, sampling: dict[str, Any] | None = None) -> Predictor:
    """Return the predictor without a network: the zero-filled image, the baseline of every comparison."""
    return Predictor(settings=changed_settings(plans, configuration, sampling or {}))


def changed_settings(plans: ReconPlans, configuration: Configuration, sampling: dict[str, Any]) -> "SampleSettings":
    """Return the settings of samples with other masks than the plans'.

    Raises:
        UsageError: If there are no masks to change, or the new settings mean nothing.
    """
    if not sampling:
        return sample_settings(plans, configuration)
    if plans.sampling is None:
        raise UsageError("plans for super-resolution have no masks; leave --mask, --acceleration and the like out")
    block = dict(plans.sampling)
    if "acceleration" in sampling:
        block.pop("center_fraction", None)  # it belongs to another acceleration
    return sample_settings(replace(plans, sampling={**block, **sampling}), configuration)

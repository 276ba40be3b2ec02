"""The trained baseline that a generative network starts from: where it lies, and what is planned after it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import write_block

if TYPE_CHECKING:
    from nnunet_kd.recon.planning.planner import PlanRequest
    from nnunet_kd.recon.training.models import ReconModel

BASELINE = "AdaptiveCSNet"
_OWN = ("complex_data",)  # arguments of the baseline's class that the generative network does not have


def parse_baseline(text: str) -> tuple[str, int | str | None]:
    """Split ``MODEL_FOLDER[:FOLD]``.

    Returns:
        The folder, and the fold, a number or ``all``; ``None`` where none is named.

    Example:
        >>> parse_baseline("Dataset001_Knee/A__P__2d:3"), parse_baseline("A__P__2d")
        (('Dataset001_Knee/A__P__2d', 3), ('A__P__2d', None))
    """
    folder, _, fold = text.rpartition(":")
    if folder and (fold == "all" or fold.isdecimal()):
        return folder, fold if fold == "all" else int(fold)
    return text, None


def open_baseline(text: str) -> tuple["ReconModel", int | str | None]:
    """Open a baseline's model folder.

    Args:
        text: ``MODEL_FOLDER[:FOLD]``.

    Raises:
        UsageError: If it is missing or damaged, or of another network, or the fold was not trained to its end.
    """
    from nnunet_kd.recon.training.models import FINAL, open_recon_model

    folder, fold = parse_baseline(text)
    model = open_recon_model(folder)
    architecture = model.configuration.architecture
    name = architecture.network_class_name.rpartition(".")[2]
    if name != BASELINE or architecture.arch_kwargs.get("complex_data") is False:
        raise UsageError(f"baseline: expected an {BASELINE} of complex images in {model.path}, got {name}")
    if fold is not None:
        model.checkpoint(fold, FINAL)
    return model, fold


def after_baseline(request: "PlanRequest") -> "PlanRequest":
    """Plan after a trained baseline: its network, its masks and its scale, where nothing else was asked for.

    Raises:
        UsageError: If it cannot be opened, or sizes were asked for that it decides on.
    """
    if request.baseline is None:
        return request
    model, _ = open_baseline(request.baseline)
    inherited = {k: v for k, v in model.configuration.architecture.arch_kwargs.items() if k not in _OWN}
    clash = [key for key in request.size.sizes if key in inherited]
    if clash or request.size.shrink is not None:
        raise UsageError(f"--baseline decides on {', '.join(inherited)}; leave --{clash[0] if clash else 'shrink'} out")
    scale: Mapping[str, Any] = write_block(model.plans.normalisation)
    return replace(
        request,
        size=replace(request.size, inherited=inherited),
        sampling={**(model.plans.sampling or {}), **request.sampling},
        normalisation={**scale, **request.normalisation},
        only=model.configuration_name,
    )

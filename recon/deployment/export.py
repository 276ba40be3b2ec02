"""From a trained model folder to a bundle: convert, compare images with PyTorch's, and only then give it its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd import __version__
from nnunet_kd.deployment.bundle import file_facts
from nnunet_kd.deployment.portable import portable_plans
from nnunet_kd.deployment.runtimes import computes_bf16, import_runtime
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import describe
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import write_json_atomically
from nnunet_kd.recon.deployment.bundle import (
    PARITY,
    PLANS,
    ReconBundle,
    bundle_network,
    is_recon_bundle,
    open_recon_bundle,
    write_record,
)
from nnunet_kd.recon.inference.models import open_predictor
from nnunet_kd.recon.inference.predictor import Predictor, reconstruct
from nnunet_kd.recon.training.models import ReconModel, open_recon_model

if TYPE_CHECKING:
    from torch import nn

# share of the largest intensity: rounding of single precision, and of bfloat16, through some 25 convolutions
TOLERANCES = {"f32": 1e-4, "bf16": 0.05}
PHANTOM_MATRIX = (128, 128)  # of plans that name none

Images = Sequence[NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is exported and what it must agree with.

    Attributes:
        precision: ``f32`` or ``bf16``.
        cases: Case files to compare on; none: a phantom of the plans' first matrix.
        tolerance: Largest difference of an image, as a share of the volume's largest intensity; ``None`` takes
            :data:`TOLERANCES`.
        threads: Cores to use; ``None`` takes all.
    """

    precision: str = "f32"
    cases: tuple[Path, ...] = ()
    tolerance: float | None = None
    threads: int | None = None

    @property
    def limit(self) -> float:
        """The tolerance that holds."""
        return TOLERANCES[self.precision] if self.tolerance is None else self.tolerance


def export_model(
    model_folder: Path,
    fold: int | str,
    target: Path,
    settings: ExportSettings,
    *,
    checkpoint: str = "checkpoint_final.pth",
    overwrite: bool = False,
) -> tuple[ReconBundle, dict[str, Any]]:
    """Write a bundle of a trained network, or nothing.

    Args:
        model_folder: ``TRAINER__PLANS__CONFIGURATION``.
        fold: Whose weights.
        target: Folder of the bundle.
        settings: What is exported.
        checkpoint: File in the fold's folder.
        overwrite: Whether an earlier bundle may be replaced.

    Returns:
        The bundle, and its parity report.

    Raises:
        UsageError: If anything is missing or damaged, OpenVINO cannot convert the network, or its images differ from
            PyTorch's by more than is tolerated.
    """
    check_replaceable(target, is_ours=is_recon_bundle, what="a bundle of recon", overwrite=overwrite)
    import_runtime("openvino")
    if settings.precision == "bf16" and not computes_bf16():
        raise UsageError("--precision bf16: this processor has no bfloat16, so that parity cannot be measured here")
    model = open_recon_model(model_folder)
    predictor = open_predictor(model.path, folds=[fold], checkpoint=checkpoint)
    with work_folder(target) as work:
        cases = settings.cases or (_phantom(model, work),)
        expected, shapes = _reference(predictor, cases)
        described = _describe(work / "new", model, model.checkpoint(fold, checkpoint), settings)
        bundle = _with_network(described, predictor.networks[0], list(shapes))
        _write_parts(predictor.networks[0], shapes, bundle)
        report = _compare(bundle, predictor, cases, expected, settings)
        write_json_atomically(report, bundle.path / PARITY)
        write_record(bundle)
        move_into_place(open_recon_bundle(bundle.path).path, target)
    return replace(bundle, path=target), report


def _phantom(model: ReconModel, folder: Path) -> Path:
    from nnunet_kd.recon.data.cases import write_volume
    from nnunet_kd.recon.data.phantoms import PhantomSettings, make_phantom

    matrix = (*model.plans.matrices, PHANTOM_MATRIX)[0]
    file = folder / "phantom.h5"
    write_volume(file, make_phantom("phantom", PhantomSettings(matrix=matrix, coils=model.plans.coils[0]), seed=0))
    return file


def _reference(predictor: Predictor, cases: Sequence[Path]) -> tuple[Images, dict[str, tuple[int, ...]]]:
    from nnunet_kd.recon.deployment.parts import recorded_shapes

    with recorded_shapes(predictor.networks[0]) as shapes:
        return [reconstruct(predictor, case) for case in cases], shapes


def _describe(bundle: Path, model: ReconModel, checkpoint: Path, settings: ExportSettings) -> ReconBundle:
    """Describe a bundle before its network is looked at: without parts and weights."""
    fold = checkpoint.parent.name.removeprefix("fold_")
    return ReconBundle(
        path=bundle,
        plans=model.plans,
        configuration=model.configuration_name,
        precision=settings.precision,
        fold=int(fold) if fold.isdecimal() else fold,
        parts=(),
        weights={},
        source={"model": model.path.name, "sha256": file_facts(checkpoint)["sha256"]},
        versions={"nnunet_kd": __version__, **{name: metadata.version(name) for name in ("torch", "openvino")}},
    )


def _with_network(bundle: ReconBundle, network: "nn.Module", parts: Sequence[str]) -> ReconBundle:
    from nnunet_kd.recon.deployment.parts import part_names

    if not parts:
        name = bundle.plans.configuration(bundle.configuration).architecture.network_class_name
        raise UsageError(f"{name} has no convolutions that can be exported; predict with its model folder")
    inside = tuple(f"{part}." for part in part_names(network))
    weights = {name: value.tolist() for name, value in network.state_dict().items() if not name.startswith(inside)}
    return replace(bundle, parts=tuple(parts), weights=weights)


def _write_parts(network: "nn.Module", shapes: dict[str, tuple[int, ...]], bundle: ReconBundle) -> None:
    from nnunet_kd.recon.deployment.parts import save_parts

    bundle.path.mkdir()
    save_parts(network, shapes, bundle.path)
    plans = bundle.plans.to_json()
    # a mask of the user's own is found where it lies or not at all
    kept = {key: plans[key] for key in ("sampling",) if key in plans}
    write_json_atomically({**portable_plans(plans), **kept}, bundle.path / PLANS)


def _compare(
    bundle: ReconBundle, predictor: Predictor, cases: Sequence[Path], expected: Images, settings: ExportSettings
) -> dict[str, Any]:
    """Compare every precision that this machine has with PyTorch, and refuse the chosen one if it differs too much."""
    found = {}
    for precision in ("f32", "bf16") if computes_bf16() else ("f32",):
        network = bundle_network(replace(bundle, precision=precision), settings.threads)
        exported = replace(predictor, networks=[network])
        found[precision] = agreement([reconstruct(exported, case) for case in cases], expected)
    figure = found[bundle.precision]["max_difference"]
    if not figure <= settings.limit:
        raise UsageError(
            f"the {bundle.precision} export's images differ from PyTorch's by {figure:.3g} of the largest intensity, "
            f"more than {settings.limit:g}; nothing was written. Allow more with --tolerance"
        )
    return {
        "compared_with": "PyTorch in float32",
        "images_from": "cases" if settings.cases else "a phantom",
        "n_slices": sum(len(volume) for volume in expected),
        "unit": "share of the volume's largest intensity",
        "tolerance": settings.limit,
        "processor": describe(),
        "precisions": found,
    }


def agreement(found: Images, expected: Images) -> Mapping[str, float]:
    """Return the largest and the mean absolute difference of volumes, as shares of each one's largest intensity.

    Example:
        >>> agreement([np.array([0.0, 3.0])], [np.array([0.0, 4.0])])
        {'max_difference': 0.25, 'mean_difference': 0.125}
    """
    shares = [np.abs(ours - theirs) / np.abs(theirs).max() for ours, theirs in zip(found, expected, strict=True)]
    return {
        "max_difference": max(float(share.max()) for share in shares),
        "mean_difference": float(np.mean([share.mean() for share in shares])),
    }

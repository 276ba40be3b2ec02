"""From a trained model folder to a bundle: convert, compare with PyTorch, and only then give it its name."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd import __version__
from nnunet_kd.deployment.bundle import (
    CARD,
    PARITY,
    PRECISIONS,
    RUNTIMES,
    WINDOW,
    Bundle,
    is_bundle,
    open_bundle,
    write_record,
)
from nnunet_kd.deployment.example_patches import (
    Examples,
    noise_examples,
    preprocessed_source,
    raw_source,
    take_examples,
)
from nnunet_kd.deployment.inference.plan import InferencePlan, make_inference_plan
from nnunet_kd.deployment.model_card import model_card
from nnunet_kd.deployment.parity import Agreement, Array, Tolerance, check_agreement, compare, run_network
from nnunet_kd.deployment.runtimes import LIBRARIES, computes_bf16, import_runtime, network_from_file
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import describe
from nnunet_kd.output import check_replaceable, move_into_place, work_folder
from nnunet_kd.planning.model_folder import ModelFolder, nnunet_folder, write_json_atomically

if TYPE_CHECKING:
    from torch import nn

    from nnunet_kd.deployment.release import Release

N_CALIBRATION = 32


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is exported and what it must agree with.

    Attributes:
        runtime: ``openvino`` or ``onnx``.
        precision: ``f32``, ``bf16`` or ``int8``; the latter two for OpenVINO.
        half_weights: Store weights in float16 (OpenVINO).
        cases: Folder of raw images to compare on; ``None`` takes preprocessed ones, else noise.
        labels: Folder of their label maps.
        n_patches: Patches to compare on, at least 1.
        tolerance: What the export may differ by.
        threads: Cores to use; ``None`` takes all.

    Raises:
        UsageError: If they do not go together.
    """

    runtime: str = RUNTIMES[0]
    precision: str = PRECISIONS[0]
    half_weights: bool = False
    cases: Path | None = None
    labels: Path | None = None
    n_patches: int = 8
    tolerance: Tolerance
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.runtime == "onnx" and self.precision != "f32":
            raise UsageError(f"--precision {self.precision} needs --format openvino; onnx bundles are f32")
        if self.runtime == "onnx" and self.half_weights:
            raise UsageError("--half-weights needs --format openvino")
        if self.labels is not None and self.cases is None:
            raise UsageError("--labels belongs to --cases; name the folder of their images, too")
        for name, folder in (("--cases", self.cases), ("--labels", self.labels)):
            if folder is not None and not folder.is_dir():
                raise UsageError(f"{name}: expected a folder, found none at {folder}")
        if self.n_patches < 1:
            raise UsageError(f"--patches: expected at least 1, got {self.n_patches}")


def export_model(
    model: ModelFolder,
    target: Path,
    settings: ExportSettings,
    *,
    folds: Sequence[int | str] | None = None,
    checkpoint_name: str = "checkpoint_final.pth",
    overwrite: bool = False,
) -> tuple[Bundle, dict[str, Any]]:
    """Write a bundle of a trained model, or nothing.

    Args:
        model: The trained model.
        target: Folder of the bundle.
        settings: What is exported.
        folds: Those whose logits are averaged; ``None`` takes every trained fold.
        checkpoint_name: File name in each fold.
        overwrite: Whether an earlier bundle may be replaced.

    Returns:
        The bundle as it was opened again, and its parity report.

    Raises:
        UsageError: If anything is missing, damaged or not known to our inference, or the exported network differs from
            PyTorch by more than is tolerated.
        OSError: If the folder cannot be written.
    """
    target = target.expanduser()
    check_replaceable(target, is_ours=is_bundle, what="a bundle", overwrite=overwrite)
    import_runtime(settings.runtime)
    if settings.precision == "int8":
        from nnunet_kd.deployment.quantise import import_nncf

        import_nncf()
    # imported here: torch and nnU-Net take seconds
    from nnunet_kd.deployment.conversion import trained_network
    from nnunet_kd.deployment.release import prepare_release

    release = prepare_release(model, folds=folds, checkpoint_name=checkpoint_name)
    axes = next(iter(release.checkpoints.values()))["inference_allowed_mirroring_axes"]
    plan = make_inference_plan(release.documents["plans.json"], model.dataset_json, model.configuration, axes)
    examples = _examples(model, plan, settings)
    network = trained_network(model, release)
    with work_folder(target) as work:
        bundle = _describe(work / "new", plan, release, settings)
        bundle.path.mkdir()
        logits = _convert(network, bundle, settings, examples, work)
        report = _report(logits, bundle, settings, examples)
        write_json_atomically(report, bundle.path / PARITY)
        (bundle.path / CARD).write_text(model_card(bundle, report, target.name), encoding="utf-8")
        write_record(bundle)
        move_into_place(open_bundle(bundle.path).path, target)
    return replace(bundle, path=target), report


def _examples(model: ModelFolder, plan: InferencePlan, settings: ExportSettings) -> Examples:
    n_calibration = N_CALIBRATION if settings.precision == "int8" else 0
    source = raw_source(settings.cases, plan, settings.labels) if settings.cases else _preprocessed(model, plan)
    if source is not None:
        return take_examples(source, plan, n_checked=settings.n_patches, n_calibration=n_calibration)
    if n_calibration:
        raise UsageError(
            "int8 is calibrated with real patches: name a folder of images with --cases, or set nnUNet_preprocessed to "
            "where the model's data set was preprocessed"
        )
    return noise_examples(plan, settings.n_patches)


def _preprocessed(model: ModelFolder, plan: InferencePlan) -> Any:  # noqa: ANN401  # Source or None
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    try:
        preprocessed = nnunet_folder("nnUNet_preprocessed")
    except UsageError:  # it is needed only where somebody has it
        return None
    identifier = PlansManager(model.plans).get_configuration(model.configuration).data_identifier
    return preprocessed_source(preprocessed / plan.dataset_name / identifier, plan)


def _describe(folder: Path, plan: InferencePlan, release: "Release", settings: ExportSettings) -> Bundle:
    packages = ["torch", "nnunetv2", LIBRARIES[settings.runtime], *(["nncf"] if settings.precision == "int8" else [])]
    return Bundle(
        path=folder,
        plan=plan,
        runtime=settings.runtime,
        precision=settings.precision,
        folds=tuple(release.checkpoints),
        window=WINDOW,
        versions={"nnunet_kd": __version__, **{name: metadata.version(name) for name in packages}},
        source=release.documents["release.json"]["source"] | {"half_weights": settings.half_weights},
    )


def _convert(
    network: "nn.Module", bundle: Bundle, settings: ExportSettings, examples: Examples, work: Path
) -> dict[str, list[Array]]:
    """Write the network into the bundle and return all logits by precision, PyTorch's as ``torch``."""
    from nnunet_kd.deployment.conversion import save_onnx, save_openvino, to_openvino

    expected = run_network(_as_function(network, settings.threads), examples.checked)
    files = {}
    if settings.runtime == "onnx":
        files["f32"] = save_onnx(network, bundle.input_shape, bundle.path)
    else:
        converted = to_openvino(network, bundle.input_shape)
        if settings.precision == "int8":
            (work / "f32").mkdir()
            files["f32"] = save_openvino(converted, work / "f32")
            converted = _quantised(converted, expected, bundle, settings, examples)
        files[settings.precision] = save_openvino(converted, bundle.path, half_weights=settings.half_weights)
        files |= {name: files[settings.precision] for name in _hints(settings) if name not in files}
    logits = {"torch": expected}
    for precision, file in sorted(files.items(), key=lambda entry: PRECISIONS.index(entry[0])):
        run = network_from_file(file, settings.runtime, precision, settings.threads)
        logits[precision] = run_network(run, examples.checked)
    return logits


def _hints(settings: ExportSettings) -> tuple[str, ...]:
    """Return the precisions that one uncompressed file is run in, for the report."""
    if settings.precision == "int8":
        return ()
    if settings.precision == "bf16" and not computes_bf16():
        raise UsageError("--precision bf16: this processor has no bfloat16, so that parity cannot be measured here")
    return ("f32", "bf16") if computes_bf16() else ("f32",)


def _as_function(network: "nn.Module", threads: int | None) -> Any:  # noqa: ANN401  # Network
    import torch

    if threads is not None:
        torch.set_num_threads(threads)

    def run(patch: Array) -> Array:
        with torch.inference_mode():
            logits: Array = network(torch.from_numpy(patch)).numpy()
        return logits

    return run


def _quantised(
    model: Any,  # noqa: ANN401  # OpenVINO's model
    expected: list[Array],
    bundle: Bundle,
    settings: ExportSettings,
    examples: Examples,
) -> Any:  # noqa: ANN401  # OpenVINO's model
    from nnunet_kd.deployment.quantise import quantise

    def score(found: list[Array]) -> float:
        return -compare(expected, found, examples.checked, bundle.plan).dice_drop

    return quantise(
        model, examples.calibration, score=score, checked=examples.checked, max_drop=settings.tolerance.dice
    )


def _report(
    logits: dict[str, list[Array]], bundle: Bundle, settings: ExportSettings, examples: Examples
) -> dict[str, Any]:
    """Compare every precision with PyTorch, and refuse the chosen one if it differs too much."""
    found: dict[str, Agreement] = {
        precision: compare(logits["torch"], values, examples.checked, bundle.plan)
        for precision, values in logits.items()
        if precision != "torch"
    }
    tolerance = settings.tolerance
    check_agreement(found[bundle.precision], tolerance, bundle.precision)
    return {
        "compared_with": "PyTorch in float32",
        "patches_from": examples.origin,
        "n_patches": len(examples.checked),
        "n_cases": len({patch.case for patch in examples.checked}),
        "n_calibration_patches": len(examples.calibration),
        "dice_against": "reference labels" if examples.checked[0].labels is not None else "PyTorch's prediction",
        "processor": describe(),
        "tolerance": {"voxels": tolerance.voxels, "logit": tolerance.logit, "dice": tolerance.dice},
        "precisions": {precision: agreement.to_json() for precision, agreement in found.items()},
    }

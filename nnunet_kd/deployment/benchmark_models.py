"""The models of a benchmark, bundles and model folders side by side, and the cases they all take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.deployment.bundle import Bundle, is_bundle, open_bundle
from nnunet_kd.deployment.prediction.case_files import CaseFiles, find_cases
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model that takes part.

    Attributes:
        kind: ``bundle`` or ``folder``, which decides what it is run by.
        path: The folder.
        runtime: ``openvino``, ``onnx`` or ``torch``.
        precision: What the network is run in.
        folds: Members of the ensemble.
        checkpoint: File in each fold of a model folder.
        n_channels: That an image has.
        file_ending: Of images and label maps, with its dot.
        reader: nnU-Net's class name.
        is_planar: Whether the network is 2-D.
        file_megabytes: Files that prediction opens, 10^6 bytes. A checkpoint also holds the optimiser.
        weight_megabytes: Weights alone.
    """

    kind: str
    path: Path
    runtime: str
    precision: str
    folds: tuple[int | str, ...]
    checkpoint: str
    n_channels: int
    file_ending: str
    reader: str
    is_planar: bool
    file_megabytes: float
    weight_megabytes: float


def split_names(texts: Sequence[str]) -> dict[str, Path]:
    """Return the folders of ``FOLDER`` or ``NAME=FOLDER`` by name, by default the folder's own.

    Raises:
        UsageError: If two models have the same name, or one has none that a table can show.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).expanduser().exists():
            folder, name = text, Path(text).expanduser().resolve().name
        if not (name and folder) or "|" in name or not name.isprintable():
            raise UsageError(f"expected -m FOLDER or NAME=FOLDER with a printable name without '|', got {text!r}")
        if name in found:
            raise UsageError(f"two models are called '{name}'; name them: -m teacher=FOLDER -m student=FOLDER")
        found[name] = Path(folder).expanduser()
    return found


def open_contender(
    path: Path, *, folds: Sequence[int | str] | None = None, checkpoint: str = "checkpoint_final.pth"
) -> Contender:
    """Open a bundle, or a trained model folder, whose checkpoints are read as data first.

    Args:
        path: The folder; a model folder also relative to ``nnUNet_results``.
        folds: Members, for model folders; ``None`` takes all that are trained.
        checkpoint: File in each fold of a model folder.

    Raises:
        UsageError: If there is no such model, it is damaged, or it is the second stage of a cascade.
    """
    if is_bundle(path):
        return _of_bundle(open_bundle(path))
    if path.is_dir() and not (path / "plans.json").is_file():
        raise UsageError(
            f"expected a bundle (with bundle.json) or a trained model folder (with plans.json) for -m, got {path}; "
            "check the path"
        )
    return _of_folder(open_model_folder(path), folds, checkpoint)


def choose_cases(contenders: Mapping[str, Contender], images: Path, n: int | None = None) -> tuple[CaseFiles, ...]:
    """Return the cases of a folder, the first ``n`` by name, after reading each and checking that every model takes it.

    Args:
        contenders: By name.
        images: Folder of ``CASE_0000`` and so on.
        n: How many; ``None`` takes all.

    Raises:
        UsageError: If there is no case, one cannot be read, or a model takes other channels, axes or file endings.
    """
    (first, contender), *others = contenders.items()
    for name, other in others:
        if other.file_ending != contender.file_ending:
            raise UsageError(
                f"expected models of one file ending, '{first}' reads {contender.file_ending} and '{name}' "
                f"{other.file_ending}; run two benchmarks"
            )
    if not images.is_dir():
        raise UsageError(f"expected a folder of images for -i, found none at {images}; check the path")
    # where label maps will go is chosen later
    cases = find_cases([images], images / "predictions", ending=contender.file_ending)[:n]
    for case in cases:
        if case.fault:
            raise UsageError(f"{case.name}: {case.fault}")
        _check_case(case, contenders)
    return cases


def _check_case(case: CaseFiles, contenders: Mapping[str, Contender]) -> None:
    from nnunet_kd.deployment.inference.images import read_image
    from nnunet_kd.deployment.inference.readers import READ

    for reader in dict.fromkeys(contender.reader for contender in contenders.values()):
        if reader not in READ:
            continue  # a reader of the user's own: its faults show when the case is predicted
        image = read_image(case.files, reader)
        for name, contender in contenders.items():
            if contender.n_channels != len(image.array):
                raise UsageError(
                    f"{case.name}: '{name}' expected {contender.n_channels} channels, got {len(image.array)}; give "
                    "images and models that belong together"
                )
            if image.is_planar and not contender.is_planar:
                raise UsageError(
                    f"{case.name}: '{name}' expected a volume, got a 2-D image; give volumes or 2-D models"
                )


def _of_bundle(bundle: Bundle) -> Contender:
    plan = bundle.plan
    if plan.previous_stage:
        _refuse_cascade(bundle.path)
    weights = bundle.network.with_suffix(".bin") if bundle.runtime == "openvino" else bundle.network
    return Contender(
        kind="bundle",
        path=bundle.path.resolve(),
        runtime=bundle.runtime,
        precision=bundle.precision,
        folds=bundle.folds,
        checkpoint="",
        n_channels=len(plan.channel_names),
        file_ending=plan.file_ending,
        reader=plan.image_reader_writer,
        is_planar=len(plan.patch_size) == 2,
        file_megabytes=bundle.megabytes,
        weight_megabytes=weights.stat().st_size / 1e6,
    )


def _of_folder(model: ModelFolder, folds: Sequence[int | str] | None, checkpoint: str) -> Contender:
    from nnunet_kd.distillation.checkpoints import load_checkpoint_safely

    settings = _configuration(model.plans["configurations"], model.configuration)
    if settings.get("previous_stage"):
        _refuse_cascade(model.path)
    chosen = tuple(folds or [fold for fold in model.folds if fold != "all"] or model.folds)
    if not chosen:
        raise UsageError(f"expected a trained fold in {model.path}, found none; train it with nnUNetv2_train")
    files = [model.checkpoint(fold, checkpoint) for fold in chosen]
    weights = [tensor for file in files for tensor in load_checkpoint_safely(file)["network_weights"].values()]
    channels = model.dataset_json.get("channel_names", model.dataset_json.get("modality", {}))
    return Contender(
        kind="folder",
        path=model.path,
        runtime="torch",
        precision="f32",
        folds=chosen,
        checkpoint=checkpoint,
        n_channels=len(channels),
        file_ending=str(model.dataset_json.get("file_ending", ".nii.gz")),
        reader=str(model.plans["image_reader_writer"]),
        is_planar=len(settings["patch_size"]) == 2,
        file_megabytes=sum(file.stat().st_size for file in files) / 1e6,
        # nnU-Net's decoder lists the encoder's tensors again
        weight_megabytes=sum({tensor.data_ptr(): tensor.nbytes for tensor in weights}.values()) / 1e6,
    )


def _configuration(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration's settings with those it inherits."""
    own = configurations[name]
    parent = own.get("inherits_from")
    return {**(_configuration(configurations, parent) if parent else {}), **own}


def _refuse_cascade(path: Path) -> None:
    raise UsageError(f"{path} is the second stage of a cascade, which images alone do not feed; benchmark its first")

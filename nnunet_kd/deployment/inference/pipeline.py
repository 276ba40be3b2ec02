"""One case from files to label map, as ``nnUNetv2_predict`` does it, on numpy and SciPy alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.inference.cropping import BoundingBox, as_slices, body_mask, nonzero_box
from nnunet_kd.deployment.inference.images import Image, read_image
from nnunet_kd.deployment.inference.label_maps import resample_labels
from nnunet_kd.deployment.inference.labels import label_type, probabilities, write_labels
from nnunet_kd.deployment.inference.normalisation import SCHEMES
from nnunet_kd.deployment.inference.plan import InferencePlan
from nnunet_kd.deployment.inference.resampling import Precision, Route, find_route, new_shape, resample
from nnunet_kd.deployment.inference.sliding_window import Network, WindowSettings, predict_logits
from nnunet_kd.errors import UsageError

Resolution = Literal["exact", "fast"]
_PRECISION: dict[Resolution, Precision] = {"exact": "float64", "fast": "float32"}


@dataclass(frozen=True, kw_only=True)
class PipelineSettings:
    """How a case is predicted.

    Attributes:
        window: Of tiles and sums; ``storage`` is set by ``resampling``.
        resampling: ``exact`` computes as nnU-Net does, in double precision, with logits kept in half precision;
            ``fast`` in single precision throughout.
    """

    window: WindowSettings = field(default_factory=WindowSettings)
    resampling: Resolution = "exact"

    def stored_window(self) -> WindowSettings:
        """Return the window's settings with the storage that belongs to the resampling."""
        return replace(self.window, storage="float16" if self.resampling == "exact" else "float32")


@dataclass(frozen=True, kw_only=True)
class PreparedCase:
    """What the network sees, and the way back.

    Attributes:
        data: ``(C, x, y, z)`` float32 in the transposed order, at the plan's spacing.
        shape_before: Of the transposed image.
        box: That was cropped to, in the transposed image.
        spacing: Of the transposed image, millimetres.
    """

    data: NDArray[np.float32]
    shape_before: tuple[int, ...]
    box: BoundingBox
    spacing: tuple[float, ...]

    @property
    def cropped_shape(self) -> tuple[int, ...]:
        """Shape of the image's part that is predicted, before resampling."""
        return tuple(stop - start for start, stop in self.box)


def read_case(files: Sequence[Path], plan: InferencePlan) -> Image:
    """Read a case and check that it is one for this model.

    Raises:
        UsageError: If a file cannot be read, or the number of channels or of axes is another than the model's.
    """
    image = read_image(files, plan.image_reader_writer)
    check_image(image, plan, files[0].name)
    return image


def check_image(image: Image, plan: InferencePlan, name: str) -> None:
    """Refuse an image that the model was not made for.

    Args:
        image: As read.
        plan: The model's.
        name: How to name the image.

    Raises:
        UsageError: If channels or axes differ from the model's.
    """
    n_channels = len(plan.channel_names)
    if image.array.ndim != 4 or image.array.shape[0] != n_channels:
        raise UsageError(
            f"{name}: expected {n_channels} channels ({', '.join(plan.channel_names)}), got {image.array.shape[0]}; "
            f"give one file per channel, ending in _0000{plan.file_ending} and on"
        )
    if image.is_planar and len(plan.patch_size) == 3:
        raise UsageError(f"{name}: expected a volume for a 3-D model, got a 2-D image; give volumes or a 2-D model")


def prepare_case(
    image: Image, plan: InferencePlan, previous: NDArray[np.floating] | None = None, resampling: Resolution = "exact"
) -> PreparedCase:
    """Transpose, crop, normalise and resample an image.

    Args:
        image: As read. **Its array is overwritten**, which saves a copy.
        plan: The model's.
        previous: Label map of a cascade's previous stage on the image's grid, ``(x, y, z)``.
        resampling: Precision of the interpolation.

    Raises:
        UsageError: If a cascade's label map is missing, not wanted, or of another shape, or the image is thinner than
            half a voxel of the model.
    """
    _check_previous(image, plan, previous)
    data = image.array.transpose([0, *(axis + 1 for axis in plan.transpose_forward)])
    spacing = tuple(image.spacing[axis] for axis in plan.transpose_forward)
    shape_before, box = data.shape[1:], nonzero_box(data)
    data = data[(slice(None), *as_slices(box))]
    # filling holes is slow, and most models need no mask
    mask = body_mask(data) if previous is not None or any(plan.use_mask_for_norm[: len(data)]) else None
    if previous is not None and mask is not None:
        previous = previous.transpose(plan.transpose_forward)[as_slices(box)].astype(np.float32)
        previous[(previous == 0) & ~mask] = -1
        mask = previous >= 0  # what the previous stage segmented counts as inside, too
    for index, channel in enumerate(data):
        scheme = SCHEMES[plan.normalization_schemes[index]]
        uses_mask = mask if plan.use_mask_for_norm[index] else None
        scheme(channel, uses_mask, plan.foreground_intensity_properties[index])
    wanted = _spacing(plan, spacing)
    target = new_shape(data.shape[1:], spacing, wanted)
    if min(target) < 1:
        raise UsageError(
            f"expected an image of at least half the model's spacing of {wanted} mm, got {data.shape[1:]} voxels of "
            f"{spacing} mm; check the spacing in its header"
        )
    route = find_route(data.shape[1:], target, spacing, wanted, plan.resampling_data, precision=_PRECISION[resampling])
    data = resample(data, route)
    if previous is not None:
        previous = resample_labels(previous, target, spacing, wanted, plan.resampling_seg)
        one_hot = [(previous == label)[None] for label in plan.foreground_labels]
        data = np.vstack([data, *one_hot], dtype=np.float32)
    return PreparedCase(data=data, shape_before=shape_before, box=box, spacing=spacing)


def predict_prepared(
    case: PreparedCase, plan: InferencePlan, network: Network, settings: PipelineSettings
) -> NDArray[np.floating]:
    """Return the logits of a prepared case, ``(n_outputs, x, y, z)`` on the prepared grid.

    Raises:
        UsageError: If the network's output cannot be used.
    """
    return predict_logits(case.data, network, plan.patch_size, plan.n_outputs, settings.stored_window())


def label_map(
    logits: NDArray[np.floating], case: PreparedCase, plan: InferencePlan, resampling: Resolution = "exact"
) -> NDArray[np.unsignedinteger]:
    """Bring logits back to the image and return its labels.

    Beside logits and label map it holds about 0.3 GB, whatever the number of classes and the size of the image.

    Args:
        logits: On the prepared grid.
        case: That they belong to.
        plan: The model's.
        resampling: Precision of the interpolation.

    Returns:
        ``(x, y, z)`` in the order of the image's axes, of one byte, or two from 255 labels.
    """
    labels = np.zeros(case.shape_before, dtype=label_type(plan.foreground_labels))
    order = plan.regions_class_order if plan.has_regions else None
    write_labels(logits, _way_back(logits, case, plan, resampling), labels[as_slices(case.box)], order)
    return labels.transpose(plan.transpose_backward)


def probability_map(
    logits: NDArray[np.floating], case: PreparedCase, plan: InferencePlan, resampling: Resolution = "exact"
) -> NDArray[np.float32]:
    """Bring logits back to the image and return probabilities, all at full size, as ``--save_probabilities`` does.

    Args:
        logits: On the prepared grid.
        case: That they belong to.
        plan: The model's.
        resampling: Precision of the interpolation.

    Returns:
        ``(n_outputs, x, y, z)`` in the order of the image's axes. Outside the crop background is certain.
    """
    full = np.zeros((plan.n_outputs, *case.shape_before), dtype=np.float32)
    if not plan.has_regions:
        full[0] = 1
    route = _way_back(logits, case, plan, resampling)
    full[(slice(None), *as_slices(case.box))] = probabilities(logits, route, has_regions=plan.has_regions)
    return full.transpose([0, *(axis + 1 for axis in plan.transpose_backward)])


def predict_image(
    image: Image,
    plan: InferencePlan,
    network: Network,
    settings: PipelineSettings | None = None,
    previous: NDArray[np.floating] | None = None,
) -> NDArray[np.unsignedinteger]:
    """Return the label map of an image.

    Args:
        image: As read. **Its array is overwritten.**
        plan: The model's.
        network: From patches to logits.
        settings: Of prediction; nnU-Net's own without mirroring by default.
        previous: Label map of a cascade's previous stage on the image's grid.

    Returns:
        ``(x, y, z)`` in the order of the image's axes.

    Raises:
        UsageError: If the image or the network's output cannot be used.
    """
    settings = settings or PipelineSettings()
    case = prepare_case(image, plan, previous, settings.resampling)
    return label_map(predict_prepared(case, plan, network, settings), case, plan, settings.resampling)


def predict_files(
    files: Sequence[Path],
    plan: InferencePlan,
    network: Network,
    settings: PipelineSettings | None = None,
    previous_file: Path | None = None,
) -> tuple[NDArray[np.unsignedinteger], Image]:
    """Read a case and return its label map.

    Args:
        files: One per channel, or one with all of them.
        plan: The model's.
        network: From patches to logits.
        settings: Of prediction; nnU-Net's own without mirroring by default.
        previous_file: Label map of a cascade's previous stage.

    Returns:
        The label map, and the image without its voxels: what
        :func:`~nnunet_kd.deployment.inference.images.write_label_map` takes.

    Raises:
        UsageError: If a file or the network's output cannot be used.
    """
    settings = settings or PipelineSettings()
    image = read_case(files, plan)
    previous = None if previous_file is None else read_image([previous_file], plan.image_reader_writer).array[0]
    case, place = prepare_case(image, plan, previous, settings.resampling), image.without_voxels()
    del image, previous  # the largest arrays of the case, before the network needs memory
    return label_map(predict_prepared(case, plan, network, settings), case, plan, settings.resampling), place


def _check_previous(image: Image, plan: InferencePlan, previous: NDArray[np.floating] | None) -> None:
    if plan.previous_stage is not None and previous is None:
        raise UsageError(
            f"expected the label map of {plan.previous_stage} for this cascade, got none; type: "
            "-prev_stage_predictions FOLDER"
        )
    if previous is not None and plan.previous_stage is None:
        raise UsageError("expected no label map of a previous stage, the model is no cascade; leave it out")
    if previous is not None and previous.shape != image.array.shape[1:]:
        raise UsageError(
            f"expected a previous stage's label map of the image's shape {image.array.shape[1:]}, got "
            f"{previous.shape}; predict it from the same image"
        )


def _spacing(plan: InferencePlan, spacing: Sequence[float]) -> tuple[float, ...]:
    """Return what the network works at; a 2-D model keeps the distance of slices."""
    return (*spacing[: len(spacing) - len(plan.spacing)], *plan.spacing)


def _way_back(logits: NDArray[np.floating], case: PreparedCase, plan: InferencePlan, resampling: Resolution) -> Route:
    return find_route(
        logits.shape[1:],
        case.cropped_shape,
        _spacing(plan, case.spacing),
        case.spacing,
        plan.resampling_probabilities,
        precision=_PRECISION[resampling],
    )

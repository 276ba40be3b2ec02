"""Probabilities that ``nnUNetv2_predict --save_probabilities`` leaves beside a prediction, on that file's own grid."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import case_name, read_geometry
from nnunet_kd.evaluation.labels import Structure, scheme_from_dataset
from nnunet_kd.planning.model_folder import read_json

_KEY = "probabilities"
_REORIENTING = "NibabelIOWithReorient"  # nnU-Net's reader whose arrays lie in other axes than their files
_FOREIGN_SHARE = 0.01  # of the foreground; the two come from the same numbers, so that they should agree in all of it

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What the channels of a network's output stand for, as nnU-Net's label manager orders them.

    Attributes:
        labels: Of each channel; the background has one only without regions.
        regions_class_order: Label that each region is painted with, in order; empty without regions.
    """

    labels: tuple[tuple[int, ...], ...]
    regions_class_order: tuple[int, ...] = ()

    def numbers_of(self, structure: Structure) -> list[int] | None:
        """Return the channels whose probabilities add up to that of a structure, ``None`` if there are none.

        A class's own probability, or the sum over a structure's classes, which exclude each other.
        Regions do not: a structure must be one of them.
        """
        wanted = set(structure.labels)
        if self.regions_class_order:
            return next(([number] for number, labels in enumerate(self.labels) if set(labels) == wanted), None)
        found = [number for number, labels in enumerate(self.labels) if wanted.issuperset(labels)]
        return found if len(found) == len(wanted) else None

    def paint(self, probabilities: Floats) -> NDArray[np.int64]:
        """Return the label map that nnU-Net makes of probabilities ``(C, *spatial)``."""
        if not self.regions_class_order:
            painted: NDArray[np.int64] = np.array([labels[0] for labels in self.labels])[probabilities.argmax(axis=0)]
            return painted
        segmentation = np.zeros(probabilities.shape[1:], dtype=np.int64)
        for region, label in zip(probabilities, self.regions_class_order, strict=True):
            segmentation[region > 0.5] = label
        return segmentation


def channels_from_dataset(dataset: Mapping[str, Any], source: Path) -> Channels:
    """Read from nnU-Net's dataset.json what the channels of its networks stand for.

    Args:
        dataset: The content.
        source: Its file, for messages.

    Raises:
        UsageError: If labels, or the order of regions, are missing or not nnU-Net's.

    Example:
        >>> channels_from_dataset({"labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}}, Path("x")).labels
        ((0,), (1,), (2,))
    """
    labels = tuple(structure.labels for structure in scheme_from_dataset(dataset, source).structures)
    if all(len(values) == 1 for values in labels):
        return Channels(labels=((0,), *sorted(set(labels))))
    order = dataset.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(labels):
        raise UsageError(f"expected regions_class_order with {len(labels)} labels in '{source}', got {order!r:.80}")
    return Channels(labels=labels, regions_class_order=tuple(order))


def _beside(prediction: Path, name: str) -> Path:
    """Return where nnU-Net puts a file about predictions: with them, or for a fold's validation with the model."""
    folder = prediction.parent
    model = folder.parent.parent
    is_validation = folder.parent.name.startswith("fold_") and not (folder / name).is_file()
    return model / name if is_validation else folder / name


def read_channels(prediction: Path) -> Channels:
    """Read what the channels of a prediction's probabilities stand for from the dataset.json beside it.

    Raises:
        UsageError: If it is missing or not nnU-Net's.
    """
    file = _beside(prediction, "dataset.json")
    if not file.is_file():
        raise UsageError(
            f"expected the dataset.json that nnUNetv2_predict writes beside its predictions at '{file}', found none; "
            "copy the model folder's there"
        )
    return channels_from_dataset(read_json(file), file)


def probabilities_file(prediction: Path) -> Path:
    """Return the name of the probabilities of a prediction.

    Example:
        >>> probabilities_file(Path("case_1.nii.gz")).name
        'case_1.npz'
    """
    return prediction.with_name(f"{case_name(prediction.name)}.npz")


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UsageError(f"cannot read '{file}' as nnU-Net's probabilities: {reason}; predict again") from error


def read_shape(file: Path) -> tuple[int, ...]:
    """Read the shape of probabilities, channels first, without unpacking them.

    Raises:
        UsageError: If the file is none of nnU-Net's.
    """
    with _readable(file), zipfile.ZipFile(file) as archive, archive.open(f"{_KEY}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)[0]
        return np.lib.format.read_array_header_2_0(stream)[0]


def check_probabilities(prediction: Path, channels: Channels) -> None:
    """Check from headers alone that the probabilities beside a prediction can belong to it.

    Raises:
        UsageError: If the file cannot be read or its channels or voxels are others.
    """
    file = probabilities_file(prediction)
    shape = read_shape(file)
    voxels = sorted(size for size in read_geometry(prediction).shape if size != 1)
    if shape[:1] != (len(channels.labels),) or sorted(size for size in shape[1:] if size != 1) != voxels:
        raise UsageError(
            f"expected {len(channels.labels)} channels of the voxels of '{prediction.name}' in '{file}', "
            f"got shape {shape}; predict again"
        )


def read_probabilities(prediction: Path, segmentation: NDArray[Any], channels: Channels) -> Floats:
    """Read probabilities on the grid of the segmentation that was made of them.

    The pickle that nnU-Net writes along is not opened: it could run code, and all it would tell is in
    the header of the segmentation.

    Args:
        prediction: File of the segmentation.
        segmentation: Its content, z first.
        channels: What the channels stand for.

    Returns:
        ``(C, *segmentation.shape)``, in [0, 1].

    Raises:
        UsageError: If the file cannot be read, holds other numbers, or does not make this segmentation.
    """
    file = probabilities_file(prediction)
    with _readable(file), np.load(file) as archive:
        array: Floats = archive[_KEY]
    if not (array.min() >= 0 and array.max() <= 1 + 1e-3):
        raise UsageError(f"expected probabilities from 0 to 1 in '{file}', found others; predict again")
    array = _in_file_order(array, prediction)
    if array.size == len(channels.labels) * segmentation.size:
        array = array.reshape(len(channels.labels), *segmentation.shape)  # nnU-Net adds an axis to flat images
        painted = channels.paint(array)
        n_foreground = np.count_nonzero((painted > 0) | (segmentation > 0))
        if np.count_nonzero(painted != segmentation) <= _FOREIGN_SHARE * n_foreground:
            return array
    raise UsageError(
        f"expected the probabilities in '{file}' to make the segmentation in '{prediction.name}', they make another; "
        "predict both again, and score before post-processing"
    )


def _in_file_order(probabilities: Floats, prediction: Path) -> Floats:
    plans = _beside(prediction, "plans.json")
    if not plans.is_file() or read_json(plans).get("image_reader_writer") != _REORIENTING:
        return probabilities
    import nibabel
    from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform

    affine = nibabel.load(prediction).affine  # type: ignore[attr-defined]
    back = ornt_transform(axcodes2ornt("RAS"), io_orientation(affine))  # type: ignore[no-untyped-call]
    return np.stack([apply_orientation(channel.T, back).T for channel in probabilities])  # type: ignore[no-untyped-call]

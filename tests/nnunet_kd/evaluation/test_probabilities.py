"""Probabilities as nnU-Net's own readers, writers and predictor leave them, back on the grid of their files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from nnunet_kd.errors import UsageError
from nnunet_kd.evaluation.cases import read_segmentation
from nnunet_kd.evaluation.labels import Structure
from nnunet_kd.evaluation.probabilities import (
    channels_from_dataset,
    check_probabilities,
    probabilities_file,
    read_channels,
    read_probabilities,
)

CLASSES = {"background": 0, "a": 1, "b": 2, "ignore": 3}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}
# axes permuted and flipped: RAS order differs from the file's in every axis
TURNED = np.array([[0, 0, -2.0, 5], [1.1, 0, 0, 6], [0, -0.9, 0, 7], [0, 0, 0, 1]])


def read(prediction: Path) -> NDArray[Any]:
    channels = read_channels(prediction)
    check_probabilities(prediction, channels)
    return read_probabilities(prediction, read_segmentation(prediction)[0], channels)


@pytest.fixture
def softmax(random: np.random.Generator) -> NDArray[np.float32]:
    """Three classes over (z, y, x)."""
    raw = random.random((3, 5, 6, 7)) ** 3
    return (raw / raw.sum(axis=0)).astype(np.float32)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Export probabilities, given in the order of the file, with one of nnU-Net's readers and writers."""
    from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    def export(
        probabilities: NDArray[Any],
        *,
        reader: str = "SimpleITKIO",
        labels: dict[str, Any] = CLASSES,
        place: str = "predictions",
        ending: str = ".nii.gz",
    ) -> Path:
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        dataset: dict[str, Any] = {"labels": labels, "regions_class_order": [1, 2]}
        io = recursive_find_reader_writer_by_name(reader)()
        properties: dict[str, Any] = {}
        if ending == ".nii.gz":
            volumes = [tmp_path / f"volume_{number}.nii.gz" for number in range(len(probabilities))]
            for volume, file in zip(probabilities, volumes, strict=True):
                nib.save(nib.Nifti1Image(volume.T, TURNED), file)
            probabilities, properties = io.read_images([str(file) for file in volumes])
        manager = LabelManager(labels, dataset["regions_class_order"])
        segmentation = manager.convert_probabilities_to_segmentation(probabilities).astype(np.uint8)
        io.write_seg(segmentation, str(folder / f"case{ending}"), properties)
        np.savez_compressed(folder / "case.npz", probabilities=probabilities)
        model = folder.parent.parent if place.endswith("validation") else folder
        (model / "dataset.json").write_text(json.dumps(dataset))
        (model / "plans.json").write_text(json.dumps({"image_reader_writer": reader}))
        return folder / f"case{ending}"

    return export


@pytest.mark.parametrize("place", ["predictions", "model/fold_0/validation"])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_every_readers_axes_are_those_of_the_file(
    save: Callable[..., Path], softmax: NDArray[np.float32], reader: str, place: str
) -> None:
    np.testing.assert_allclose(read(save(softmax, reader=reader, place=place)), softmax, rtol=1e-6)


def test_flat_images_lose_the_axis_that_nnunet_adds(save: Callable[..., Path], softmax: NDArray[np.float32]) -> None:
    prediction = save(softmax[:, :1], reader="NaturalImage2DIO", ending=".png")
    np.testing.assert_array_equal(read(prediction), softmax[:, 0])


def test_what_nnunets_predictor_saves_is_read(write_model: Callable[..., Path], images: Path, tmp_path: Path) -> None:
    import torch
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = write_model()
    plans = json.loads((model / "plans.json").read_text())
    plans |= {"transpose_forward": [2, 0, 1], "transpose_backward": [1, 2, 0]}
    (model / "plans.json").write_text(json.dumps(plans))
    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    image, properties = SimpleITKIO().read_images([str(images / "case_0_0000.nii.gz")])
    target = tmp_path / "predicted" / "case_0"
    target.parent.mkdir()
    predictor.predict_single_npy_array(image, properties, None, str(target), True)
    for name in ("dataset.json", "plans.json"):
        (target.parent / name).write_text((model / name).read_text())
    probabilities = read(target.with_name("case_0.nii.gz"))
    assert probabilities.shape == (3, *image.shape[1:])
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-5)


# --- what channels stand for ---


@pytest.mark.parametrize("labels", [CLASSES, REGIONS, {**REGIONS, "edge": 1, "ignore": 3}])
def test_channels_are_those_of_nnunets_label_manager(labels: dict[str, Any], softmax: NDArray[np.float32]) -> None:
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    order = [1, 2, 1] if "edge" in labels else [1, 2]
    channels = channels_from_dataset({"labels": labels, "regions_class_order": order}, Path("dataset.json"))
    manager = LabelManager(labels, order)
    assert len(channels.labels) == manager.num_segmentation_heads
    given = softmax[: len(channels.labels)]
    np.testing.assert_array_equal(channels.paint(given), manager.convert_probabilities_to_segmentation(given))


@pytest.mark.parametrize(
    ("labels", "wanted", "expected"),
    [
        (CLASSES, (2,), [2]),
        (CLASSES, (2, 1), [1, 2]),
        (CLASSES, (4,), None),
        (CLASSES, (1, 4), None),
        (REGIONS, (2, 1), [0]),
        (REGIONS, (2,), [1]),
        (REGIONS, (1,), None),  # the difference of two regions has no probability
    ],
)
def test_structures_find_their_channels(
    labels: dict[str, Any], wanted: tuple[int, ...], expected: list[int] | None
) -> None:
    channels = channels_from_dataset({"labels": labels, "regions_class_order": [1, 2]}, Path("dataset.json"))
    assert channels.numbers_of(Structure(name="x", labels=wanted)) == expected


# --- what does not fit ---


def _store(prediction: Path, array: NDArray[Any], key: str = "probabilities") -> None:
    np.savez_compressed(probabilities_file(prediction), **{key: array})


@pytest.mark.parametrize(
    ("breaks", "said"),
    [
        (lambda p, a: _store(p, a[:, ::-1]), "to make the segmentation"),
        (lambda p, a: _store(p, a.transpose(0, 2, 1, 3)), "to make the segmentation"),
        (lambda p, a: _store(p, np.log(a)), "probabilities from 0 to 1"),
        (lambda p, a: _store(p, np.where(a > 0.9, np.nan, a)), "probabilities from 0 to 1"),
        (lambda p, a: _store(p, a[:2]), "got shape (2, 5, 6, 7)"),
        (lambda p, a: _store(p, a[..., 1:]), "got shape (3, 5, 6, 6)"),
        (lambda p, a: _store(p, a, "softmax"), "as nnU-Net's probabilities"),
        (lambda p, _: probabilities_file(p).write_bytes(b"no archive"), "as nnU-Net's probabilities"),
        (lambda p, _: (p.parent / "dataset.json").unlink(), "dataset.json that nnUNetv2_predict writes"),
        (lambda p, _: (p.parent / "dataset.json").write_text(json.dumps({"labels": REGIONS})), "regions_class_order"),
    ],
    ids=["flipped", "turned", "logits", "nan", "channels", "voxels", "key", "archive", "no dataset", "no order"],
)
def test_what_does_not_fit_is_refused(
    save: Callable[..., Path], softmax: NDArray[np.float32], breaks: Callable[[Path, NDArray[Any]], None], said: str
) -> None:
    prediction = save(softmax)
    breaks(prediction, softmax)
    with pytest.raises(UsageError) as error:
        read(prediction)
    assert said in str(error.value)
    assert "\n" not in str(error.value)

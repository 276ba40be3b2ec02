"""Claims about soft labels on their way through nnU-Net's own loader and augmentation."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_kd.distillation.cached_data import (
    SoftLabelDataset,
    SoftLabels,
    SoftLabelTransforms,
    image_facts,
    probabilities_at,
    split,
)
from nnunet_kd.distillation.soft_labels import quantise, write_case

# name: shape of the volume, patch, patch before augmentation, pseudo-2-D augmentation
GEOMETRIES: dict[str, tuple[tuple[int, int, int], tuple[int, ...], tuple[int, ...], bool]] = {
    "2d": ((6, 40, 44), (32, 32), (44, 44), False),
    "3d": ((30, 34, 28), (24, 24, 24), (34, 34, 34), False),
    "dummy 2-D": ((9, 40, 44), (12, 32, 32), (12, 44, 44), True),  # deeper than the volume: padded too
    "cascade": ((30, 34, 28), (24, 24, 24), (34, 34, 34), False),
}
EXCLUSIVE = {"background": 0, "a": 1, "b": 2, "c": 3}
REGIONS = {"background": 0, "whole": [1, 2, 3], "inner": [2, 3]}
REGIONS_AS_TUPLES = [(1, 2, 3), (2, 3)]
N_IMAGE = 2
GEOMETRY = pytest.mark.parametrize("geometry", GEOMETRIES)
Build = Callable[..., Any]


def smooth_scores(shape: tuple[int, ...], seed: int) -> Tensor:
    """Class scores that vary over several voxels, as a network's do: ``(4, *shape)``."""
    coarse = torch.randn(1, 4, *(max(2, n // 6) for n in shape), generator=torch.Generator().manual_seed(seed))
    return 6 * interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0]


@pytest.fixture
def pipeline(tmp_path: Path) -> Build:
    """Build a data set whose labels are the teacher's segmentation, its soft labels, and nnU-Net's loader over both.

    So ``target`` holds the teacher's segmentation after the very augmentation that its soft labels went through.
    """

    def build(geometry: str, *, regions: bool = False, hard: bool = False) -> tuple[Any, SoftLabels]:
        shape, patch, before, dummy = GEOMETRIES[geometry]
        cascade = geometry == "cascade"
        manager = LabelManager(REGIONS if regions else EXCLUSIVE, (1, 2) if regions else None)
        images, cache = tmp_path / "images", tmp_path / "cache"
        images.mkdir()
        for number in range(2):
            case = f"case_{number}"
            probabilities = torch.softmax(smooth_scores(shape, number) * (100 if hard else 1), dim=0)
            segmentation = probabilities.argmax(0).numpy().astype(np.int16)[None]
            noise = np.random.default_rng(number).normal(size=(N_IMAGE, *shape)).astype(np.float32)
            properties = {"class_locations": {1: np.argwhere(segmentation == 1)}}
            layout = {"chunks": (1, *shape), "blocks": (1, *shape)}
            save = nnUNetDatasetBlosc2.save_case
            save(noise, segmentation, properties, str(images / case), **layout)
            if cascade:
                nnUNetDatasetBlosc2.save_seg(segmentation[0], str(tmp_path / case))
            stored = probabilities[1:]
            if regions:
                # the same threshold for both: a region is where the segmentation has one of its labels
                stored = torch.stack(
                    [torch.from_numpy(np.isin(segmentation[0], r)) for r in ([1, 2, 3], [2, 3])]
                ).float()
            dataset = nnUNetDatasetBlosc2(str(images), [case])
            write_case(cache, case, quantise(stored.numpy()), image_facts(dataset, case), patch_size=patch)
        dataset = nnUNetDatasetBlosc2(
            str(images), folder_with_segs_from_previous_stage=str(tmp_path) if cascade else None
        )
        soft = SoftLabels(folders={2.0: cache}, recipes={2.0: {}}, n_channels=len(stored), regions=regions)
        transforms: Any = nnUNetTrainer.get_training_transforms(
            patch, (-0.5, 0.5), None, tuple(range(len(patch))), dummy, use_mask_for_norm=[True, False],
            is_cascaded=cascade, foreground_labels=[1, 2, 3], regions=REGIONS_AS_TUPLES if regions else None,
        )  # fmt: skip
        dataset, transforms = SoftLabelDataset(dataset, soft), SoftLabelTransforms(transforms, soft.n_riding)
        return nnUNetDataLoader(dataset, 2, before, patch, manager, 0.5, transforms=transforms), soft

    return build


def batches(loader: Any, n: int) -> list[dict[str, Any]]:
    np.random.seed(0)  # noqa: NPY002  # what nnU-Net draws from
    torch.manual_seed(0)
    return [loader.generate_train_batch() for _ in range(n)]


def targets(loader: Any, soft: SoftLabels) -> tuple[Tensor, Tensor]:
    """Return the probabilities of many augmented patches and the segmentation that was augmented with them."""
    probabilities, segmentations = [], []
    for batch in batches(loader, 6):
        riding = split(batch["data"], soft.n_riding)[1]
        (found,) = soft.targets(riding, [riding.shape[2:]])[2.0]
        assert found is not None
        probabilities.append(found)
        segmentations.append(batch["target"])
    return torch.cat(probabilities), torch.cat(segmentations)


@GEOMETRY
def test_a_certain_teacher_stays_the_segmentation_that_was_augmented_alike(geometry: str, pipeline: Build) -> None:
    probabilities, segmentation = targets(*pipeline(geometry, hard=True))
    assert float((probabilities.argmax(1) == segmentation[:, 0]).float().mean()) >= 0.999


@GEOMETRY
def test_classes_sum_to_one_and_agree_with_the_segmentation(geometry: str, pipeline: Build) -> None:
    """Where no two classes come near a tie: there, interpolated labels and interpolated probabilities may differ."""
    probabilities, segmentation = targets(*pipeline(geometry))
    torch.testing.assert_close(probabilities.sum(1), torch.ones_like(probabilities[:, 0]))
    assert float(probabilities.min()) >= 0
    top = probabilities.topk(2, dim=1).values
    clear = top[:, 0] - top[:, 1] > 0.1
    assert float(clear.float().mean()) > 0.9
    agrees = probabilities.argmax(1) == segmentation[:, 0]
    assert float(agrees[clear].float().mean()) >= 0.995


@GEOMETRY
def test_regions_agree_with_those_that_were_augmented_alike(geometry: str, pipeline: Build) -> None:
    if geometry != "cascade":
        probabilities, regions = targets(*pipeline(geometry, regions=True))
        assert probabilities.shape == regions.shape
        assert float(((probabilities > 0.5) == regions).float().mean()) >= 0.995


@GEOMETRY
def test_the_student_sees_the_images_and_labels_of_plain_training(geometry: str, pipeline: Build) -> None:
    """Same random draws, same voxels: intensity transforms are not changed by what rides along, nor change it."""
    loader, soft = pipeline(geometry)
    plain_loader = deepcopy(loader)  # transforms of cascades have a state
    plain_loader._data, plain_loader.transforms = loader._data.dataset, plain_loader.transforms.transforms
    for ours, plain in zip(batches(loader, 3), batches(plain_loader, 3), strict=True):
        assert torch.equal(split(ours["data"], soft.n_riding)[0], plain["data"])
        assert torch.equal(ours["target"], plain["target"])


def test_loader_travels_to_spawned_workers(pipeline: Build) -> None:
    loader, _ = pipeline("3d")
    here, there = batches(loader, 1), batches(pickle.loads(pickle.dumps(loader)), 1)
    assert torch.equal(here[0]["data"], there[0]["data"])


def test_transforms_that_leave_soft_labels_behind_are_refused() -> None:
    def forgetful(**sample: Any) -> dict[str, Any]:
        return {**sample, "regression_target": None}

    with pytest.raises(RuntimeError, match="no regression_target"):
        SoftLabelTransforms(forgetful, 1)(image=torch.zeros(2, 4, 4), segmentation=torch.zeros(1, 4, 4))


def test_coarser_scales_are_averaged_and_the_untrained_one_left_out() -> None:
    soft = torch.rand(2, 3, 8, 8) / 3
    fine, coarse, last = probabilities_at(soft, [(8, 8), (4, 4), (2, 2)], regions=False)
    assert last is None
    assert fine is not None
    assert coarse is not None
    expected = fine.reshape(2, 4, 4, 2, 4, 2).mean(dim=(3, 5))
    torch.testing.assert_close(coarse, expected)


def test_rounded_values_that_exceed_one_are_scaled_back() -> None:
    (full,) = probabilities_at(torch.full((1, 4, 1, 1), 64 / 255), [(1, 1)], regions=False)
    assert full is not None
    torch.testing.assert_close(full.flatten(), torch.tensor([0, 0.25, 0.25, 0.25, 0.25]))

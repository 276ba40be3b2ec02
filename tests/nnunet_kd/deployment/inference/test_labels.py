"""Claims about the way from logits to labels, against nnU-Net's resampling and label manager."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

from nnunet_kd.deployment.inference.labels import (
    foreground_box,
    label_type,
    may_be_foreground,
    probabilities,
    write_labels,
)
from nnunet_kd.deployment.inference.plan import Resampling
from nnunet_kd.deployment.inference.resampling import find_route

GRIDS = pytest.mark.parametrize(
    ("shape", "target", "before", "after"),
    [
        ((9, 11, 10), (15, 17, 20), (1.0, 1.0, 1.0), (0.6, 0.65, 0.5)),
        ((20, 11, 10), (9, 17, 20), (1.0, 1.0, 1.0), (2.2, 0.65, 0.5)),
        ((5, 11, 10), (9, 17, 20), (5.0, 1.0, 1.0), (2.8, 0.65, 0.5)),
        ((9, 11, 5), (15, 17, 8), (1.0, 1.0, 5.0), (0.6, 0.65, 3.1)),
        ((9, 11, 5), (9, 11, 5), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ],
    ids=["isotropic", "mixed", "axis0", "axis2", "equal"],
)
LABELS = {"background": 0, "one": 1, "two": 2}
REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "tip": 3}


def smooth_logits(shape: tuple[int, ...], n_outputs: int, dtype: str) -> np.ndarray:
    """Background for the most part, as in a real image."""
    random = np.random.default_rng(0)
    logits = random.normal(size=(n_outputs, *shape))
    logits[:, shape[0] // 2 :] = -1
    logits[0, shape[0] // 2 :] = 1 if n_outputs else -1
    return logits.astype(dtype)


def route_of(shape: Any, target: Any, before: Any, after: Any, order: int = 1) -> Any:
    return find_route(shape, target, before, after, Resampling(order=order, force_separate_z=None))


@GRIDS
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("labels", "regions"), [(LABELS, None), (REGIONS, (1, 2, 3))], ids=["labels", "regions"])
def test_slabs_give_nnunets_labels(
    shape: Any, target: Any, before: Any, after: Any, dtype: str, order: int, labels: Any, regions: Any, make_model: Any
) -> None:
    manager = (
        make_model(labels, regions=regions)
        .manager()
        .get_label_manager({"labels": labels, "regions_class_order": regions})
    )
    logits = smooth_logits(shape, 3, dtype)
    full = resample_data_or_seg_to_shape(logits, target, before, after, order=order, force_separate_z=None)
    expected = np.asarray(manager.convert_logits_to_segmentation(full))
    ours = np.full(target, 9, dtype=np.uint8)
    write_labels(logits, route_of(shape, target, before, after, order), ours, regions, slab_bytes=3 * 8 * 17 * 20)
    np.testing.assert_array_equal(ours, expected)


def nnunets_labels(logits: np.ndarray, target: tuple[int, ...], order: int) -> np.ndarray:
    spacings = [tuple(1.0 for _ in target), tuple(n / m for n, m in zip(logits.shape[1:], target, strict=True))]
    labels: np.ndarray = resample_data_or_seg_to_shape(logits, target, *spacings, order=order).argmax(0)
    return labels


def test_ties_go_to_the_first_as_in_half_precision() -> None:
    """Logits that differ by the last digit of half precision, at twice the resolution, where weights are exact."""
    logits = (1 + np.random.default_rng(0).integers(0, 2, size=(3, 6, 7, 5)) / 1024).astype(np.float16)
    ours = np.empty((12, 14, 10), dtype=np.uint8)
    write_labels(logits, route_of((6, 7, 5), ours.shape, (1, 1, 1), (0.5, 0.5, 0.5)), ours)
    np.testing.assert_array_equal(ours, nnunets_labels(logits, ours.shape, 1))
    in_between = np.empty_like(ours)
    write_labels(logits.astype(np.float32), route_of((6, 7, 5), ours.shape, (1, 1, 1), (0.5,) * 3), in_between)
    assert (ours != in_between).any()


def test_splines_may_find_foreground_between_background() -> None:
    logits = np.full((2, 1, 1, 12), 2, dtype=np.float32)
    logits[0, ..., 5:7] = 0.5
    logits[1] = 0.45
    logits[0, ..., 0], logits[1, ..., 0] = -1, -5  # so that clipping to the range leaves the overshoot
    ours = np.empty((1, 1, 24), dtype=np.uint8)
    write_labels(logits, route_of((1, 1, 12), ours.shape, (1, 1, 1), (1, 1, 0.5), order=3), ours)
    expected = nnunets_labels(logits, ours.shape, 3)
    assert not logits.argmax(0).any()
    assert expected.any()
    np.testing.assert_array_equal(ours, expected)


@GRIDS
@pytest.mark.parametrize(("labels", "regions"), [(LABELS, None), (REGIONS, (1, 2, 3))], ids=["labels", "regions"])
def test_probabilities_are_nnunets(
    shape: Any, target: Any, before: Any, after: Any, labels: Any, regions: Any, make_model: Any
) -> None:
    model = make_model(labels, regions=regions)
    manager = model.manager().get_label_manager(model.dataset_json)
    logits = smooth_logits(shape, 3, "float16")
    full = resample_data_or_seg_to_shape(logits, target, before, after, order=1, force_separate_z=None)
    expected = manager.apply_inference_nonlin(torch.from_numpy(full)).numpy()
    ours = probabilities(logits, route_of(shape, target, before, after), has_regions=regions is not None)
    # half of the last digit of half precision, where a logit lies between two of them
    np.testing.assert_allclose(ours, expected, atol=5e-4)
    assert (np.abs(ours - expected) < 3e-7).mean() > 0.99


def test_only_what_depends_on_foreground_is_computed() -> None:
    logits = np.zeros((2, 20, 20, 20), dtype=np.float32)
    logits[0] = 1
    logits[1, 8, 9, 4:6] = 2
    route = route_of((20,) * 3, (40,) * 3, (1, 1, 1), (0.5, 0.5, 0.5))
    whole = [(0, 40)] * 3
    foreground = may_be_foreground(logits, has_regions=False)
    assert foreground_box(foreground, route, whole) == [(0, 40), (17, 21), (7, 13)]
    assert foreground_box(foreground, route, [(0, 10), *whole[1:]]) == []


def test_memory_does_not_grow_with_classes() -> None:
    """The bound stated: four and a half slabs of one class; all classes at full size are here 200."""
    logits = np.random.default_rng(0).normal(size=(8, 30, 40, 40)).astype(np.float16)
    slab = 8 * 6 * 160 * 160
    out = np.empty((120, 160, 160), dtype=np.uint8)
    route = route_of(logits.shape[1:], out.shape, (1, 1, 1), (0.25, 0.25, 0.25))
    tracemalloc.start()
    write_labels(logits, route, out, slab_bytes=slab)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4.5 * slab


def test_type_of_labels() -> None:
    assert label_type(range(1, 255)) is np.uint8
    assert label_type(range(1, 256)) is np.uint16

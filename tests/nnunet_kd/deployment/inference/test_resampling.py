"""Claims about resampling, against nnU-Net's own functions on the same arrays."""

from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape, resample_data_or_seg_to_shape

from nnunet_kd.deployment.inference.interpolation import apply_along, axis_map
from nnunet_kd.deployment.inference.label_maps import resample_labels
from nnunet_kd.deployment.inference.plan import Resampling
from nnunet_kd.deployment.inference.resampling import (
    find_route,
    new_shape,
    resample,
    resample_box,
    value_bounds,
)

GRIDS = pytest.mark.parametrize(
    ("shape", "before", "after"),
    [
        ((12, 14, 10), (1.0, 1.0, 1.0), (0.7, 1.3, 0.9)),
        ((6, 12, 11), (5.0, 1.0, 1.0), (4.0, 0.7, 1.2)),
        ((11, 5, 12), (1.0, 5.0, 1.0), (0.8, 3.0, 1.0)),
        ((12, 10, 6), (1.0, 1.0, 4.0), (1.0, 0.8, 3.0)),
        ((9, 8, 7), (2.0, 2.0, 0.5), (1.0, 2.0, 1.0)),
        ((6, 8, 7), (5.0, 1.0, 1.0), (1.0, 1.0, 4.5)),
        ((1, 14, 12), (999.0, 1.0, 1.0), (999.0, 0.7, 0.8)),
        ((9, 8, 7), (1.0, 1.0, 1.0), (2.0, 2.0, 2.0)),
        ((5, 5, 5), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0)),
    ],
    ids=["isotropic", "axis0", "axis1", "axis2", "two-coarse", "crossed", "slice", "ties", "equal"],
)
SETTINGS = pytest.mark.parametrize(
    "settings",
    [
        {"order": order, "order_z": order_z, "force_separate_z": force}
        for force in (None, True, False)
        for order, order_z in ((0, 0), (1, 0), (1, 1), (3, 0), (3, 1), (1, 3))
        if force is not False or order_z == 0
    ],
    ids=lambda s: f"{s['force_separate_z']}-{s['order']}-{s['order_z']}",
)


@GRIDS
@SETTINGS
def test_agrees_with_nnunet(shape: Any, before: Any, after: Any, settings: dict[str, Any]) -> None:
    target = new_shape(shape, before, after)
    assert target == tuple(compute_new_shape(shape, before, after))
    data = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    expected = resample_data_or_seg_to_shape(data, target, before, after, **settings)
    exact = resample(data, find_route(shape, target, before, after, Resampling(**settings)))
    assert exact.dtype == expected.dtype
    np.testing.assert_allclose(exact, expected, rtol=3e-7, atol=3e-7)  # the last bit of float32
    fast = resample(data, find_route(shape, target, before, after, Resampling(**settings), precision="float32"))
    np.testing.assert_allclose(fast, expected, atol=5e-6)


@GRIDS
@SETTINGS
def test_label_maps_agree_with_nnunet(shape: Any, before: Any, after: Any, settings: dict[str, Any]) -> None:
    labels = np.random.default_rng(0).integers(-1, 3, size=(1, *shape)).astype(np.float32)
    target = new_shape(shape, before, after)
    expected = resample_data_or_seg_to_shape(labels, target, before, after, is_seg=True, **settings)
    ours = resample_labels(labels[0], target, before, after, Resampling(is_seg=True, **settings))
    np.testing.assert_array_equal(ours, expected[0])


@pytest.mark.parametrize("settings", [{"order": 1}, {"order": 3}, {"order": 3, "force_separate_z": None}], ids=str)
def test_a_box_is_a_part_of_the_whole(settings: dict[str, Any]) -> None:
    shape, target = (6, 12, 11), (15, 17, 9)
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    route = find_route(shape, target, (5.0, 1.0, 1.0), (2.0, 0.7, 1.2), Resampling(**settings))
    part = resample_box(data[0], route, [(3, 9), (0, 5), (8, 9)], value_bounds(data[0], route))
    np.testing.assert_allclose(part, resample(data, route)[0, 3:9, :5, 8:9], rtol=1e-6)


def test_long_axes_are_worked_in_blocks() -> None:
    """A spline's row depends on few inputs of a long axis, and blocks of rows take only those."""
    mapping = axis_map(300, 200, 3)
    data = np.random.default_rng(0).normal(size=(300, 2))
    assert (mapping.last - mapping.first).max() < 100
    np.testing.assert_allclose(apply_along(data, 0, mapping), mapping.matrix @ data, atol=1e-12)


def test_unknown_rows_are_not_needed() -> None:
    mapping = axis_map(10, 20, 1)
    assert mapping.outputs(4, 5) == (7, 11)
    assert mapping.inputs(7, 11) == (3, 6)


def test_no_resampling_leaves_the_array() -> None:
    data = np.ones((1, 2, 3, 4), dtype=np.float32)
    settings = Resampling(name="no_resampling_hack")
    assert resample(data, find_route((2, 3, 4), (4, 6, 8), (1, 1, 1), (2, 2, 2), settings)) is data
    assert resample_labels(data[0], (4, 6, 8), (1, 1, 1), (2, 2, 2), settings).shape == (2, 3, 4)

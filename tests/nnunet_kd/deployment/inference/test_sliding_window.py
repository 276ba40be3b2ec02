"""Claims about tiles, against nnU-Net's own."""

from typing import Any

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window

from nnunet_kd.deployment.inference.sliding_window import (
    WindowSettings,
    gaussian_weights,
    mirrorings,
    pad_to_patch,
    predict_logits,
    tile_starts,
)
from nnunet_kd.errors import UsageError


@pytest.mark.parametrize("step_size", [0.1, 0.3, 0.5, 0.75, 1.0])
@pytest.mark.parametrize("patch", [1, 7, 16])
def test_tiles_begin_where_nnunet_begins_them(patch: int, step_size: float) -> None:
    for length in range(patch, 60):
        expected = compute_steps_for_sliding_window((length,), (patch,), step_size)
        assert [tile_starts(length, patch, step_size)] == expected


@pytest.mark.parametrize("patch", [(8, 8, 8), (7, 20, 33), (40, 24), (96, 32, 16)], ids=str)
def test_weights_are_nnunets_to_the_last_bit(patch: tuple[int, ...]) -> None:
    expected = compute_gaussian(patch, value_scaling_factor=10, device=torch.device("cpu")).numpy()
    np.testing.assert_array_equal(gaussian_weights(patch), expected)


@pytest.mark.parametrize("shape", [(2, 5, 9, 4), (1, 20, 20, 20), (3, 1, 7, 30)], ids=str)
@pytest.mark.parametrize("patch", [(8, 10, 12), (16, 9)], ids=["3d", "2d"])
def test_pads_as_nnunet_does(shape: tuple[int, ...], patch: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected, slices = pad_nd_image(data, patch, "constant", {"constant_values": 0}, return_slicer=True)
    padded, inside = pad_to_patch(data, patch)
    np.testing.assert_array_equal(padded, expected)
    assert [(s.start, s.stop) for s in inside] == [(int(s.start), int(s.stop)) for s in slices]


@pytest.mark.parametrize("step_size", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("use_gaussian", [True, False], ids=["gaussian", "flat"])
@pytest.mark.parametrize("mirror", [None, (0,), (0, 1)], ids=["plain", "one", "two"])
@pytest.mark.parametrize(
    ("patch", "shape"),
    [((8, 10, 12), (1, 17, 23, 14)), ((8, 10, 12), (1, 5, 23, 9)), ((10, 12), (1, 3, 23, 9))],
    ids=["3d", "small", "2d"],
)
def test_logits_are_nnunets_to_the_last_bit(
    step_size: float, use_gaussian: bool, mirror: Any, patch: Any, shape: Any, make_model: Any, as_function: Any
) -> None:
    model = make_model(patch_size=list(patch), spacing=[1.0] * len(patch))
    network, data = model.network(), np.random.default_rng(0).normal(size=shape).astype(np.float32)
    predictor = model.predictor(network, mirror)
    predictor.tile_step_size, predictor.use_gaussian = step_size, use_gaussian
    expected = predictor.predict_sliding_window_return_logits(torch.from_numpy(data)).numpy()
    settings = {"step_size": step_size, "use_gaussian": use_gaussian, "mirror_axes": mirror or ()}
    ours = predict_logits(data, as_function(network), patch, 3, WindowSettings(**settings))
    np.testing.assert_array_equal(ours, expected)


def test_single_precision_returns_what_no_neighbour_changes() -> None:
    """In half precision weights at the volume's corners have one digit, and so have nnU-Net's logits there."""
    data = np.random.default_rng(0).normal(size=(1, 17, 23, 14)).astype(np.float32)
    for storage, is_close in (("float32", True), ("float16", False)):
        settings = WindowSettings(storage=storage, mirror_axes=(0, 2))
        logits = predict_logits(data, lambda patch: 3 * patch, (8, 10, 12), 1, settings)
        assert np.allclose(logits, 3 * data, atol=1e-5) == is_close


@pytest.mark.parametrize("bad", [1e6, np.nan], ids=["large", "nan"])
def test_refuses_logits_that_cannot_be_summed(bad: float) -> None:
    data = np.zeros((1, 4, 4, 4), dtype=np.float32)
    with pytest.raises(UsageError, match="too large for float16 or no numbers"):
        predict_logits(data, lambda patch: np.full_like(patch, bad), (4, 4, 4), 1, WindowSettings())


@pytest.mark.parametrize("step_size", [0.0, -1, 1.5])
def test_refuses_impossible_steps(step_size: float) -> None:
    with pytest.raises(UsageError, match="step size above 0"):
        WindowSettings(step_size=step_size)


def test_refuses_axes_that_the_patch_lacks() -> None:
    with pytest.raises(UsageError, match="expected axes 0 to 1"):
        mirrorings((0, 2), 2)

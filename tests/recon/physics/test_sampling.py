"""Claims about sampling."""

from math import inf, nan

import pytest
import torch

from nnunet_kd.recon.physics.sampling import (
    apply_mask,
    calibration_size,
    central_block,
    true_acceleration,
    without_padding,
)

LINES = torch.tensor([[0, 1, 0, 1, 1, 1, 0, 0.0]])


def test_what_was_not_sampled_is_a_positive_zero() -> None:
    """Negative zeros would give away the sign of what was left out, and NaN would spread."""
    kspace = torch.full((2, 3, 4, 8), -1 - 1j)
    kspace[..., 0] = nan
    masked = torch.view_as_real(apply_mask(kspace, LINES.expand(2, 1, 8)))
    assert not masked.isnan().any()
    assert not torch.signbit(masked[:, :, :, LINES[0] == 0]).any()
    assert bool((masked[:, :, :, LINES[0] == 1] == -1).all())


@pytest.mark.parametrize(
    ("mask", "padding", "expected"),
    [
        (LINES, None, 2.0),
        (LINES[0], None, 2.0),
        (LINES.numpy(), None, 2.0),
        (LINES.T, None, 2.0),
        (LINES.expand(5, 8), None, 2.0),
        (LINES, (1, 7), 1.5),
        (LINES, (4, 6), 1.0),
        (0 * LINES, None, inf),
    ],
    ids=["columns", "flat", "numpy", "rows", "points", "padded", "full between paddings", "nothing"],
)
def test_the_true_acceleration_counts_what_could_be_acquired(
    mask: torch.Tensor, padding: tuple[int, int] | None, expected: float
) -> None:
    assert true_acceleration(mask, padding) == pytest.approx(expected)


def test_padding_is_of_columns_only() -> None:
    with pytest.raises(ValueError, match="no padding columns"):
        true_acceleration(LINES.T, (1, 7))


def test_padding_is_taken_out_of_a_mask() -> None:
    assert without_padding(LINES, (2, 5)).tolist() == [[0, 0, 0, 1, 1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [(LINES, 3), (LINES.T, 3), (LINES * LINES.T, 3), (torch.ones(1, 1), 1), (1 - LINES, 0), (torch.ones(4, 7), 4)],
    ids=["columns", "rows", "points", "one", "no centre", "full"],
)
def test_the_calibration_square_is_fully_sampled(mask: torch.Tensor, expected: int) -> None:
    assert calibration_size(mask) == expected


@pytest.mark.parametrize(("size", "n_kept"), [(8, 3), (8, 4), (7, 3), (7, 4), (4, 9), (5, 1)])
def test_a_central_block_holds_the_zero_frequency(size: int, n_kept: int) -> None:
    indices = range(size)[central_block(size, n_kept)]
    assert len(indices) == min(size, n_kept)
    assert size // 2 in indices

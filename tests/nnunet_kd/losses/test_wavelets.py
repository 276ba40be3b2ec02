"""Claims about the wavelet-detail loss."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import WaveletDetail, wavelet_detail

SHAPES = pytest.mark.parametrize("spatial", [(8, 4), (4, 8, 4)], ids=["2d", "3d"])
ODD = pytest.mark.parametrize("spatial", [(5, 4), (3, 1, 6)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]
LOW, HIGH = (2**-0.5, 2**-0.5), (2**-0.5, -(2**-0.5))


def haar(image: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Return the low-pass band and the detail bands of an orthonormal Haar transform, by its filters."""
    bands = []
    for filters in product((LOW, HIGH), repeat=image.ndim):
        band = image
        for axis, (first, second) in enumerate(filters):
            even, odd = ([i for i in range(band.shape[axis]) if i % 2 == rest] for rest in (0, 1))
            odd += [even[-1]] * (len(even) - len(odd))  # the last voxel repeated
            band = first * band.index_select(axis, torch.tensor(even)) + second * band.index_select(
                axis, torch.tensor(odd)
            )
        bands.append(band)
    return bands[0], bands[1:]


def written_out(student: Tensor, teacher: Tensor, levels: int) -> Tensor:
    """Sum the squared detail coefficients over the number of voxels."""
    total = student.new_zeros(())
    for s, t in zip(student.flatten(0, 1), teacher.flatten(0, 1), strict=True):
        for _ in range(levels):
            (s, s_details), (t, t_details) = haar(s), haar(t)  # noqa: PLW2901
            total = total + sum(((a - b) ** 2).sum() for a, b in zip(s_details, t_details, strict=True))
    return total / student.numel()


@SHAPES
@pytest.mark.parametrize("levels", [1, 2])
def test_agrees_with_a_haar_transform_written_out(
    spatial: tuple[int, ...], levels: int, features: Features, assert_agrees: Callable[..., None]
) -> None:
    assert_agrees(
        lambda s, t: wavelet_detail(s, t, levels, normalize=False),
        lambda s, t: written_out(s, t, levels),
        *features(*spatial),
    )


@ODD
def test_odd_sizes_repeat_the_last_voxel(spatial: tuple[int, ...], features: Features) -> None:
    student, teacher = features(*spatial)
    n_padded = student.shape[0] * student.shape[1]
    for n in spatial:
        n_padded *= n + n % 2
    expected = written_out(student.double(), teacher.double(), 1) * student.numel() / n_padded
    torch.testing.assert_close(wavelet_detail(student, teacher, 1, normalize=False), expected.float())


@SHAPES
def test_details_and_the_last_low_pass_make_the_mean_squared_difference(
    spatial: tuple[int, ...], features: Features
) -> None:
    student, teacher = features(*spatial)
    details = wavelet_detail(student, teacher, 2, normalize=False)
    blocks = torch.nn.functional.avg_pool3d if len(spatial) == 3 else torch.nn.functional.avg_pool2d
    low_pass = blocks(student - teacher, 4).square().mean()
    torch.testing.assert_close(details + low_pass, (student - teacher).square().mean())


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("spatial", [(8, 4), (5, 3), (3, 1, 6)])
def test_a_constant_added_to_the_student_costs_nothing(
    spatial: tuple[int, ...], normalize: bool, features: Features
) -> None:
    student, teacher = features(*spatial)
    shift = torch.tensor([-3.0, 0.0, 40.0]).view(1, 3, *[1] * len(spatial))
    value, shifted = (wavelet_detail(s, teacher, 3, normalize=normalize) for s in (student, student + shift))
    torch.testing.assert_close(shifted, value, rtol=1e-4, atol=1e-6)
    assert float(wavelet_detail(teacher + shift, teacher, 3)) == pytest.approx(0, abs=1e-8)


def test_low_frequencies_are_free_and_high_ones_are_not() -> None:
    blocks = torch.tensor([[1.0, -2.0], [3.0, 0.5]]).repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]
    checker = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)[None, None]
    assert float(wavelet_detail(blocks, 0 * blocks, 2)) == 0
    assert float(wavelet_detail(blocks, 0 * blocks, 3)) > 0
    assert float(wavelet_detail(checker, 0 * checker, 1)) == pytest.approx(1)


def test_levels_beyond_the_map_add_nothing(features: Features) -> None:
    student, teacher = features(4, 4)
    torch.testing.assert_close(wavelet_detail(student, teacher, 9), wavelet_detail(student, teacher, 2))


def test_the_normalised_value_is_relative(features: Features) -> None:
    student, teacher = features(4, 4)
    torch.testing.assert_close(wavelet_detail(90 * student, 90 * teacher), wavelet_detail(student, teacher))


def test_half_precision_is_compared_in_float32(features: Features) -> None:
    student, teacher = ((60000 * x.clamp(-1, 1)).half() for x in features(8, 8))
    loss = wavelet_detail(student.requires_grad_(), teacher)
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, student)[0]).all()


def test_channels_are_adapted_only_if_their_number_differs() -> None:
    assert WaveletDetail().adapter(4, 4, 2) is None
    adapter = WaveletDetail().adapter(4, 6, 2)
    assert adapter is not None
    assert adapter(torch.zeros(1, 4, 3, 5)).shape == (1, 6, 3, 5)


@pytest.mark.parametrize("levels", [0, 1.5, "two"])
def test_wrong_levels_are_refused(levels: object) -> None:
    with pytest.raises(ValueError, match="levels: expected a"):
        WaveletDetail(levels=levels)  # type: ignore[arg-type]

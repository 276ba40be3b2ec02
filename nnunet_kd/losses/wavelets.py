"""Wavelet details: edges and fine structure of feature maps, with the low frequencies left free."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunet_kd.losses.contract import FeatureLoss, adapt_unequal_channels, check_flag, check_number
from nnunet_kd.losses.maps import check_maps, teacher_energy
from nnunet_kd.losses.reference import Reference


def wavelet_detail(student: Tensor, teacher: Tensor, levels: int = 3, *, normalize: bool = True) -> Tensor:
    """The part of the mean squared difference of features that lies in the detail bands of a Haar wavelet transform.

    With ``W`` the orthonormal Haar transform over all spatial axes: ``1 / N * sum over the detail bands of levels
    1 to L of (W student - W teacher)^2``, N the number of channels, voxels and samples. The last low-pass band is
    left out; with it the sum would be the plain mean squared difference. So a constant added to a channel costs
    nothing, nor does anything else that is constant on blocks of ``2^L`` voxels.

    Because the transform is linear and orthonormal, one level's details are the difference minus its mean over blocks
    of two voxels per axis: no filter is needed. Odd sizes are padded by repeating the last voxel, which adds no detail.
    Levels beyond the size of the map are zero.

    The idea is [1]'s, whose code takes the mean over levels of a mean per level's own grid, with Daubechies-4 filters;
    here the levels are added over one grid, so that the value is a share of the mean squared difference.

    Args:
        student: Features, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Features, same shape; detached here.
        levels: L >= 1; 3 in [1].
        normalize: Divide by the mean square of the teacher's map, as the hints do.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Fan et al., Detail Consistent Stage-Wise Distillation for Efficient 3D MRI Segmentation, 2026,
            https://arxiv.org/abs/2605.26382

    Example:
        >>> checker = torch.tensor([[[[1.0, -1.0], [-1.0, 1.0]]]])
        >>> wavelet_detail(7 + 2 * checker, checker)
        tensor(1.)
    """
    check_maps(student, teacher)
    target = teacher.detach().float()
    coarse = student.float() - target
    error = coarse.new_zeros(())
    for _ in range(levels):
        mean, residual = _haar_level(coarse)
        error = error + residual.square().mean()
        coarse = mean
    return error / teacher_energy(target) if normalize else error


def _haar_level(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return means over blocks of two voxels per axis ``(B, C, *half)`` and what is left, as blocks."""
    for axis in range(2, values.ndim):
        if values.shape[axis] % 2:
            values = torch.cat([values, values.narrow(axis, values.shape[axis] - 1, 1)], dim=axis)
    blocks = values.reshape(*values.shape[:2], *[n for size in values.shape[2:] for n in (size // 2, 2)])
    within = tuple(range(3, blocks.ndim, 2))
    mean = blocks.mean(dim=within, keepdim=True)
    return mean.squeeze(dim=within), blocks - mean


@dataclass(frozen=True, kw_only=True)
class WaveletDetail(FeatureLoss):
    """Settings of :func:`wavelet_detail` in the ``kd`` block; a 1x1x1 convolution adapts channels if they differ.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        levels: How often the map is halved, a whole number >= 1.
        normalize: Whether the error is relative to the teacher's scale.
    """

    levels: int = 3
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("normalize", self.normalize)
        check_number("levels", self.levels, above=0)
        if not isinstance(self.levels, int):
            raise ValueError(f"levels: expected a whole number, got {self.levels!r}")

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:
        """Return the regressor of channels, ``None`` where their number is the same."""
        return adapt_unequal_channels(student_channels, teacher_channels, n_axes)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return wavelet_detail(student, teacher, self.levels, normalize=self.normalize)

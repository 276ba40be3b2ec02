"""Hints: the student's features, through a small trained module, become the teacher's."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunet_kd.losses.contract import FeatureLoss, check_flag, check_number, pointwise_convolution
from nnunet_kd.losses.maps import check_maps, teacher_energy
from nnunet_kd.losses.reference import Reference


def feature_error(student: Tensor, teacher: Tensor, *, normalize: bool = True) -> Tensor:
    """Average squared difference of feature maps over batch, channels and voxels.

    The formula of FitNets' hints [1, eq. 3] and of masked generative distillation [2, eq. 5] once the student's
    features went through the adapter. Both papers sum, [1] with a factor of 1/2; the mean keeps a weight valid for
    other sizes.

    Args:
        student: Features after the adapter, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Features, same shape; detached here.
        normalize: Divide by the mean square of the teacher's map: the relative error, 1 for a student that says
            nothing. Stages of a residual network differ in scale, and the largest would drown the others.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Romero et al., FitNets: Hints for Thin Deep Nets, 2015, https://arxiv.org/abs/1412.6550
        [2] Yang et al., Masked Generative Distillation, 2022, https://arxiv.org/abs/2205.01529

    Example:
        >>> teacher = torch.full((1, 2, 4, 4), 3.0)
        >>> feature_error(torch.zeros_like(teacher), teacher)
        tensor(1.)
    """
    check_maps(student, teacher)
    target = teacher.detach().float()
    error = (student.float() - target).square().mean()
    return error / teacher_energy(target) if normalize else error


class MaskedGenerator(nn.Module):
    """The generator of masked generative distillation [2 of :func:`feature_error`, eq. 2 to 4].

    A 1x1x1 convolution to the teacher's channels, voxels set to zero at random (all channels of a voxel together,
    in training mode only), then two 3x3x3 convolutions with a ReLU between them. It has about
    ``2 * 27 * teacher_channels^2`` weights in 3-D, which are trained but never released.

    Attributes:
        mask_ratio: Share of voxels that are set to zero, in [0, 1).
    """

    def __init__(self, student_channels: int, teacher_channels: int, n_axes: int, mask_ratio: float) -> None:
        super().__init__()
        self.mask_ratio = mask_ratio
        convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
        self.align = pointwise_convolution(student_channels, teacher_channels, n_axes)
        self.generate = nn.Sequential(
            convolution(teacher_channels, teacher_channels, kernel_size=3, padding=1),
            nn.ReLU(inplace=True),
            convolution(teacher_channels, teacher_channels, kernel_size=3, padding=1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Generate the teacher's map, ``(B, C_t, *spatial)``, from the student's, ``(B, C_s, *spatial)``."""
        aligned = self.align(features)
        if self.training:
            kept = torch.rand_like(aligned[:, :1], dtype=torch.float32) >= self.mask_ratio
            aligned = aligned * kept
        generated: Tensor = self.generate(aligned)
        return generated


@dataclass(frozen=True, kw_only=True)
class FitNet(FeatureLoss):
    """Hints through a 1x1x1 convolution, which is there even for equal channels: their order means nothing.

    Settings of :func:`feature_error` in the ``kd`` block.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        normalize: Whether the error is relative to the teacher's scale.
    """

    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("normalize", self.normalize)

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module:
        """Return the regressor of channels."""
        return pointwise_convolution(student_channels, teacher_channels, n_axes)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return feature_error(student, teacher, normalize=self.normalize)


@dataclass(frozen=True, kw_only=True)
class MGD(FeatureLoss):
    """Masked generative distillation: the teacher's whole map out of the student's unmasked voxels.

    Settings of :class:`MaskedGenerator` and :func:`feature_error` in the ``kd`` block.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        mask_ratio: Share of voxels masked in training, in [0, 1); the paper's value for segmentation is 0.75.
        normalize: Whether the error is relative to the teacher's scale.
    """

    mask_ratio: float = 0.75
    normalize: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flag("normalize", self.normalize)
        check_number("mask_ratio", self.mask_ratio)
        if not 0 <= self.mask_ratio < 1:
            raise ValueError(f"mask_ratio: expected a number >= 0 and below 1, got {self.mask_ratio!r}")

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module:
        """Return the generator, which masks by itself."""
        return MaskedGenerator(student_channels, teacher_channels, n_axes, self.mask_ratio)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return feature_error(student, teacher, normalize=self.normalize)

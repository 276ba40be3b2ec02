"""Channel-wise distillation: where each channel is active, as a distribution over space."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import log_softmax

from nnunet_kd.losses.contract import FeatureLoss, adapt_unequal_channels, check_number
from nnunet_kd.losses.maps import check_maps
from nnunet_kd.losses.reference import Reference


def cwd(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Average divergence of the channels' distributions over space, over channels and samples.

    ``T^2 / C * sum over c of KL(softmax(teacher_c / T) || softmax(student_c / T))``, the softmax over voxels [1].
    A divergence of two distributions over space does not grow with the number of voxels: for high T it tends to half
    the variance over voxels of ``student_c - teacher_c``. A constant added to a channel changes nothing.

    Args:
        student: Features, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Features, same shape; detached here.
        temperature: T > 0; 4 in [1]. The lower, the more the strongest voxels count.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, 2021, section on channel-wise
            distillation, https://arxiv.org/abs/2011.13256

    Example:
        >>> import torch
        >>> teacher = torch.arange(8.0).view(1, 2, 2, 2)
        >>> cwd(teacher + 5, teacher)
        tensor(0.)
    """
    check_maps(student, teacher)
    # float32: the softmax over a patch has a million terms, each of about a millionth
    log_q = log_softmax(student.float().flatten(2) / temperature, dim=2)
    log_p = log_softmax(teacher.detach().float().flatten(2) / temperature, dim=2)
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=2).mean()


@dataclass(frozen=True, kw_only=True)
class CWD(FeatureLoss):
    """Settings of :func:`cwd` in the ``kd`` block. Channels are adapted by a 1x1x1 convolution if their number differs.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        temperature: T > 0 of the softmax over space.
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=0)

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:
        """Return the regressor of channels, ``None`` where their number is the same."""
        return adapt_unequal_channels(student_channels, teacher_channels, n_axes)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:  # noqa: ARG002
        """Compare one pair of feature maps."""
        return cwd(student, teacher, self.temperature)

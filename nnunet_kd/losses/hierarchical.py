"""Feedback between layers: features projected to the channels of others, compared voxel by voxel as distributions."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from nnunet_kd.distillation.hierarchy import OUTPUT
from nnunet_kd.losses.contract import FeatureLoss, check_number
from nnunet_kd.losses.logits import bernoulli_kl
from nnunet_kd.losses.maps import check_maps
from nnunet_kd.losses.reference import Reference

SIDES = ("teacher", "student")
PROJECTORS = ("auto", "learned", "fixed", "random_per_step")


def feature_kl(student: Tensor, teacher: Tensor, temperature: float = 4.0, *, regions: bool = False) -> Tensor:
    """Average divergence of the channels' distribution at a voxel over voxels and samples.

    ``T^2 * mean over voxels of KL(softmax_c(teacher / T) || softmax_c(student / T))``, the prediction map distillation
    of [1] with the features of any layer in the place of the logits, as [2] uses it. The authors' code flattens every
    map to rows of two numbers, so that its divisor is ``voxels * C / 2`` and the term shrinks with the number of
    channels; here it is the number of voxels.

    Args:
        student: Features in the teacher's channels, ``(B, C, *spatial)``. Gradients flow into these only.
        teacher: Features, same shape; detached here.
        temperature: T > 0; 4 in [1] and [2].
        regions: The channels are logits of overlapping regions: each a Bernoulli variable of its own, ``sigmoid`` for
            ``softmax``, and their divergences are added.

    Returns:
        A scalar in float32, >= 0.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, 2021,
            https://arxiv.org/abs/2108.09987
        [2] Gorade et al., Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver Tumor
            Segmentation, 2024, https://arxiv.org/abs/2311.16700, and the authors' code

    Example:
        >>> teacher = torch.arange(8.0).view(1, 2, 2, 2)
        >>> feature_kl(teacher + 5, teacher)
        tensor(0.)
    """
    check_maps(student, teacher)
    scaled, target = student.float() / temperature, teacher.detach().float() / temperature
    if regions:
        divergence = bernoulli_kl(target.sigmoid(), scaled)
    else:
        log_p = log_softmax(target, dim=1)
        divergence = (log_p.exp() * (log_p - log_softmax(scaled, dim=1))).sum(dim=1)
    return temperature**2 * divergence.mean()


class OrthogonalProjection(nn.Module):
    """A 1x1x1 convolution whose weights, random rows or columns of length 1 at right angles, never change.

    They are drawn from torch's global random state and kept as a buffer.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
    """

    weight: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.register_buffer("weight", nn.init.orthogonal_(torch.empty(channels_out, channels_in)))

    def forward(self, features: Tensor) -> Tensor:
        """Project ``(B, channels_in, *spatial)`` to ``(B, channels_out, *spatial)``."""
        return torch.einsum("oc,bc...->bo...", self.weight, features)


class RedrawnProjection(nn.Module):
    """A 1x1x1 convolution with weights and a bias that are drawn anew at every call, as PyTorch draws first weights.

    It has a random stream of its own, whose seed and position are buffers: a resumed run goes on in it, and nothing
    else that is random changes.

    Args:
        channels_in: Input channels.
        channels_out: Output channels.
    """

    seed: Tensor
    n_calls: Tensor

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.shape = (channels_out, channels_in)
        self.register_buffer("seed", torch.randint(2**31, ()))
        self.register_buffer("n_calls", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor) -> Tensor:
        """Project ``(B, channels_in, *spatial)`` to ``(B, channels_out, *spatial)``."""
        generator = torch.Generator().manual_seed(int(self.seed + self.n_calls))
        self.n_calls += 1
        bound = 1 / sqrt(self.shape[1])
        weight = torch.empty(self.shape).uniform_(-bound, bound, generator=generator).to(features)
        bias = torch.empty(self.shape[0]).uniform_(-bound, bound, generator=generator).to(features)
        projected = torch.einsum("oc,bc...->bo...", weight, features)
        return projected + bias.view(-1, *[1] * (features.ndim - 2))


@dataclass(frozen=True, kw_only=True)
class FeatureKL(FeatureLoss):
    """Settings of :func:`feature_kl` in the ``kd`` block.

    The unit of a class or a region is kept where the teacher's side of the pairs is ``output``: for regions it is then
    compared by the sigmoid. That must hold for all pairs of the term or for none.

    Attributes:
        pairs: Which stages are compared, see :class:`nnunet_kd.losses.contract.FeatureLoss`.
        temperature: T > 0 of the softmax over channels.
        onto: Whose channels the other side is projected to: ``teacher`` or ``student``.
        projector: ``learned``, a 1x1x1 convolution with a bias, trained with the student, and possible only for the
            student's map: a target that may learn becomes one that is easy to hit. ``fixed``, random and orthogonal.
            ``random_per_step``, drawn anew at every step as in the published code. ``auto`` is ``learned`` onto the
            teacher, ``fixed`` onto the student.
    """

    temperature: float = 4.0
    onto: str = "teacher"
    projector: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, above=0)
        for name, known in (("onto", SIDES), ("projector", PROJECTORS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.onto == "student" and self.projector == "learned":
            raise ValueError("projector: expected fixed or random_per_step onto the student, got 'learned'")
        if 0 < sum(self._targets_output) < len(self._targets_output):
            raise ValueError("pairs: expected 'output' on the teacher's side of all pairs or of none; use two losses")

    @property
    def _targets_output(self) -> list[bool]:
        if isinstance(self.pairs, str) or self.onto == "student":
            return [False]
        return [side in (OUTPUT, (OUTPUT,)) for _, side in self.pairs]

    def adapter(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:
        """Return the projector of the student's map, ``None`` if it is the teacher's that is projected."""
        if self.onto == "student":
            return None
        if self.projector in ("auto", "learned"):
            convolution = nn.Conv3d if n_axes == 3 else nn.Conv2d
            return convolution(student_channels, teacher_channels, kernel_size=1)
        return self._untrained(student_channels, teacher_channels)

    def target_projection(self, student_channels: int, teacher_channels: int, n_axes: int) -> nn.Module | None:  # noqa: ARG002
        """Return the projector of the teacher's map, ``None`` if it is the student's that is projected."""
        return None if self.onto == "teacher" else self._untrained(teacher_channels, student_channels)

    def _untrained(self, channels_in: int, channels_out: int) -> nn.Module:
        redrawn = self.projector == "random_per_step"
        return (RedrawnProjection if redrawn else OrthogonalProjection)(channels_in, channels_out)

    def __call__(self, student: Tensor, teacher: Tensor, reference: Reference) -> Tensor:
        """Compare one pair of feature maps."""
        regions = reference.regions and all(self._targets_output)
        return feature_kl(student, teacher, self.temperature, regions=regions)

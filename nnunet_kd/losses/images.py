"""Imitation: the student's image becomes the teacher's. For networks whose output is an image, not classes."""

from dataclasses import dataclass

from torch import Tensor

from nnunet_kd.losses.contract import ImageLoss, check_choice, check_flag

NORMS = ("l1", "l2")


def imitation(student: Tensor, teacher: Tensor, norm: str = "l1", *, published_scale: bool = False) -> Tensor:
    """Average distance of the student's image from the teacher's, over pixels.

    The imitation term of KD-MRI [1]. Its released code takes the mean and then divides by the number of pixels of the
    batch once more, a factor of about 1e-5 that leaves nothing of the term: ``published_scale`` does the same.

    Args:
        student: Images, ``(B, H, W)`` or any other shape, real or complex. Gradients flow into these only.
        teacher: Images, same shape; detached here. Where only one side is complex, magnitudes are compared.
        norm: ``l1``, the mean of the absolute difference, of complex numbers their distance; ``l2``, of its square.
        published_scale: Whether to divide by the number of values again.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If shapes differ.

    References:
        [1] Murugesan et al., KD-MRI: A knowledge distillation framework for image reconstruction and image restoration
            in MRI workflow, 2020, https://arxiv.org/abs/2004.05319

    Example:
        >>> import torch
        >>> teacher = torch.full((1, 2, 2), 3.0 + 4.0j)
        >>> imitation(torch.zeros(1, 2, 2), teacher), imitation(torch.zeros_like(teacher), teacher, "l2")
        (tensor(5.), tensor(25.))
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")
    ours, theirs = _comparable(student, teacher.detach())
    distance = (ours - theirs).abs()
    value = distance.mean() if norm == "l1" else distance.square().mean()
    return value / student.numel() if published_scale else value


def _comparable(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if student.is_complex() and teacher.is_complex():
        return student, teacher
    ours, theirs = (image.abs() if image.is_complex() else image.float() for image in (student, teacher))
    return ours, theirs


@dataclass(frozen=True, kw_only=True)
class Imitation(ImageLoss):
    """Settings of :func:`imitation` in the ``kd`` block.

    Attributes:
        norm: ``l1`` or ``l2``.
        published_scale: Whether to divide by the number of pixels twice, as KD-MRI's released code does.
    """

    norm: str = "l1"
    published_scale: bool = False

    def __post_init__(self) -> None:
        check_flag("published_scale", self.published_scale)
        check_choice("norm", self.norm, NORMS)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compare the images."""
        return imitation(student, teacher, self.norm, published_scale=self.published_scale)

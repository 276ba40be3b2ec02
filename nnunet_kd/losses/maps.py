"""What the losses on feature maps share: the check of shapes, directions of vectors, the teacher's scale."""

import torch
from torch import Tensor

# features shorter than this have no direction and no scale: dividing by them would make gradients of noise
SHORTEST = 1e-6


def check_maps(student: Tensor, teacher: Tensor, *, channels: bool = True) -> None:
    """Refuse feature maps that cannot be compared.

    Args:
        student: ``(B, C_s, *spatial)``.
        teacher: ``(B, C_t, *spatial)``.
        channels: Whether ``C_s`` and ``C_t`` must be equal too.

    Raises:
        ValueError: If batch, space or channels differ.
    """
    start = 1 if channels else 2
    if student.shape[0] != teacher.shape[0] or student.shape[start:] != teacher.shape[start:]:
        raise ValueError(f"student and teacher differ in shape: {tuple(student.shape)} and {tuple(teacher.shape)}")


def inverse_length(vectors: Tensor, dim: int) -> Tensor:
    """Return ``1 / |v|`` along an axis, which is kept; 0, without gradient, for vectors shorter than 1e-6.

    Args:
        vectors: Any shape, float32.
        dim: The axis of the components.

    Example:
        >>> inverse_length(torch.tensor([[3.0, 4.0], [0.0, 0.0]]), dim=1)
        tensor([[0.2000],
                [0.0000]])
    """
    length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True)
    return torch.where(length > SHORTEST, 1 / length.clamp(min=SHORTEST), 0.0)


def teacher_energy(teacher: Tensor) -> Tensor:
    """Return the mean square of a teacher's map over batch, channels and space; 1 for a map of zeros.

    A squared difference divided by it is a relative error: 0 for a perfect student, 1 for one that says nothing,
    whatever the scale of the features.

    Args:
        teacher: ``(B, C, *spatial)``, float32.
    """
    energy = teacher.square().mean()
    return torch.where(energy > SHORTEST**2, energy, 1.0)

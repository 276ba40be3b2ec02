"""Student-friendly teachers: each learns beside a student that goes on from its cascades, as in SFT-KD-Recon."""

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.losses.images import imitation
from nnunet_kd.recon.networks.dc_cnn import DCCNN
from nnunet_kd.recon.physics.acquisition import Acquisition


class StudentFriendlyTeacher(nn.Module):
    """A teacher in training, and its branches: its first cascades, then a student's remaining ones [1].

    Branch i goes through the teacher's cascades 1 to i and the student's i + 1 to n, for i = 1 to n - 1. All branches
    share one student, whose first cascade none of them uses: it gets no gradient here. Each branch starts from the
    image that the teacher's own pass has after cascade i, so that the teacher is computed once.

    Args:
        teacher: To be trained.
        student: Of as many cascades and the same kind of image; a copy of it is trained.

    Raises:
        UsageError: If the two do not fit.

    References:
        [1] Gayathri et al., SFT-KD-Recon: Learning a Student-friendly Teacher for Knowledge Distillation in
            Magnetic Resonance Image Reconstruction, 2023, https://arxiv.org/abs/2304.05057
    """

    def __init__(self, teacher: DCCNN, student: DCCNN) -> None:
        super().__init__()
        if len(teacher.cascades) != len(student.cascades) or len(teacher.cascades) < 2:
            raise UsageError(
                "student-friendly teacher: expected teacher and student of equally many cascades, 2 at least, got "
                f"{len(teacher.cascades)} and {len(student.cascades)}"
            )
        if teacher.complex_data != student.complex_data:
            raise UsageError("student-friendly teacher: complex_data of teacher and student differ; plan both alike")
        self.teacher, self.student = teacher, deepcopy(student)
        # in no branch: DDP would wait for its gradient
        self.student.cascades[0].requires_grad_(requires_grad=False)
        self.student.consistency[0].requires_grad_(requires_grad=False)

    def forward(self, acquisition: Acquisition) -> tuple[Tensor, list[Tensor]]:
        """Return the teacher's image and those of its branches, each ``(B, H, W)``."""
        image, n_cascades = self.teacher.start(acquisition), len(self.teacher.cascades)
        branches = []
        for index in range(n_cascades):
            image = self.teacher.refine(index, image, acquisition)
            if index < n_cascades - 1:
                branches.append(self._branch(index + 1, image, acquisition))
        return image, branches

    def _branch(self, start: int, image: Tensor, acquisition: Acquisition) -> Tensor:
        for index in range(start, len(self.student.cascades)):
            image = self.student.refine(index, image, acquisition)
        return image

    def initialised_student(self) -> DCCNN:
        """Return a copy of the student with the weights that the branches learnt; its first cascade is as it was."""
        return deepcopy(self.student).requires_grad_(requires_grad=True)


def student_friendly_loss(
    image: Tensor, branches: Sequence[Tensor], target: Tensor, *, published_scale: bool = False
) -> Tensor:
    """Return ``L1(T, x) + mean_i L1(S_i, x) + mean_i imitation(S_i, T)`` of a teacher T and its branches S_i.

    The branches imitate the teacher, not the teacher the branches: in the last term T is a constant.

    Args:
        image: The teacher's, ``(B, H, W)``, complex or real.
        branches: The branches', same shape each.
        target: Same shape; where it is real, magnitudes are compared.
        published_scale: Whether to divide the last term by the number of pixels once more, as the released code does.

    Returns:
        A scalar in float32.

    Raises:
        ValueError: If shapes differ.
    """
    supervised = imitation(image, target) + _mean([imitation(branch, target) for branch in branches])
    return supervised + _mean([imitation(branch, image, published_scale=published_scale) for branch in branches])


def _mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()

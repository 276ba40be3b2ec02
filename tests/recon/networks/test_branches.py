"""Claims about student-friendly teachers."""

from collections.abc import Callable

import pytest
import torch

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks import DCCNN
from nnunet_kd.recon.networks.branches import StudentFriendlyTeacher, student_friendly_loss
from nnunet_kd.recon.physics.acquisition import Acquisition

Measure = Callable[..., Acquisition]
KINDS = pytest.mark.parametrize("complex_data", [True, False], ids=["complex", "magnitude"])


def pair(*, cascades: int = 4, complex_data: bool = True) -> StudentFriendlyTeacher:
    torch.manual_seed(0)
    return StudentFriendlyTeacher(
        DCCNN(cascades, 5, 3, complex_data=complex_data), DCCNN(cascades, 3, 3, complex_data=complex_data)
    )


@KINDS
def test_branch_i_is_the_teacher_up_to_i_and_the_student_after_it(complex_data: bool, acquisition: Measure) -> None:
    both, measured = pair(complex_data=complex_data), acquisition()
    image, branches = both(measured)
    assert torch.equal(image, both.teacher(measured))
    assert len(branches) == 3
    for i, branch in enumerate(branches, start=1):
        unfolded = both.teacher.start(measured)
        for cascade in range(4):
            network = both.teacher if cascade < i else both.student
            unfolded = network.refine(cascade, unfolded, measured)
        assert torch.equal(branch, unfolded)


@KINDS
@pytest.mark.parametrize("published_scale", [False, True])
def test_the_loss_is_the_published_sum(complex_data: bool, published_scale: bool, acquisition: Measure) -> None:
    image, branches = pair(complex_data=complex_data)(acquisition())
    target = torch.randn_like(image)
    n = image.numel() if published_scale else 1
    expected = (image - target).abs().mean()
    for branch in branches:
        expected = expected + ((branch - target).abs().mean() + (branch - image).abs().mean() / n) / len(branches)
    torch.testing.assert_close(
        student_friendly_loss(image, branches, target, published_scale=published_scale), expected
    )


def test_all_learn_but_the_students_first_cascade(acquisition: Measure) -> None:
    both = pair()
    image, branches = both(acquisition())
    student_friendly_loss(image, branches, torch.zeros_like(image)).backward()
    idle = {name for name, parameter in both.named_parameters() if parameter.grad is None}
    assert idle == {name for name, _ in both.named_parameters() if name.startswith("student.cascades.0.")}
    assert not any(both.get_parameter(name).requires_grad for name in idle)  # or DDP would wait for them


def test_in_imitation_the_teacher_is_a_constant(acquisition: Measure) -> None:
    image = torch.randn(2, 4, 4, requires_grad=True)
    branch, target = torch.randn(2, 4, 4), image.detach().clone()
    student_friendly_loss(image, [branch], target).backward()
    assert image.grad is not None
    assert not image.grad.any()


def test_the_student_starts_from_what_the_branches_learnt_and_the_one_given_is_untouched() -> None:
    student = DCCNN(2, 3, 3)
    both = StudentFriendlyTeacher(DCCNN(2, 5, 3), student)
    with torch.no_grad():
        both.student.cascades[1][0][0].weight.fill_(7)
    initialised = both.initialised_student()
    assert all(parameter.requires_grad for network in (initialised, student) for parameter in network.parameters())
    assert bool((initialised.cascades[1][0][0].weight == 7).all())
    assert not bool((student.cascades[1][0][0].weight == 7).any())
    assert torch.equal(initialised.cascades[0][0][0].weight, student.cascades[0][0][0].weight)


def test_networks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="equally many cascades, 2 at least, got 2 and 3"):
        StudentFriendlyTeacher(DCCNN(2, 3, 3), DCCNN(3, 3, 3))
    with pytest.raises(UsageError, match="complex_data of teacher and student differ"):
        StudentFriendlyTeacher(DCCNN(2, 3, 3), DCCNN(2, 3, 3, complex_data=False))

"""Claims about the losses on logits."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.nn.functional import kl_div, log_softmax, softmax

from nnunet_kd.losses import LogitsKL, Reference, log_probabilities, logits_kl

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])


def pair(*spatial: int, n_classes: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, n_classes, *spatial)
    return student, teacher


@SHAPES
def test_agrees_with_a_sum_over_voxels(spatial: tuple[int, ...]) -> None:
    """The reference is written out with torch's own KL over a list of voxels."""
    student, teacher = pair(*spatial)
    rows = [x.movedim(1, -1).reshape(-1, 3) / 2.0 for x in (student, teacher)]
    expected = 4.0 * kl_div(log_softmax(rows[0], dim=1), softmax(rows[1], dim=1), reduction="batchmean")
    torch.testing.assert_close(logits_kl(student, softmax(teacher / 2, dim=1), 2.0), expected)


@SHAPES
def test_regions_agree_with_bernoulli_variables_written_out(spatial: tuple[int, ...]) -> None:
    student, teacher = pair(*spatial)
    p, q = torch.sigmoid(teacher.double() / 2), torch.sigmoid(student.double() / 2)
    divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    expected = (4 * divergence.sum(1).mean()).float()
    torch.testing.assert_close(logits_kl(student, torch.sigmoid(teacher / 2), 2.0, regions=True), expected)


@pytest.mark.parametrize("regions", [False, True])
def test_equal_outputs_cost_nothing(regions: bool) -> None:
    logits, _ = pair(4, 4)
    p = torch.sigmoid(logits / 3) if regions else softmax(logits / 3, dim=1)
    assert float(logits_kl(logits, p, 3.0, regions=regions)) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("regions", [False, True])
def test_hard_targets_stay_finite(regions: bool) -> None:
    """0 log 0 is 0: quantised soft labels hold exact zeros and ones."""
    student, _ = pair(4, 4)
    student.requires_grad_()
    hard = torch.zeros_like(student)
    hard[:, 1] = 1
    loss = logits_kl(student, hard, 2.0, regions=regions)
    loss.backward()
    assert torch.isfinite(loss)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_softmax_is_invariant_to_a_shift_of_the_logits() -> None:
    student, teacher = pair(4, 4)
    p = softmax(teacher, dim=1)
    torch.testing.assert_close(logits_kl(student + 7, p), logits_kl(student, p))


@pytest.mark.parametrize("regions", [False, True])
def test_masked_voxels_do_not_count(regions: bool) -> None:
    student, teacher = pair(4, 4)
    p = softmax(teacher, dim=1)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[..., :2] = True
    expected = logits_kl(student[..., :2], p[..., :2], regions=regions)
    torch.testing.assert_close(logits_kl(student, p, weight=mask, regions=regions), expected)


def test_an_empty_mask_costs_nothing() -> None:
    student, teacher = pair(4, 4)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    assert float(logits_kl(student, softmax(teacher, dim=1), weight=mask)) == 0


def test_gradients_reach_the_student_only() -> None:
    student, teacher = pair(4, 4)
    student.requires_grad_()
    teacher.requires_grad_()
    logits_kl(student, softmax(teacher, dim=1)).backward()
    assert student.grad is not None
    assert float(student.grad.abs().sum()) > 0
    assert teacher.grad is None


@pytest.mark.parametrize("regions", [False, True])
def test_gradients_are_those_of_the_formula(regions: bool) -> None:
    student, teacher = (x.double() for x in pair(2, 2))
    p = torch.sigmoid(teacher) if regions else softmax(teacher, dim=1)
    # the loss computes in float32, hence the wide tolerance
    assert gradcheck(
        lambda z: logits_kl(z, p, 2.0, regions=regions), student.requires_grad_(), eps=1e-2, atol=2e-3, rtol=2e-2
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher = pair(8, 8)
    loss = logits_kl((student * 30).to(dtype), softmax(teacher * 30, dim=1), 2.0)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)


def test_the_temperature_keeps_the_scale_of_the_gradient() -> None:
    """For high temperatures the gradient tends to (z_s - z_t) / C per voxel, whatever T is."""
    norms = []
    for temperature in (50.0, 200.0):
        student, teacher = pair(4, 4)
        student.requires_grad_()
        logits_kl(student, softmax(teacher / temperature, dim=1), temperature).backward()
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 2, 4\) and \(1, 3, 4\)"):
        logits_kl(torch.zeros(1, 2, 4), torch.zeros(1, 3, 4))


def test_log_probabilities_are_bounded_at_half_a_quantisation_step() -> None:
    assert float(log_probabilities(torch.zeros(1)).exp()) == pytest.approx(1 / 510)


def test_ignored_voxels_keep_guidance_unless_switched_off() -> None:
    student, teacher = pair(4, 4)
    everywhere = torch.ones(2, 1, 4, 4, dtype=torch.bool)
    reference = Reference(labels=torch.zeros(2, 1, 4, 4), n_channels=3, ignored=everywhere)
    p = softmax(teacher, dim=1)
    assert float(LogitsKL(temperature=1.0)(student, p, reference)) > 0
    assert float(LogitsKL(temperature=1.0, guide_ignored=False)(student, p, reference)) == 0

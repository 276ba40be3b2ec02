"""Checks that every loss must pass, whoever adds it."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.losses import LOSSES, FeatureLoss, OutputLoss, Reference, loss_options
from nnunet_kd.losses.logits import probabilities
from nnunet_kd.losses.weighting import WEIGHTINGS

N_CLASSES = 3
STUDENT_CHANNELS = 4
OF_OUTPUTS = [name for name, loss in LOSSES.items() if issubclass(loss, OutputLoss)]
OF_FEATURES = [name for name, loss in LOSSES.items() if issubclass(loss, FeatureLoss)]
# a loss and the channels of its teacher; features come with as many channels as the student's and with more
CASES = [(name, N_CLASSES) for name in OF_OUTPUTS] + [(name, n) for n in (STUDENT_CHANNELS, 6) for name in OF_FEATURES]
# what makes a student differ where turned maps do not: similarity of samples does not ask where in a map things are
DIFFERENT = {"similarity_preserving": lambda maps: maps[:1].expand_as(maps)}
# why a patch repeated along an axis may cost something else
NOT_TILED = {
    "mgd": "its convolutions see the edges of the patch",
    "pairwise_affinity": "it pools every patch to the same number of places",
}

EVERY = pytest.mark.parametrize(("name", "channels"), CASES, ids=[f"{name}-{n}" for name, n in CASES])
SHAPES = pytest.mark.parametrize("spatial", [(8, 6), (8, 4, 6)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


@dataclass(frozen=True, kw_only=True)
class Case:
    """A loss and what it compares: logits with probabilities, or feature maps."""

    loss: OutputLoss | FeatureLoss
    student: Tensor
    teacher: Tensor
    reference: Reference
    adapter: nn.Module | None = None

    def value(self, dtype: torch.dtype = torch.float32) -> Tensor:
        adapted = self.student if self.adapter is None else self.adapter(self.student)
        return self.loss(adapted.to(dtype), self.teacher, self.reference)

    def gradient(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """Return the value, checked to be finite, and its gradient to the student, checked likewise."""
        student = self.student.detach().requires_grad_()
        value = replace(self, student=student).value(dtype)
        (gradient,) = torch.autograd.grad(value, student)
        assert value.dtype == torch.float32
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()
        return value.detach(), gradient

    def on(self, change: Callable[[Tensor], Tensor]) -> "Case":
        """Return the case with outputs, features and labels changed alike."""
        reference = replace(self.reference, labels=change(self.reference.labels))
        return replace(self, student=change(self.student), teacher=change(self.teacher), reference=reference)


def build(name: str, channels: int, spatial: tuple[int, ...], *, regions: bool, scale: float = 1.0) -> Case:
    """Return random outputs or features and labels in which every class occurs."""
    generator = torch.Generator().manual_seed(0)
    loss = LOSSES[name]()
    n_student = N_CLASSES if isinstance(loss, OutputLoss) else STUDENT_CHANNELS
    student, teacher = (torch.randn(2, n, *spatial, generator=generator) * scale for n in (n_student, channels))
    adapter = None
    if isinstance(loss, OutputLoss):
        teacher = probabilities(teacher, loss.temperature, regions=regions)
    else:
        torch.manual_seed(0)
        adapter = loss.adapter(n_student, channels, len(spatial))
    shape = (2, N_CLASSES if regions else 1, *spatial)
    labels = torch.randint(2 if regions else N_CLASSES, shape, generator=generator)
    reference = Reference(labels=labels, n_channels=N_CLASSES, regions=regions)
    adapter = None if adapter is None else adapter.eval().requires_grad_(False)
    return Case(loss=loss, student=student, teacher=teacher, reference=reference, adapter=adapter)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_documented_and_builds_from_its_defaults(name: str) -> None:
    loss = LOSSES[name]()
    assert "Attributes:" in (loss.__doc__ or "")
    assert set(loss_options(name)) == {field.name for field in fields(loss)}


@EVERY
@REGIONS
@SHAPES
def test_a_step_down_its_gradient_brings_the_student_nearer(
    name: str, channels: int, regions: bool, spatial: tuple[int, ...]
) -> None:
    case = build(name, channels, spatial, regions=regions)
    before, gradient = case.gradient()
    after = replace(case, student=case.student - 1e-2 / gradient.abs().max() * gradient).value()
    assert float(after) < float(before)


@EVERY
@REGIONS
def test_the_teacher_gets_no_gradient(name: str, channels: int, regions: bool) -> None:
    case = build(name, channels, (8, 6), regions=regions)
    case.student.requires_grad_()
    case.teacher.requires_grad_()
    case.value().backward()
    assert case.student.grad is not None
    assert float(case.student.grad.abs().sum()) > 0
    assert case.teacher.grad is None


@EVERY
@REGIONS
@HALF
def test_half_precision_is_safe(name: str, channels: int, regions: bool, dtype: torch.dtype) -> None:
    case = build(name, channels, (8, 6), regions=regions, scale=30)
    teacher = case.teacher.to(dtype) if isinstance(case.loss, FeatureLoss) else case.teacher
    value, _ = replace(case, teacher=teacher).gradient(dtype)
    exact, _ = case.gradient()
    assert float(value) == pytest.approx(float(exact), rel=0.05)


@EVERY
@REGIONS
@SHAPES
@pytest.mark.parametrize("labels", ["background", "one class", "ignored"])
def test_labels_that_lack_classes_are_safe(
    name: str, channels: int, regions: bool, spatial: tuple[int, ...], labels: str
) -> None:
    case = build(name, channels, spatial, regions=regions)
    values = torch.full_like(case.reference.labels, 1 if labels == "one class" else 0)
    ignored = torch.ones_like(case.reference.labels[:, :1], dtype=torch.bool) if labels == "ignored" else None
    replace(case, reference=replace(case.reference, labels=values, ignored=ignored)).gradient()


@EVERY
@REGIONS
def test_outputs_and_features_without_contrast_are_safe(name: str, channels: int, regions: bool) -> None:
    case = build(name, channels, (8, 4, 6), regions=regions)
    flat = torch.zeros_like(case.teacher)
    flat[:, 0] = 1
    for teacher in (flat, torch.zeros_like(flat)):
        replace(case, teacher=teacher).gradient()
        replace(case, teacher=teacher, student=torch.zeros_like(case.student)).gradient()
        replace(case, teacher=teacher, student=case.student.sign() * 200).gradient()


@EVERY
@REGIONS
@SHAPES
def test_a_student_that_equals_its_teacher_costs_nothing(
    name: str, channels: int, regions: bool, spatial: tuple[int, ...]
) -> None:
    case = build(name, channels, spatial, regions=regions)
    equal = probabilities(case.student, getattr(case.loss, "temperature", 1.0), regions=regions)
    student, teacher = (case.student, equal) if name in OF_OUTPUTS else (case.teacher, case.teacher)
    same = replace(case, student=student, teacher=teacher, adapter=None)
    assert float(same.value()) == pytest.approx(0, abs=1e-5)
    different = DIFFERENT.get(name, lambda maps: maps.flip(2))(student)
    assert float(replace(same, student=different).value()) > 1e-4


@EVERY
@REGIONS
@SHAPES
def test_a_batch_of_copies_costs_what_one_costs(
    name: str, channels: int, regions: bool, spatial: tuple[int, ...]
) -> None:
    one = build(name, channels, spatial, regions=regions).on(lambda x: x[:1])
    copies = one.on(lambda x: torch.cat([x, x]))
    torch.testing.assert_close(copies.value(), one.value(), rtol=1e-4, atol=1e-6)


@EVERY
@REGIONS
@SHAPES
def test_a_larger_patch_of_the_same_costs_the_same(
    name: str, channels: int, regions: bool, spatial: tuple[int, ...]
) -> None:
    if name in NOT_TILED:
        pytest.skip(NOT_TILED[name])
    case = build(name, channels, spatial, regions=regions)
    tiled = case.on(lambda x: torch.cat([x, x], dim=2))
    torch.testing.assert_close(tiled.value(), case.value(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", OF_OUTPUTS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@REGIONS
@SHAPES
def test_voxels_that_do_not_count_cost_nothing(
    name: str, weighting: str, regions: bool, spatial: tuple[int, ...]
) -> None:
    case = build(name, N_CLASSES, spatial, regions=regions)
    half = torch.zeros_like(case.reference.labels[:, :1], dtype=torch.bool)
    half[:, :, : spatial[0] // 2] = True
    loss = LOSSES[name](guide_ignored=False, weighting=weighting)
    for ignored in (half, torch.ones_like(half)):
        masked = replace(case, loss=loss, reference=replace(case.reference, ignored=ignored))
        value, gradient = masked.gradient()
        assert float(gradient[ignored.expand_as(gradient)].abs().max()) == 0
        assert (float(value) == 0) == bool(ignored.all())

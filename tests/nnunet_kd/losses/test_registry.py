"""Checks that every loss must pass, whoever adds it."""

from dataclasses import fields

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import LOSSES, FeatureLoss, OutputLoss, Reference, loss_options

EVERY = pytest.mark.parametrize("name", LOSSES)
OF_OUTPUTS = pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if issubclass(loss, OutputLoss)])
OF_FEATURES = pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if issubclass(loss, FeatureLoss)])
SHAPES = pytest.mark.parametrize("spatial", [(8, 6), (6, 4, 8)], ids=["2d", "3d"])
REGIONS = pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
N_CLASSES = 3


def batch(spatial: tuple[int, ...], *, regions: bool, seed: int = 0) -> tuple[Tensor, Tensor, Reference]:
    """Return logits of student and teacher, and labels in which every class occurs."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, 2, N_CLASSES, *spatial, generator=generator)
    shape = (2, N_CLASSES if regions else 1, *spatial)
    labels = torch.randint(2 if regions else N_CLASSES, shape, generator=generator)
    return student, teacher, Reference(labels=labels, n_channels=N_CLASSES, regions=regions)


def probabilities(logits: Tensor, *, regions: bool) -> Tensor:
    return torch.sigmoid(logits) if regions else torch.softmax(logits, dim=1)


@EVERY
def test_every_loss_is_documented_and_builds_from_its_defaults(name: str) -> None:
    loss = LOSSES[name]()
    assert "Attributes:" in (loss.__doc__ or "")
    assert set(loss_options(name)) == {field.name for field in fields(loss)}


@OF_OUTPUTS
@REGIONS
@SHAPES
def test_a_step_down_its_gradient_brings_the_student_nearer(name: str, regions: bool, spatial: tuple[int, ...]) -> None:
    student, teacher, reference = batch(spatial, regions=regions)
    loss = LOSSES[name]()
    target = probabilities(teacher / loss.temperature, regions=regions)
    before = loss(student.requires_grad_(), target, reference)
    (gradient,) = torch.autograd.grad(before, student)
    step = 1e-2 / gradient.abs().max()
    after = loss((student - step * gradient).detach(), target, reference)
    assert float(after) < float(before.detach())

"""The claim of the package, on held-out phantoms."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import logits_kl
from nnunet_kd.phantoms.volumes import phantom_case


def held_out(n_cases: int = 4) -> Tensor:
    """Phantoms of seeds that the toy data set does not use, normalised as nnU-Net normalises them."""
    images = [torch.from_numpy(phantom_case((77, i), shape=(20, 24, 20))[0]) for i in range(n_cases)]
    return torch.stack([(image - image.mean()) / image.std() for image in images])


def distance_to_teacher(student: Any, teacher: torch.nn.Module, images: Tensor) -> float:
    student.set_deep_supervision_enabled(False)
    student.network.eval()
    with torch.no_grad():
        target = teacher(images)
        finest = target[0] if isinstance(target, list | tuple) else target
        return float(logits_kl(student.network(images), finest.softmax(1)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_distilled_student_is_nearer_to_its_teacher_than_the_control(
    seed: int, plan: Callable[..., int], make_trainer: Callable[..., Any]
) -> None:
    distances, teacher = {}, None
    for name, method in (("nnUNetKDPlans", ()), ("nnUNetKDNonePlans", ("--method", "none"))):
        budget = ("--epochs", "3", "--iterations", "25", "--seed", str(seed))
        assert plan(*budget, *method, name=name) == 0
        trainer = make_trainer(name)
        trainer.run_training()
        teacher = teacher or trainer.teachers.members[0].network
        distances[name] = distance_to_teacher(trainer, teacher, held_out())
    assert distances["nnUNetKDPlans"] < distances["nnUNetKDNonePlans"], distances

"""Claims about the weighted sum."""

import pytest
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import Tensor
from torch.nn.functional import mse_loss

from nnunet_kd.distillation.objective import Objective, deep_supervision_weights, schedule_factor
from nnunet_kd.errors import UsageError
from nnunet_kd.losses import Reference, logits_kl
from nnunet_kd.planning.kd_block import KDSettings, LossTerm, TeacherSource

TEACHERS = (TeacherSource(model_folder="x"),)


def supervision(outputs: list[Tensor], labels: list[Tensor]) -> Tensor:
    return mse_loss(outputs[0], labels[0])


def references(*ignored: Tensor) -> list[Reference]:
    sizes = (8, 4, 2)
    masks = ignored or (None,) * len(sizes)
    return [
        Reference(labels=torch.zeros(2, 1, n, n), n_channels=3, ignored=mask)
        for n, mask in zip(sizes, masks, strict=True)
    ]


def scales() -> tuple[list[Tensor], list[Tensor], list[Tensor | None]]:
    torch.manual_seed(1)
    outputs = [torch.randn(2, 3, n, n) for n in (8, 4, 2)]
    labels = [torch.randn_like(output) for output in outputs]
    targets: list[Tensor | None] = [torch.randn_like(output).softmax(1) for output in outputs[:2]]
    return outputs, labels, [*targets, None]


@pytest.mark.parametrize("n_scales", [2, 3, 5])
def test_scales_weigh_as_in_nnunet(n_scales: int) -> None:
    """nnU-Net's wrapper applied to losses that return one power of ten each."""
    weights = [1 / 2**i for i in range(n_scales - 1)] + [0]
    wrapper = DeepSupervisionWrapper(lambda a, b: a * b, [w / sum(weights) for w in weights])
    powers = [10.0**i for i in range(n_scales)]
    ours = sum(w * p for w, p in zip(deep_supervision_weights(n_scales), powers, strict=True))
    assert ours == pytest.approx(wrapper(powers, [1.0] * n_scales))


def test_a_single_output_has_the_whole_weight() -> None:
    assert deep_supervision_weights(1) == [1.0]


def test_the_total_is_the_weighted_sum_of_its_parts() -> None:
    outputs, labels, targets = scales()
    term = LossTerm(name="logits_kl", weight=0.3, options={"temperature": 4.0})
    settings = KDSettings(teachers=TEACHERS, losses=(term,), supervision_weight=0.5)
    total, parts = Objective(supervision, settings)(outputs, labels, {4.0: targets}, references=references())
    expected = 2 / 3 * logits_kl(outputs[0], targets[0], 4.0) + 1 / 3 * logits_kl(outputs[1], targets[1], 4.0)
    torch.testing.assert_close(parts["logits_kl"], expected)
    torch.testing.assert_close(total, 0.5 * parts["supervision"] + 0.3 * expected)


def test_without_losses_the_total_is_the_supervision() -> None:
    outputs, labels, _ = scales()
    total, parts = Objective(supervision, KDSettings(method="none"))(outputs, labels, {})
    assert float(total) == float(mse_loss(outputs[0], labels[0]))
    assert list(parts) == ["supervision"]


def test_terms_of_weight_zero_need_no_teacher() -> None:
    settings = KDSettings(teachers=TEACHERS, losses=(LossTerm(name="logits_kl", weight=0),))
    objective = Objective(supervision, settings)
    assert not settings.uses_teachers
    assert objective.temperatures() == ()


def test_terms_of_one_name_are_told_apart_in_the_log() -> None:
    terms = tuple(LossTerm(name="logits_kl", options={"temperature": t}) for t in (1.0, 4.0))
    objective = Objective(supervision, KDSettings(teachers=TEACHERS, losses=terms))
    assert objective.names == ["logits_kl_1", "logits_kl_2"]
    assert objective.temperatures() == (1.0, 4.0)


def test_losses_on_images_are_refused() -> None:
    settings = KDSettings(teachers=TEACHERS, losses=(LossTerm(name="imitation"),))
    with pytest.raises(UsageError, match="kd block: imitation compares images, which only reconstruction has"):
        Objective(supervision, settings)


def test_a_warm_up_starts_without_the_teacher() -> None:
    outputs, labels, targets = scales()
    settings = KDSettings(teachers=TEACHERS, losses=(LossTerm(name="logits_kl", schedule="warmup"),))
    objective = Objective(supervision, settings)
    start, parts = objective(outputs, labels, {2.0: targets}, references=references(), progress=0.0)
    later, _ = objective(outputs, labels, {2.0: targets}, references=references(), progress=0.5)
    assert float(start) == pytest.approx(float(parts["supervision"]))
    assert float(later) == pytest.approx(float(parts["supervision"] + parts["logits_kl"]))


@pytest.mark.parametrize(
    ("schedule", "start", "middle", "end"),
    [("constant", 1, 1, 1), ("warmup", 0, 1, 1), ("ramp", 0, 0.5, 1), ("cosine", 1, 0.5, 0)],
)
def test_schedules_start_and_end_where_they_say(schedule: str, start: float, middle: float, end: float) -> None:
    assert [schedule_factor(schedule, p) for p in (0.0, 0.5, 1.0)] == pytest.approx([start, middle, end])


def test_ignored_voxels_follow_the_scales() -> None:
    outputs, labels, targets = scales()
    ignored = [torch.zeros(2, 1, n, n, dtype=torch.bool) for n in (8, 4, 2)]
    ignored[0][..., 4:] = True
    term = LossTerm(name="logits_kl", options={"temperature": 2.0, "guide_ignored": False})
    objective = Objective(supervision, KDSettings(teachers=TEACHERS, losses=(term,)))
    _, parts = objective(outputs, labels, {2.0: targets}, references=references(*ignored))
    finest = logits_kl(outputs[0][..., :4], targets[0][..., :4], 2.0)
    torch.testing.assert_close(parts["logits_kl"], 2 / 3 * finest + 1 / 3 * logits_kl(outputs[1], targets[1], 2.0))

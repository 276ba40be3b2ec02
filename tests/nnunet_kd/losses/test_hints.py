"""Claims about hints: FitNets and masked generative distillation."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import MGD, FitNet, MaskedGenerator, Reference, feature_error

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
LOSSES = pytest.mark.parametrize("loss", [FitNet(), MGD()], ids=["fitnet", "mgd"])
Features = Callable[..., tuple[Tensor, Tensor]]


def written_out(student: Tensor, teacher: Tensor, *, normalize: bool) -> Tensor:
    pairs = list(zip(student.flatten(), teacher.flatten(), strict=True))
    error = torch.stack([(s - t) ** 2 for s, t in pairs]).sum() / len(pairs)
    return error / (sum(t**2 for _, t in pairs) / len(pairs)) if normalize else error


@SHAPES
@pytest.mark.parametrize("normalize", [False, True])
def test_agrees_with_a_sum_over_voxels(
    spatial: tuple[int, ...], normalize: bool, features: Features, assert_agrees: Callable[..., None]
) -> None:
    assert_agrees(
        lambda s, t: feature_error(s, t, normalize=normalize),
        lambda s, t: written_out(s, t, normalize=normalize),
        *features(*spatial),
    )


def test_the_normalised_error_is_relative(features: Features) -> None:
    student, teacher = features(4, 4)
    torch.testing.assert_close(feature_error(90 * student, 90 * teacher), feature_error(student, teacher))
    torch.testing.assert_close(feature_error(0 * student, 90 * teacher), torch.tensor(1.0))


def test_a_silent_teacher_stays_finite(features: Features) -> None:
    student, teacher = features(4, 4)
    silent = feature_error(student, 0 * teacher)
    torch.testing.assert_close(silent, student.square().mean())


@LOSSES
@SHAPES
def test_the_adapter_learns_to_give_the_teachers_map(
    loss: FitNet | MGD, spatial: tuple[int, ...], features: Features
) -> None:
    """Gradients reach every parameter of the adapter, and following them lowers the loss."""
    student, teacher = features(*spatial, n_teacher=5)
    reference = Reference(labels=torch.zeros(2, 1, *spatial), n_channels=2)
    torch.manual_seed(0)
    adapter = loss.adapter(3, 5, len(spatial)).eval()
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    values = []
    for _ in range(20):
        value = loss(adapter(student), teacher, reference)
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in adapter.parameters())
        optimizer.step()
        values.append(float(value.detach()))
    assert values[-1] < 0.9 * values[0]


@LOSSES
def test_equal_channels_are_adapted_too(loss: FitNet | MGD) -> None:
    assert loss.adapter(4, 4, 3) is not None


@SHAPES
def test_masked_voxels_are_hidden_in_all_channels_in_training_only(spatial: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    large = (16,) * len(spatial)
    generator = MaskedGenerator(3, 4, len(spatial), mask_ratio=0.75)
    seen: list[Tensor] = []
    generator.generate.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    features = torch.randn(2, 3, *large)
    generator.train()(features)
    generator.eval()(features)
    hidden = (seen[0] == 0).float()
    assert set(hidden.sum(dim=1).flatten().tolist()) == {0.0, 4.0}
    assert float(hidden.mean()) == pytest.approx(0.75, abs=0.06)
    torch.testing.assert_close(seen[0], seen[1] * (1 - hidden))
    assert float((seen[1] == 0).float().mean()) == 0


def test_masks_differ_between_steps_and_samples() -> None:
    torch.manual_seed(0)
    generator = MaskedGenerator(1, 1, 2, mask_ratio=0.5).train()
    seen: list[Tensor] = []
    generator.generate.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[0] == 0).detach()))
    for _ in range(2):
        generator(torch.ones(2, 1, 8, 8))
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0][0], seen[0][1])


def test_a_generator_without_mask_trains_as_it_predicts() -> None:
    generator = MaskedGenerator(2, 3, 2, mask_ratio=0.0)
    features = torch.randn(1, 2, 6, 6)
    torch.testing.assert_close(generator.train()(features), generator.eval()(features))


@pytest.mark.parametrize("ratio", [-0.1, 1.0, "half", True])
def test_wrong_mask_ratios_are_refused(ratio: object) -> None:
    with pytest.raises(ValueError, match="mask_ratio: expected a number"):
        MGD(mask_ratio=ratio)  # type: ignore[arg-type]


def test_channels_that_differ_are_refused(features: Features) -> None:
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 4\) and \(2, 5, 4, 4\)"):
        feature_error(*features(4, 4, n_teacher=5))

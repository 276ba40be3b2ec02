"""Claims about the projected divergence of features and its projectors."""

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.losses import FeatureKL, LogitsKL, Reference, feature_kl
from nnunet_kd.losses.hierarchical import OrthogonalProjection, RedrawnProjection
from nnunet_kd.losses.logits import probabilities

SHAPES = pytest.mark.parametrize("spatial", [(5, 4), (3, 4, 5)], ids=["2d", "3d"])
Features = Callable[..., tuple[Tensor, Tensor]]


def written_out(student: Tensor, teacher: Tensor, temperature: float, *, regions: bool = False) -> Tensor:
    """Return the formula voxel by voxel; for regions the two outcomes of every channel."""
    total, n = student.new_zeros(()), 0
    for one, other in zip(student, teacher, strict=True):
        for s, t in zip(one.flatten(1).T, other.flatten(1).T, strict=True):
            outcomes = [torch.stack([z, torch.zeros_like(z)], dim=1) if regions else z[None] for z in (s, t)]
            q, p = ((z / temperature).exp() / (z / temperature).exp().sum(1, keepdim=True) for z in outcomes)
            total, n = total + (p * (p / q).log()).sum(), n + 1
    return temperature**2 * total / n


@SHAPES
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("regions", [False, True], ids=["softmax", "sigmoid"])
def test_agrees_with_the_formula_written_out(
    spatial: tuple[int, ...], temperature: float, regions: bool, features: Features, assert_agrees: Callable[..., None]
) -> None:
    def loss(student: Tensor, teacher: Tensor) -> Tensor:
        return feature_kl(student, teacher, temperature, regions=regions)

    def reference(student: Tensor, teacher: Tensor) -> Tensor:
        return written_out(student, teacher, temperature, regions=regions)

    assert_agrees(loss, reference, *(3 * x for x in features(*spatial)))


@pytest.mark.parametrize("channels", [2, 256])
def test_the_divisor_is_the_number_of_voxels_whatever_the_channels(channels: int) -> None:
    """The published code divides by ``voxels * channels / 2``: this would cost 2 / channels of it there."""
    teacher = torch.zeros(2, channels, 4, 3)
    teacher[:, 0] = 1000.0
    assert float(feature_kl(torch.zeros_like(teacher), teacher)) == pytest.approx(16 * log(channels), rel=1e-5)


@pytest.mark.parametrize("regions", [False, True], ids=["classes", "regions"])
def test_between_outputs_without_a_projector_it_is_the_divergence_of_the_logits(
    regions: bool, features: Features
) -> None:
    student, teacher = features(4, 6)
    reference = Reference(labels=torch.zeros(2, 3 if regions else 1, 4, 6), n_channels=3, regions=regions)
    expected = LogitsKL(temperature=4.0)(student, probabilities(teacher, 4.0, regions=regions), reference)
    pixels = FeatureKL(pairs=[["output", "output"]])
    torch.testing.assert_close(pixels(student, teacher, reference), expected)
    hidden = FeatureKL(pairs=[["output", "decoder[-1]"]])(student, teacher, reference)
    assert torch.allclose(hidden, expected) is not regions  # features are no regions


@SHAPES
def test_ignored_voxels_count_as_all_others(spatial: tuple[int, ...], features: Features) -> None:
    student, teacher = features(*spatial)
    labels = torch.zeros(2, 1, *spatial)
    plain = Reference(labels=labels, n_channels=3)
    ignored = Reference(labels=labels, n_channels=3, ignored=torch.ones_like(labels, dtype=torch.bool))
    loss = FeatureKL(pairs=[["output", "output"]])
    torch.testing.assert_close(loss(student, teacher, plain), loss(student, teacher, ignored))


# ---- projectors ----


@pytest.mark.parametrize("n_axes", [2, 3])
@pytest.mark.parametrize(
    ("settings", "side", "kind"),
    [
        ({}, 0, nn.modules.conv._ConvNd),
        ({"projector": "learned"}, 0, nn.modules.conv._ConvNd),
        ({"projector": "fixed"}, 0, OrthogonalProjection),
        ({"projector": "random_per_step"}, 0, RedrawnProjection),
        ({"onto": "student"}, 1, OrthogonalProjection),
        ({"onto": "student", "projector": "fixed"}, 1, OrthogonalProjection),
        ({"onto": "student", "projector": "random_per_step"}, 1, RedrawnProjection),
    ],
    ids=lambda value: "-".join(value.values()) or "default" if isinstance(value, dict) else None,
)
def test_one_side_is_projected_to_the_others_channels(
    settings: dict[str, str], side: int, kind: type, n_axes: int
) -> None:
    loss = FeatureKL(**settings)
    modules = loss.adapter(3, 5, n_axes), loss.target_projection(3, 5, n_axes)
    assert modules[1 - side] is None
    assert isinstance(modules[side], kind)
    channels_in, channels_out = (3, 5) if side == 0 else (5, 3)
    assert modules[side](torch.zeros(2, channels_in, *[4] * n_axes)).shape == (2, channels_out, *[4] * n_axes)
    learns = "learned" in (loss.projector, "learned" if settings == {} else "")
    assert any(True for _ in modules[side].parameters()) == learns
    assert bool(modules[side].state_dict())


@pytest.mark.parametrize(("n_in", "n_out"), [(8, 3), (3, 8), (4, 4)])
def test_fixed_projections_keep_lengths_or_mix_orthogonally(n_in: int, n_out: int) -> None:
    torch.manual_seed(0)
    weight = OrthogonalProjection(n_in, n_out).weight
    gram = weight @ weight.T if n_out <= n_in else weight.T @ weight
    torch.testing.assert_close(gram, torch.eye(min(n_in, n_out)), rtol=0, atol=1e-5)


def test_redrawn_projections_differ_at_every_step_and_go_on_after_resuming() -> None:
    torch.manual_seed(0)
    projection, ones = RedrawnProjection(400, 50), torch.ones(1, 400, 2, 2)
    state = torch.get_rng_state()
    first = projection(ones)
    copy = RedrawnProjection(400, 50)
    copy.load_state_dict(projection.state_dict())
    second = projection(ones)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(copy(ones), second)
    projection.n_calls.zero_()
    torch.testing.assert_close(projection(ones), first)
    assert torch.equal(first[..., 0, 0], first[..., 1, 1])  # one matrix for all voxels
    torch.manual_seed(0)
    torch.randint(2**31, ())
    assert torch.equal(state, torch.get_rng_state())  # nothing else that is random moves


def test_redrawn_projections_are_spread_as_pytorchs_first_weights() -> None:
    torch.manual_seed(0)
    convolution, projection = nn.Conv2d(400, 300, 1), RedrawnProjection(400, 300)
    data = torch.randn(1, 400, 8, 8)
    with torch.no_grad():
        expected = float(convolution(data).std())
    assert float(projection(data).std()) == pytest.approx(expected, rel=0.05)


# ---- settings ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature: expected a number > 0, got 0"),
        ({"onto": "both"}, "onto: expected one of teacher, student, got 'both'"),
        ({"projector": None}, "projector: expected one of auto, learned, fixed, random_per_step, got None"),
        ({"projector": "learned", "onto": "student"}, "projector: expected fixed or random_per_step onto the student"),
        ({"pairs": [["decoder[0]", "output"], ["decoder[0]", "decoder[0]"]]}, "of all pairs or of none"),
        ({"pairs": [["decoder[0]", "output"], ["decoder[0]", ["output", "decoder[0]"]]]}, "of all pairs or of none"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FeatureKL(**settings)  # type: ignore[arg-type]


def test_a_projected_target_may_be_mixed_and_shapes_must_agree(features: Features) -> None:
    FeatureKL(pairs=[["decoder[0]", "output"], ["decoder[0]", "decoder[0]"]], onto="student")
    with pytest.raises(ValueError, match="differ in shape"):
        feature_kl(*features(4, 4, n_teacher=5))

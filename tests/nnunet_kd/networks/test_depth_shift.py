"""Claims about the shift of features between slices."""

import pickle
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from nnunet_kd.networks.depth_shift import (
    DepthShift,
    DistillDSM,
    ResidualShift,
    SliceWise,
    selected_channels,
    to_slices,
    to_volumes,
)

Make = Callable[[], DepthShift]
SHIFTS = pytest.mark.parametrize(
    "make",
    [lambda: DistillDSM(8), lambda: DistillDSM(8, 1), lambda: ResidualShift(8), lambda: ResidualShift(8, 1)],
    ids=["distill", "distill all", "residual", "residual all"],
)


def volumes(n_slices: int = 5, batch: int = 2) -> Tensor:
    return torch.randn(batch, 8, n_slices, 6, 4, generator=torch.Generator().manual_seed(0))


def learned_written_out(shift: DistillDSM, features: Tensor) -> Tensor:
    """C.1 slice by slice, with three convolutions that know nothing of one another."""
    n = shift.selected
    weights, biases = (x.split([n // 4, n // 4, n // 2]) for x in (shift.mix.weight, shift.mix.bias))
    samples = []
    for sample in features:
        read = sample[:n].transpose(0, 1)  # slices (T, a, h, w)
        forward, backward, residual = (conv2d(read, w, b, padding=1) for w, b in zip(weights, biases, strict=True))
        slices, last = [], len(read) - 1
        for i in range(len(read)):
            before = forward[i - 1] if i > 0 else torch.zeros_like(forward[0])
            after = backward[i + 1] if i < last else torch.zeros_like(backward[0])
            slices.append(torch.cat([before, after, residual[i], sample[n:, i]]))
        samples.append(torch.stack(slices, dim=1))
    return torch.stack(samples)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
@pytest.mark.parametrize("n_slices", [1, 2, 5])
def test_the_learned_shift_is_its_equation(alpha: float, n_slices: int) -> None:
    shift, features = DistillDSM(8, alpha), volumes(n_slices)
    torch.testing.assert_close(shift(features), learned_written_out(shift, features))


def test_the_baseline_takes_a_quarter_from_the_next_and_a_quarter_from_the_previous_slice() -> None:
    features = volumes()
    expected = features.clone()
    expected[:, :2, :-1], expected[:, :2, -1] = features[:, :2, 1:], 0
    expected[:, 2:4, 1:], expected[:, 2:4, 0] = features[:, 2:4, :-1], 0
    assert torch.equal(ResidualShift(8)(features), expected)


@SHIFTS
@pytest.mark.parametrize("changed", range(5))
def test_a_slice_reaches_its_neighbours_and_no_other_sample(make: Make, changed: int) -> None:
    shift, features = make(), volumes()
    other = features.clone()
    other[1, :, changed] += 1
    reached = (shift(other) != shift(features)).flatten(3).any(dim=3).any(dim=1)
    near = [abs(i - changed) <= 1 for i in range(5)]
    if shift.selected == 8 and isinstance(shift, ResidualShift):
        near[changed] = False  # all of its channels went away
    assert reached.tolist() == [[False] * 5, near]


@SHIFTS
def test_a_slice_alone_sees_zeros_on_both_sides(make: Make) -> None:
    shift = make()
    moved = shift.selected // (2 if isinstance(shift, DistillDSM) else 1)
    output = shift(volumes(1))
    assert not output[:, :moved].any()
    assert output[:, moved:].all()


@SHIFTS
def test_slices_and_volumes_are_the_same(make: Make) -> None:
    shift, features = make(), volumes(3)
    assert torch.equal(to_volumes(shift(to_slices(features), 3), 3), shift(features))
    with pytest.raises(ValueError, match=r"slices and n_slices, got shape \(6, 8, 6, 4\) alone"):
        shift(to_slices(features))


@SHIFTS
def test_gradients_are_exact(make: Make) -> None:
    features = volumes(3)[..., :2, :2].double().requires_grad_()
    shift = make().double()
    assert torch.autograd.gradcheck(shift, features)
    parameters = tuple(shift.parameters())
    if parameters:
        assert torch.autograd.gradcheck(lambda *_: shift(features.detach()), parameters)


@pytest.mark.parametrize("kind", [DistillDSM, ResidualShift])
def test_alpha_zero_is_the_identity_without_parameters(kind: type[DepthShift]) -> None:
    shift, features = kind(6, 0), volumes()
    assert shift(features) is features
    assert not shift.state_dict()


@pytest.mark.parametrize(
    ("channels", "alpha", "said"),
    [
        (16, -0.1, r"from 0 to 1, got -0\.1"),
        (16, 1.5, r"from 0 to 1, got 1\.5"),
        (16, float("nan"), "got nan"),
        (16, 0.3, r"alpha 0\.3 of 16 channels is 4\.8, expected a multiple of 4; nearest: alpha 0\.25 or 0\.5"),
        (24, 0.25, r"nearest: alpha 0\.166667 or 0\.333333"),
        (6, 0.9, r"nearest: alpha 0\.666667$"),
    ],
)
def test_alphas_that_do_not_fit_are_refused_with_those_that_do(channels: int, alpha: float, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DistillDSM(channels, alpha)
    for text in said.replace("\\", "").rstrip("$").partition("nearest: alpha ")[2].split(" or "):
        assert not text or selected_channels(channels, float(text)) % 4 == 0


def test_any_2d_network_can_be_given_the_shift() -> None:
    """Without it no slice knows of another; what the slices are folded into is never copied."""
    layers = [nn.Conv2d(8, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2)]
    flat = nn.Sequential(*map(SliceWise, layers))
    shifted = nn.Sequential(*map(SliceWise, layers[:3]), DistillDSM(8), SliceWise(layers[3]))
    features, changed = volumes(), volumes()
    changed[:, :, 2] += 1
    for network, expected in ((flat, [2]), (shifted, [1, 2, 3])):
        difference = (network(changed) - network(features)).abs().amax(dim=(0, 1, 3, 4))
        assert difference.nonzero().flatten().tolist() == expected
    output = flat(features)
    assert to_slices(output).data_ptr() == output.data_ptr()


@SHIFTS
def test_copies_half_precision_and_compilation(make: Make) -> None:
    shift, features = make(), volumes(3)
    expected = shift(features)
    for copy in (deepcopy(shift), pickle.loads(pickle.dumps(shift)), torch.compile(shift, backend="eager")):
        assert torch.equal(copy(features), expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = shift(features.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)
    assert shift.to("meta")(features.to("meta")).shape == features.shape

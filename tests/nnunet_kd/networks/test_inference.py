"""Claims about whole volumes in one pass."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nnunet_kd.networks.inference import whole_volume_probabilities


def network(conv: type, *, strides: int = 1) -> nn.Module:
    """A network that is not the same mirrored, and, strided, takes multiples of 4 alone."""
    torch.manual_seed(0)
    layers = [conv(1, 4, 3, padding=1), nn.Tanh(), conv(4, 3, 3, padding=1)]
    return nn.Sequential(*layers, _OnlyMultiples(4)) if strides > 1 else nn.Sequential(*layers)


class _OnlyMultiples(nn.Module):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> list[Tensor]:
        assert all(n % self.step == 0 for n in x.shape[2:])
        return [x, x[..., ::2]]


def image(*shape: int) -> Tensor:
    return torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("regions", [False, True])
def test_an_image_that_fits_gets_the_networks_own_answer(regions: bool) -> None:
    net, x = network(nn.Conv3d), image(8, 4, 12)
    logits = net(x[None])[0]
    expected = logits.sigmoid() if regions else logits.softmax(0)
    found = whole_volume_probabilities(net, x, divisor=(4, 4, 4), regions=regions)
    torch.testing.assert_close(found, expected.detach())


def test_padding_is_symmetric_with_the_odd_voxel_behind_and_cut_off_again() -> None:
    net, x = network(nn.Conv3d, strides=4), image(5, 8, 10)
    expected = net(pad(x, (1, 1, 0, 0, 1, 2))[None])[0][0].softmax(0)[:, 1:6, :, 1:11]
    torch.testing.assert_close(whole_volume_probabilities(net, x, divisor=(4, 4, 4)), expected.detach())


def test_probabilities_are_averaged_over_four_flips() -> None:
    net, x = network(nn.Conv3d), image(4, 4, 8)
    flips = [(), (2,), (3,), (2, 3)]
    expected = sum(net(x[None].flip(axes)).flip(axes).softmax(1)[0] for axes in flips) / 4
    found = whole_volume_probabilities(net, x, divisor=(4, 4, 4), flip_axes=(0, 1))
    torch.testing.assert_close(found, expected.detach())
    assert float((found - whole_volume_probabilities(net, x, divisor=(4, 4, 4))).abs().max()) > 0.01


def test_a_network_of_two_axes_sees_slices() -> None:
    net, x = network(nn.Conv2d), image(3, 8, 4)
    flips = [axes for n in range(3) for axes in itertools.combinations((2, 3), n)]
    slices = [sum(net(x[None, :, z].flip(a)).flip(a).softmax(1)[0] for a in flips) / 4 for z in range(3)]
    found = whole_volume_probabilities(net, x, divisor=(4, 4), flip_axes=(0, 1))
    torch.testing.assert_close(found, torch.stack(slices, dim=1).detach())

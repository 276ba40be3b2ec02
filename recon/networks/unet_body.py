"""The U-Net inside the baseline and the variational network, and the scale that its input is brought to."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from nnunet_kd.errors import UsageError

SLOPE = 0.2
# keeps the scale of a constant image, and its gradient, finite
SMALLEST_VARIANCE = 1e-22


def _activation(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.InstanceNorm2d(channels), nn.LeakyReLU(SLOPE, inplace=True)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    """Return two 3x3 convolutions, each normalised per image and channel, without weights of that."""
    first, second = (nn.Conv2d(n, n_out, 3, padding=1, bias=False) for n in (n_in, n_out))
    return nn.Sequential(first, *_activation(n_out), second, *_activation(n_out))


def _doubling(n_in: int, n_out: int) -> nn.Sequential:
    """Return a transposed convolution to twice the size."""
    return nn.Sequential(nn.ConvTranspose2d(n_in, n_out, 2, stride=2, bias=False), *_activation(n_out))


class UNetBody(nn.Module):
    """U-Net of the shape that fastMRI's baseline has [1]: average pooling, instance normalisation, leaky ReLU of 0.2.

    ``UNetBody(1, 1, channels=32, pools=4)`` has 7,756,097 parameters, as ``fastmri.models.Unet(1, 1, 32, 4)``.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        channels: Of the finest stage, doubled by each pooling.
        pools: How often the resolution is halved, at least once.

    Raises:
        UsageError: If the numbers make no network.

    References:
        [1] Zbontar et al., fastMRI: An Open Dataset and Benchmarks for Accelerated MRI, 2018,
            https://arxiv.org/abs/1811.08839
    """

    def __init__(self, n_in: int, n_out: int, channels: int = 32, pools: int = 4) -> None:
        super().__init__()
        if channels < 1 or pools < 1:
            raise UsageError(f"architecture: expected at least 1 channel and 1 pooling, got {channels} and {pools}")
        widths = [channels * 2**stage for stage in range(pools)]
        self.pools = pools
        self.encoder = nn.ModuleList(_block(a, b) for a, b in zip([n_in, *widths[:-1]], widths, strict=True))
        self.bottleneck = _block(widths[-1], 2 * widths[-1])
        self.decoder = nn.ModuleList(_block(2 * width, width) for width in reversed(widths))
        self.head = nn.Conv2d(channels, n_out, 1)
        self.up = nn.ModuleList(_doubling(2 * width, width) for width in reversed(widths))

    def forward(self, features: Tensor) -> Tensor:
        """Return ``(B, n_out, H, W)`` of ``(B, n_in, H, W)``, H and W multiples of ``2^pools``."""
        kept = []
        for block in self.encoder:
            features = block(features)
            kept.append(features)
            features = avg_pool2d(features, 2)
        features = self.bottleneck(features)
        for up, block in zip(self.up, self.decoder, strict=True):
            features = block(torch.cat([up(features), kept.pop()], dim=1))
        output: Tensor = self.head(features)
        return output

    def stage_names(self, prefix: str) -> dict[str, str]:
        """Return the dotted names of the stages and their kind, below the name that a network gives the body."""
        names = {f"{prefix}.encoder.{stage}": "encoder" for stage in range(self.pools)}
        names[f"{prefix}.bottleneck"] = "encoder"
        return names | {f"{prefix}.decoder.{stage}": "decoder" for stage in range(self.pools)}


def standardised(body: UNetBody, channels: Tensor) -> Tensor:
    """Apply a U-Net to channels of mean 0 and standard deviation 1, and undo both on what comes out.

    Each channel of each image is brought there by itself; then the image is padded by zeros on all sides, as fastMRI's
    NormUnet does. Nothing is clipped.

    Args:
        body: U-Net whose n-th output channel has the scale of the n-th input channel.
        channels: ``(B, n_in, H, W)`` of any size.

    Returns:
        Float32, ``(B, n_out, H, W)``.
    """
    channels = channels.float()
    mean = channels.mean(dim=(2, 3), keepdim=True)
    scale = (channels.var(dim=(2, 3), keepdim=True) + SMALLEST_VARIANCE).sqrt()
    output = padded(body, (channels - mean) / scale, 2**body.pools).float()
    n_out = output.shape[1]
    return output * scale[:, :n_out] + mean[:, :n_out]


def padded(network: Callable[[Tensor], Tensor], channels: Tensor, multiple: int) -> Tensor:
    """Apply a network to channels padded by zeros to a multiple of a size, and cut what comes out.

    Args:
        network: Keeps the size.
        channels: ``(B, C, H, W)``.
        multiple: What H and W become a multiple of; twice it at least, since one pixel has no variance.
    """
    height, width = channels.shape[2:]
    (top, bottom), (left, right) = (_margins(size, multiple) for size in (height, width))
    output = network(pad(channels, (left, right, top, bottom)))
    return output[:, :, top : top + height, left : left + width]


def _margins(size: int, multiple: int) -> tuple[int, int]:
    missing = max(2 * multiple, -(-size // multiple) * multiple) - size
    return missing // 2, missing - missing // 2

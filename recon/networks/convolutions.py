"""The stack of convolutions that DC-CNN and VDSR share."""

from itertools import pairwise

from torch import nn

from nnunet_kd.errors import UsageError


def convolution_stack(n_in: int, n_out: int, channels: int, layers: int) -> nn.Sequential:
    """Return 3x3 convolutions with bias that keep the size, a ReLU after each but the last, no normalisation.

    Layer i is the module named ``i``: a convolution with its ReLU, so that what is tapped there is what the
    next one takes.

    Args:
        n_in: Channels of the input.
        n_out: Channels of the output.
        channels: Channels between.
        layers: Convolutions, at least 2.

    Raises:
        UsageError: If there are too few layers or channels.
    """
    if layers < 2 or channels < 1:
        raise UsageError(f"architecture: expected at least 2 convolutions and 1 channel, got {layers} and {channels}")
    widths = [n_in, *[channels] * (layers - 1), n_out]
    convolutions = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths)]
    hidden = [nn.Sequential(convolution, nn.ReLU(inplace=True)) for convolution in convolutions[:-1]]
    return nn.Sequential(*hidden, convolutions[-1])


def middle_layer(layers: int) -> int:
    """Return which layer of a stack is compared: the third of 5, the second of 3, the sixth of 11, the fourth of 7.

    It is never the last, whose output is an image.

    Example:
        >>> [middle_layer(layers) + 1 for layers in (5, 3, 11, 7, 2)]
        [3, 2, 6, 4, 1]
    """
    return (layers - 1) // 2

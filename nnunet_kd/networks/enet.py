"""ENet: bottlenecks, dilated and asymmetric convolutions, un-pooling with remembered places; a third of a million."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d, pad

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.planar import PlanarNetwork, Strides, crop, halvings, pad_to_multiple, planar_block

STRIDES = halvings(3)
FEATURES = (16, 64, 128)
_STEP = 8
_REDUCTION = 4


def unpool(features: Tensor, places: Tensor) -> Tensor:
    """Double the resolution: put each value where max-pooling of 2x2 had found it, zeros elsewhere.

    It is ``torch.nn.functional.max_unpool2d`` by way of a scatter, which ONNX has and un-pooling it has not.

    Args:
        features: ``(B, C, H, W)``.
        places: Their places in the flattened result, as ``max_pool2d`` returns them, of the same shape.
    """
    batch, channels, height, width = features.shape
    empty = features.new_zeros((batch, channels, 4 * height * width))
    filled = empty.scatter(2, places.flatten(2), features.flatten(2))
    return filled.view(batch, channels, 2 * height, 2 * width)


def _square(features: int, dilation: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(features, features, kernel_size=3, padding=dilation, dilation=dilation, bias=False)]


def _asymmetric(features: int) -> list[nn.Module]:
    return [
        nn.Conv2d(features, features, kernel_size=(5, 1), padding=(2, 0), bias=False),
        nn.Conv2d(features, features, kernel_size=(1, 5), padding=(0, 2), bias=False),
    ]


def _doubling(features: int) -> list[nn.Module]:
    return [
        nn.ConvTranspose2d(features, features, kernel_size=3, stride=2, padding=1, output_padding=1, bias=False),
    ]


def _activated(layers: Sequence[nn.Module], features: int) -> list[nn.Module]:
    return [*layers, nn.BatchNorm2d(features), nn.PReLU(features)]


def _branch(inputs: int, middle: Sequence[nn.Module], outputs: int, dropout: float, stride: int = 1) -> nn.Sequential:
    """Return projection to a quarter of the outputs, the middle convolutions, expansion, spatial dropout."""
    inner = outputs // _REDUCTION
    projection = nn.Conv2d(inputs, inner, kernel_size=stride, stride=stride, bias=False)
    return nn.Sequential(
        *_activated([projection], inner),
        *_activated(middle, inner),
        nn.Conv2d(inner, outputs, kernel_size=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.Dropout2d(dropout),
    )


class Initial(nn.Module):
    """Half the resolution: a strided convolution beside max-pooling of the image.

    Args:
        inputs: Channels of the image, less than ``outputs``.
        outputs: Channels of both together.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs - inputs, kernel_size=3, stride=2, padding=1, bias=False)
        self.finish = nn.Sequential(nn.BatchNorm2d(outputs), nn.PReLU(outputs))

    def forward(self, image: Tensor) -> Tensor:
        """Return the map ``(B, outputs, H / 2, W / 2)``; sizes are even."""
        both: Tensor = self.finish(torch.cat([self.convolution(image), max_pool2d(image, 2)], dim=1))
        return both


class Bottleneck(nn.Module):
    """``prelu(x + f(x))``, f a projection, a convolution and an expansion.

    Args:
        features: Channels in and out.
        middle: The convolution, on a quarter of the channels.
        dropout: Probability that a channel of f is left out in training.
    """

    def __init__(self, features: int, middle: Sequence[nn.Module], dropout: float) -> None:
        super().__init__()
        self.branch = _branch(features, middle, features, dropout)
        self.activation = nn.PReLU(features)

    def forward(self, features: Tensor) -> Tensor:
        """Return a map of the same shape."""
        total: Tensor = self.activation(features + self.branch(features))
        return total


class Reduction(nn.Module):
    """A bottleneck that halves the resolution: max-pooling and zeros for new channels beside a strided branch.

    Args:
        inputs: Channels.
        outputs: Channels, more than ``inputs``.
        dropout: As of :class:`Bottleneck`.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.branch = _branch(inputs, _square(outputs // _REDUCTION), outputs, dropout, stride=2)
        self.activation = nn.PReLU(outputs)
        self._new = outputs - inputs

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return the map and the places of its maxima, ``(B, inputs, H / 2, W / 2)``."""
        pooled, places = max_pool2d(features, 2, return_indices=True)
        widened = pad(pooled, (0, 0, 0, 0, 0, self._new))
        return self.activation(widened + self.branch(features)), places


class Enlargement(nn.Module):
    """A bottleneck that doubles the resolution: un-pooling beside a transposed convolution.

    Args:
        inputs: Channels.
        outputs: Channels, as many as were pooled.
        dropout: As of :class:`Bottleneck`.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1, bias=False), nn.BatchNorm2d(outputs))
        self.branch = _branch(inputs, _doubling(outputs // _REDUCTION), outputs, dropout)
        self.activation = nn.PReLU(outputs)

    def forward(self, features: Tensor, places: Tensor) -> Tensor:
        """Return the map ``(B, outputs, 2 H, 2 W)``."""
        total: Tensor = self.activation(unpool(self.main(features), places) + self.branch(features))
        return total


def _repeated(features: int, n: int, dropout: float) -> nn.Sequential:
    inner = features // _REDUCTION
    return nn.Sequential(*(Bottleneck(features, _square(inner), dropout) for _ in range(n)))


def _context(features: int) -> nn.Sequential:
    """Return sections 2 and 3: regular, dilated, asymmetric, dilated, twice over, with ever larger dilation."""
    inner = features // _REDUCTION
    middles = [
        middle
        for first, second in ((2, 4), (8, 16))
        for middle in (_square(inner), _square(inner, first), _asymmetric(inner), _square(inner, second))
    ]
    return nn.Sequential(*(Bottleneck(features, middle, dropout=0.1) for middle in middles))


class Encoder(nn.Module):
    """The initial block and sections 1 to 3 in ``stages``; the halvings before sections 1 and 2 beside them."""

    def __init__(self, input_channels: int) -> None:
        super().__init__()
        fine, middle, coarse = FEATURES
        self.reductions = nn.ModuleList([Reduction(fine, middle, dropout=0.01), Reduction(middle, coarse, dropout=0.1)])
        self.stages = nn.ModuleList(
            [
                Initial(input_channels, fine),
                _repeated(middle, 4, dropout=0.01),
                _context(coarse),
                _context(coarse),
            ]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the deepest map, and the places of both poolings, finest first."""
        features, places = self.stages[0](image), []
        for reduction, stage in zip(self.reductions, self.stages[1:3], strict=True):
            features, found = reduction(features)
            features = stage(features)
            places.append(found)
        return self.stages[3](features), places


class Decoder(nn.Module):
    """Sections 4 and 5 in ``stages``; the doublings before them beside."""

    def __init__(self) -> None:
        super().__init__()
        fine, middle, coarse = FEATURES
        self.enlargements = nn.ModuleList([Enlargement(coarse, middle, dropout=0.1), Enlargement(middle, fine, 0.1)])
        self.stages = nn.ModuleList([_repeated(middle, 2, dropout=0.1), _repeated(fine, 1, dropout=0.1)])

    def forward(self, features: Tensor, places: Sequence[Tensor]) -> Tensor:
        """Return the map at half the resolution of the image."""
        for enlargement, stage, found in zip(self.enlargements, self.stages, reversed(places), strict=True):
            features = stage(enlargement(features, found))
        return features


class ENet(PlanarNetwork):
    """ENet as published: 16, 64 and 128 channels at 1/2, 1/4 and 1/8 of the resolution.

    Sizes that 8 does not divide are padded with zeros and the logits are cut. In EMKD the low and high features are
    ``encoder.stages.0`` and ``encoder.stages.3``.

    Args:
        input_channels: 1 to 15: the initial block's 16 channels hold the image's, pooled, beside a convolution's.
        num_classes: Outputs.
        strides: Accepted if they are the network's own: three halvings.
        auxiliary_heads: Must be false.
        deep_supervision: Kept, without effect.

    Raises:
        UsageError: If there are too many channels, or strides or heads are others.

    References:
        Paszke et al., ENet: A Deep Neural Network Architecture for Real-Time Semantic Segmentation, 2016,
        https://arxiv.org/abs/1606.02147
    """

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        *,
        strides: Strides | None = None,
        auxiliary_heads: bool = False,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__(strides, STRIDES, auxiliary_heads=auxiliary_heads, deep_supervision=deep_supervision)
        if input_channels >= FEATURES[0]:
            raise UsageError(f"ENet: expected fewer than {FEATURES[0]} input channels, got {input_channels}")
        self.encoder = Encoder(input_channels)
        self.decoder = Decoder()
        self.head = nn.ConvTranspose2d(FEATURES[0], num_classes, kernel_size=2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits ``(B, num_classes, H, W)`` of ``image``, ``(B, input_channels, H, W)``."""
        features, places = self.encoder(pad_to_multiple(image, _STEP))
        return crop(self.head(self.decoder(features, places)), image.shape[2:])


def student_block(architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Return ENet (0.36 million parameters, 2-D).

    Args:
        architecture: The teacher's block.

    Raises:
        UsageError: If the teacher is 3-D.
    """
    return planar_block("enet", architecture, "ENet", strides=STRIDES)

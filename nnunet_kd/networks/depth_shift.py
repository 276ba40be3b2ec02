"""Depth shift: 2-D convolutions that exchange channels with the slices before and after.

Maheshwari et al., Distill DSM: Computationally efficient method for segmentation of medical imaging volumes, MIDL 2021,
https://proceedings.mlr.press/v143/maheshwari21a.html. Written from the equations; the authors' code is not used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import ceil, floor

import torch
from torch import Tensor, nn


def to_slices(volumes: Tensor) -> Tensor:
    """Return ``(B, C, T, h, w)`` as a batch of slices ``(B*T, C, h, w)``.

    Nothing is copied where the volumes came from :func:`to_volumes`.
    """
    return volumes.transpose(1, 2).flatten(0, 1)


def to_volumes(slices: Tensor, n_slices: int) -> Tensor:
    """Return a batch of slices ``(B*T, C, h, w)`` as volumes ``(B, C, T, h, w)``: a view, not contiguous.

    Args:
        slices: Sample after sample, each in the order of its slices.
        n_slices: T.

    Example:
        >>> to_volumes(torch.zeros(6, 4, 8, 8), 3).shape
        torch.Size([2, 4, 3, 8, 8])
    """
    return _by_volume(slices, n_slices).transpose(1, 2)


def _by_volume(slices: Tensor, n_slices: int) -> Tensor:
    """Return ``(B, T, C, h, w)`` for ``(B*T, C, h, w)``. Not by unflatten, which ONNX's tracing fixes to one T."""
    return slices.reshape(-1, n_slices, *slices.shape[1:])


def from_previous(features: Tensor) -> Tensor:
    """Give every slice the values of the slice before it, the first one zeros.

    Args:
        features: ``(B, T, ...)``.

    Example:
        >>> from_previous(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[0., 1., 2.]])
    """
    return torch.cat([torch.zeros_like(features[:, :1]), features[:, :-1]], dim=1)


def from_next(features: Tensor) -> Tensor:
    """Give every slice the values of the slice after it, the last one zeros.

    Args:
        features: ``(B, T, ...)``.

    Example:
        >>> from_next(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[2., 3., 0.]])
    """
    return torch.cat([features[:, 1:], torch.zeros_like(features[:, :1])], dim=1)


def selected_channels(channels: int, alpha: float, multiple: int = 4) -> int:
    """Return alpha * C, the number of channels that a shift reads.

    Args:
        channels: C.
        alpha: Share of the channels, in [0, 1].
        multiple: What the number must be a multiple of, so that it can be divided into the parts of a shift.

    Raises:
        ValueError: If alpha is out of range or the number no such multiple; names the nearest alphas that fit.

    Example:
        >>> selected_channels(32, 0.5)
        16
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, got {alpha}")
    selected = round(alpha * channels)
    if abs(selected - alpha * channels) > 1e-6 * channels or selected % multiple:
        parts = alpha * channels / multiple
        nearest = dict.fromkeys(
            f"{n * multiple / channels:g}" for n in (floor(parts), ceil(parts)) if n * multiple <= channels
        )
        raise ValueError(
            f"alpha {alpha:g} of {channels} channels is {alpha * channels:g}, expected a multiple of {multiple}; "
            f"nearest: alpha {' or '.join(nearest)}"
        )
    return selected


class DepthShift(nn.Module, ABC):
    """What exchanges features between slices of one volume and never between volumes.

    It stands between 2-D layers, on volumes or on batches of slices. Number of channels and size stay as they are.

    Attributes:
        selected: Channels that it reads, the first ones; the others keep place and values.
    """

    selected: int

    def forward(self, features: Tensor, n_slices: int | None = None) -> Tensor:
        """Return features of the same shape.

        Args:
            features: Volumes ``(B, C, T, h, w)``, or slices ``(B*T, C, h, w)``, sample after sample.
            n_slices: T, for slices only.

        Raises:
            ValueError: If slices come without their number.
        """
        if self.selected == 0:
            return features
        if features.ndim == 5:
            return self.exchange(features.transpose(1, 2)).transpose(1, 2)
        if n_slices is None:
            raise ValueError(
                f"expected volumes (B, C, T, h, w), or slices and n_slices, got shape {tuple(features.shape)} alone"
            )
        return self.exchange(_by_volume(features, n_slices)).flatten(0, 1)

    @abstractmethod
    def exchange(self, features: Tensor) -> Tensor:
        """Return features after the exchange, both ``(B, T, C, h, w)``."""


class DistillDSM(DepthShift):
    """The learned shift of [1]: ``out_i = concat(F_{i-1}, B_{i+1}, R_i, rest of Z_i)``.

    F, B and R are 3x3 convolutions with bias of the same alpha * C channels of the input Z, with alpha * C / 4,
    alpha * C / 4 and alpha * C / 2 outputs. Beyond both ends of a volume F and B are zero. As the three read the same
    channels, they are one convolution here, ``mix``, whose outputs are F, B and R in this order: the same numbers
    and parameters in one call.

    The channels read are the first ones, where the text of [1]'s repository takes the last: the same function but for
    the order of channels, which the layers around it learn in any order. So the untouched channels keep their place.

    Args:
        channels: C.
        alpha: Share of the channels that is read, in [0, 1]; alpha * C a multiple of 4. 0 is the identity, without
            parameters. [1] reports 1/2; its public code has 1.

    Raises:
        ValueError: For another alpha; names the nearest.

    References:
        [1] Maheshwari et al., Distill DSM, MIDL 2021, https://proceedings.mlr.press/v143/maheshwari21a.html

    Example:
        >>> shift = DistillDSM(16, alpha=0.5)
        >>> shift(torch.zeros(2, 16, 5, 8, 8)).shape, sum(p.numel() for p in shift.parameters())
        (torch.Size([2, 16, 5, 8, 8]), 584)
    """

    def __init__(self, channels: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.selected = selected_channels(channels, alpha)
        if self.selected:
            self.mix = nn.Conv2d(self.selected, self.selected, 3, padding=1)

    def exchange(self, features: Tensor) -> Tensor:
        """Return features after the exchange, both ``(B, T, C, h, w)``."""
        n = self.selected
        mixed = _by_volume(self.mix(features[:, :, :n].flatten(0, 1)), features.shape[1])
        q = n // 4
        parts = [from_previous(mixed[:, :, :q]), from_next(mixed[:, :, q : 2 * q]), mixed[:, :, 2 * q :]]
        if n < features.shape[2]:
            parts.append(features[:, :, n:])
        return torch.cat(parts, dim=2)


class ResidualShift(DepthShift):
    """The shift without parameters that is the baseline of [1], there "Residual DSM", after [2].

    The first alpha * C / 2 channels take the values of the next slice, as many the values of the previous one; zeros
    beyond the ends.

    Args:
        channels: C.
        alpha: Share of the channels that moves, in [0, 1]; alpha * C a multiple of 2. 1/2 in [1]: a quarter either way.

    Raises:
        ValueError: For another alpha; names the nearest.

    References:
        [1] Maheshwari et al., Distill DSM, MIDL 2021, https://proceedings.mlr.press/v143/maheshwari21a.html
        [2] Lin et al., TSM: Temporal Shift Module for Efficient Video Understanding, 2019,
            https://arxiv.org/abs/1811.08383

    Example:
        >>> volume = torch.arange(1.0, 4).view(1, 1, 3, 1, 1).expand(-1, 4, -1, -1, -1)  # slices 1, 2, 3
        >>> ResidualShift(4)(volume).flatten(2)
        tensor([[[2., 3., 0.],
                 [0., 1., 2.],
                 [1., 2., 3.],
                 [1., 2., 3.]]])
    """

    def __init__(self, channels: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.selected = selected_channels(channels, alpha, multiple=2)

    def exchange(self, features: Tensor) -> Tensor:
        """Return features after the exchange, both ``(B, T, C, h, w)``."""
        n = self.selected
        parts = [from_next(features[:, :, : n // 2]), from_previous(features[:, :, n // 2 : n])]
        if n < features.shape[2]:
            parts.append(features[:, :, n:])
        return torch.cat(parts, dim=2)


class SliceWise(nn.Module):
    """Any 2-D module on every slice of volumes: with a shift between two of them, a 2-D network sees its neighbours.

    Args:
        module: Takes ``(N, C, h, w)`` and returns ``(N, C', h', w')``.

    Example:
        >>> layers = [SliceWise(nn.Conv2d(1, 8, 3)), DistillDSM(8), SliceWise(nn.Conv2d(8, 2, 3))]
        >>> nn.Sequential(*layers)(torch.zeros(2, 1, 5, 9, 9)).shape
        torch.Size([2, 2, 5, 5, 5])
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, volumes: Tensor) -> Tensor:
        """Return volumes ``(B, C', T, h', w')`` for volumes ``(B, C, T, h, w)``."""
        return to_volumes(self.module(to_slices(volumes)), volumes.shape[2])

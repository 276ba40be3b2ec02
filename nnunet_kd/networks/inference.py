"""Whole volumes through a network in one pass, in place of a sliding window."""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from nnunet_kd.losses.logits import probabilities


@torch.no_grad()
def whole_volume_probabilities(
    network: nn.Module, image: Tensor, *, divisor: Sequence[int], flip_axes: Sequence[int] = (), regions: bool = False
) -> Tensor:
    """Pad an image, pass it through a network whole, and average over flips.

    The image is padded with zeros on both sides, the odd voxel behind. The probabilities, not the logits, are averaged
    over the identity and every combination of flips [1]. A network of two axes sees a volume slice by slice.

    Args:
        network: Returns logits ``(B, C, *spatial)``, or a list of them, finest first; in evaluation mode.
        image: Preprocessed, ``(channels, *spatial)``, on the network's device.
        divisor: What the padded size is a multiple of, per axis of the network: the product of its strides.
        flip_axes: Spatial axes of the network, from 0. Two axes make four passes.
        regions: Sigmoid per channel instead of softmax over channels.

    Returns:
        Probabilities, ``(C, *spatial)`` of the image, float32.

    References:
        [1] Lachinov, Shipunova, Turlapov, Knowledge Distillation for Brain Tumor Segmentation, 2019,
        https://arxiv.org/abs/2002.03688; inference in https://github.com/lachinov/brats2019

    Example:
        >>> import torch
        >>> whole_volume_probabilities(torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 5, 7), divisor=(4, 4)).shape
        torch.Size([2, 5, 7])
    """
    if image.ndim == len(divisor) + 2:
        slices = [
            whole_volume_probabilities(network, one, divisor=divisor, flip_axes=flip_axes, regions=regions)
            for one in image.movedim(1, 0)
        ]
        return torch.stack(slices, dim=1)
    missing = [-size % step for size, step in zip(image.shape[1:], divisor, strict=True)]
    before = [n // 2 for n in missing]
    # torch takes the last axis first
    borders = [n for low, both in reversed([*zip(before, missing, strict=True)]) for n in (low, both - low)]
    padded = pad(image, borders)
    total = torch.zeros(())
    flips = [axes for n in range(len(flip_axes) + 1) for axes in combinations(flip_axes, n)]
    for axes in flips:
        dims = [axis + 2 for axis in axes]
        output = network(padded[None].flip(dims))
        finest: Tensor = output if isinstance(output, Tensor) else output[0]
        total = total.to(finest.device) + probabilities(finest.flip(dims).float(), 1.0, regions=regions)[0]
    inner = tuple(slice(low, low + size) for low, size in zip(before, image.shape[1:], strict=True))
    mean: Tensor = total[(slice(None), *inner)] / len(flips)
    return mean

"""Losses on the labels that published methods train with, in the place of nnU-Net's."""

from collections.abc import Callable

import torch
from torch import Tensor

from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.weighting import mean_over_voxels

BACKGROUND_WEIGHT = 0.01
EPSILON = 1e-6
GAMMA = 2.0

# logits (B, C, *spatial), the labels, weights of the samples (B,) or None -> scalar
SupervisedLoss = Callable[[Tensor, Reference, Tensor | None], Tensor]


def region_dice_bce(logits: Tensor, reference: Reference, sample_weights: Tensor | None = None) -> Tensor:
    """Return the mean of Dice loss and weighted binary cross-entropy over regions, the loss of [1].

    ``1 - mean_c 2 (sum pg + 1e-6) / (sum (p^2 + g) + 2e-6)``, sums over batch and space, and
    ``-mean[g log(p + 1e-6) + 0.01 (1 - g) log(1 + 1e-6 - p)]``: the background's weight of 1 % keeps it from
    drowning small regions.

    Args:
        logits: ``(B, C, *spatial)``. Regions go through a sigmoid, as published; exclusive classes through a softmax,
            of which the foreground counts.
        reference: The labels; ignored voxels count nowhere.
        sample_weights: How much each sample counts, ``(B,)``, >= 0; ``None``: all alike.

    References:
        [1] Lachinov et al., Knowledge Distillation for Brain Tumor Segmentation, 2020,
            https://arxiv.org/abs/2002.03688, and the authors' code
    """
    p, g = _foreground(logits, reference)
    weight = _voxel_weight(reference, sample_weights, p)
    overlap, sizes = _sums(p * g, weight), _sums(p.square() + g, weight)
    dice = 1 - (2 * (overlap + EPSILON) / (sizes + 2 * EPSILON)).mean()
    entropy = g * (p + EPSILON).log() + BACKGROUND_WEIGHT * (1 - g) * (1 + EPSILON - p).log()
    return (dice - mean_over_voxels(entropy.mean(dim=1, keepdim=True), weight)) / 2


def focal_dice(logits: Tensor, reference: Reference, sample_weights: Tensor | None = None) -> Tensor:
    """Return half focal loss, half Dice loss of the foreground, the supervision of [1].

    Focal: mean over voxels of ``-(1 - p_t)^2 log p_t`` [2, eq. 4], ``p_t`` the probability of the voxel's class (of
    each region's truth, averaged over regions). Dice: ``1 - mean_c (2 sum pg + 1) / (sum p + sum g + 1)``, sums over
    batch and space.

    Args:
        logits: ``(B, C, *spatial)``.
        reference: The labels; ignored voxels count nowhere.
        sample_weights: How much each sample counts, ``(B,)``, >= 0; ``None``: all alike.

    References:
        [1] Gorade et al., Rethinking Intermediate Layers Design in Knowledge Distillation for Kidney and Liver Tumor
            Segmentation, 2024, https://arxiv.org/abs/2311.16700, and the authors' code
        [2] Lin et al., Focal Loss for Dense Object Detection, 2017, https://arxiv.org/abs/1708.02002
    """
    p, g = _foreground(logits, reference)
    weight = _voxel_weight(reference, sample_weights, p)
    dice = 1 - ((2 * _sums(p * g, weight) + 1) / (_sums(p + g, weight) + 1)).mean()
    log_true = _log_probability_of_truth(logits, reference)
    focal = -((1 - log_true.exp()) ** GAMMA) * log_true
    return (mean_over_voxels(focal.mean(dim=1, keepdim=True), weight) + dice) / 2


def channel_dice(logits: Tensor, reference: Reference, sample_weights: Tensor | None = None) -> Tensor:
    """Return the Dice loss per channel with squared sizes, the loss of [1].

    ``1 - mean_c 2 sum pg / max(sum p^2 + sum g^2, 1e-6)``, sums over batch and space. The published code has no
    sigmoid before it, so that its value leaves [0, 1]; here p are probabilities.

    Args:
        logits: ``(B, C, *spatial)``; sigmoid for regions, softmax without the background for classes.
        reference: The labels; ignored voxels count nowhere.
        sample_weights: How much each sample counts, ``(B,)``, >= 0; ``None``: all alike.

    References:
        [1] Maheshwari et al., Distill DSM, MIDL 2021, https://proceedings.mlr.press/v143/maheshwari21a.html, and the
            authors' port of its code
    """
    p, g = _foreground(logits, reference)
    weight = _voxel_weight(reference, sample_weights, p)
    sizes = _sums(p.square() + g.square(), weight).clamp(min=EPSILON)
    return 1 - (2 * _sums(p * g, weight) / sizes).mean()


SUPERVISIONS: dict[str, SupervisedLoss] = {
    "region_dice_bce": region_dice_bce,
    "focal_dice": focal_dice,
    "channel_dice": channel_dice,
}


def _foreground(logits: Tensor, reference: Reference) -> tuple[Tensor, Tensor]:
    """Return probabilities and truth of regions or foreground classes."""
    logits = logits.float()
    if reference.regions:
        return logits.sigmoid(), reference.masks.float()
    return logits.softmax(dim=1)[:, 1:], reference.masks[:, 1:].float()


def _log_probability_of_truth(logits: Tensor, reference: Reference) -> Tensor:
    logits = logits.float()
    if reference.regions:
        return torch.nn.functional.logsigmoid(torch.where(reference.masks, logits, -logits))
    return (logits.log_softmax(dim=1) * reference.masks).sum(dim=1, keepdim=True)


def _voxel_weight(reference: Reference, sample_weights: Tensor | None, like: Tensor) -> Tensor | None:
    """Return how much each voxel counts, ``(B, 1, *spatial)``, or ``None``."""
    weight = None if reference.ignored is None else (~reference.ignored).to(like.dtype)
    if sample_weights is not None:
        per_sample = sample_weights.to(like).view(-1, *[1] * (like.ndim - 1))
        weight = per_sample.expand(-1, 1, *like.shape[2:]) if weight is None else weight * per_sample
    return weight


def _sums(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the sum over batch and space per channel, ``(C,)``."""
    return (values if weight is None else values * weight).transpose(0, 1).flatten(1).sum(dim=1)

"""The game between generator and discriminator: losses of both, and when and how much they count."""

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor
from torch.nn.functional import relu, softplus

LOWEST, HIGHEST = log(4), log(32)  # logarithms of the accelerations at which the verdict counts 0 and 1


def grown(progress: float, warm_up: float) -> float:
    """Return how much the discriminator counts, in [0, 1]: 0 in the warm-up, 1 after as long again.

    Args:
        progress: Share of the training that is done.
        warm_up: Share without a discriminator.

    Example:
        >>> [grown(progress, 0.25) for progress in (0.0, 0.25, 0.375, 0.5, 0.9)]
        [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    if warm_up == 0:
        return 1.0
    return min(max(progress / warm_up - 1, 0.0), 1.0)


def acceleration_weights(log_acceleration: Tensor) -> Tensor:
    """Return the weight of each slice's verdict: linear in the logarithm of its acceleration, 0 at 4, 1 at 32.

    Args:
        log_acceleration: ``(B,)``, see :func:`nnunet_kd.recon.networks.acceleration.log_acceleration`.

    Returns:
        ``(B,)``, >= 0; more than 1 beyond 32.

    Example:
        >>> acceleration_weights(torch.tensor([2.0, 4.0, 32.0]).log()).tolist()
        [0.0, 0.0, 1.0]
    """
    return ((log_acceleration - LOWEST) / (HIGHEST - LOWEST)).clamp(min=0)


def verdicts(logits: Sequence[Tensor], judges: str) -> list[Tensor]:
    """Return the numbers that are judged by, per resolution: every patch's logit, or their mean.

    Args:
        logits: ``(B, 1, h, w)`` per resolution.
        judges: ``patches`` or ``image``.
    """
    return list(logits) if judges == "patches" else [scale.mean(dim=(2, 3), keepdim=True) for scale in logits]


def generator_losses(found: Sequence[Tensor], game: str) -> Tensor:
    """Return what each image loses by its verdicts, ``(B,)``: hinge ``-D`` [1], logistic ``log(1 + exp(-D))`` [2].

    Args:
        found: Of generated images, see :func:`verdicts`.
        game: ``hinge`` or ``logistic``.

    References:
        [1] Lim and Ye, Geometric GAN, 2017, https://arxiv.org/abs/1705.02894
        [2] Goodfellow et al., Generative Adversarial Networks, 2014, https://arxiv.org/abs/1406.2661
    """
    return _per_image([-scale if game == "hinge" else softplus(-scale) for scale in found])


def discriminator_loss(real: Sequence[Tensor], fake: Sequence[Tensor], game: str) -> Tensor:
    """Return the discriminator's loss, a scalar >= 0: the mean over true images plus that over generated ones.

    Args:
        real: Verdicts on true images.
        fake: On generated ones.
        game: ``hinge``: ``max(0, 1 - D(x)) + max(0, 1 + D(g))``; ``logistic``: ``log(1 + exp(-D(x))) + log(1 +
            exp(D(g)))``.
    """
    if game == "hinge":
        losses = [_per_image([relu(1 - scale) for scale in real]), _per_image([relu(1 + scale) for scale in fake])]
    else:
        losses = [_per_image([softplus(-scale) for scale in real]), _per_image([softplus(scale) for scale in fake])]
    return losses[0].mean() + losses[1].mean()


def slope_penalty(logits: Sequence[Tensor], image: Tensor) -> Tensor:
    """Return R1 [3], half the squared slope of the discriminator at true images.

    The slope is that of the sum over patches, and its square the mean over pixels, so that it does not depend on the
    size of the image.

    Args:
        logits: Of the true images, per resolution.
        image: These images, ``(B, h, w)``, which the logits were computed from with gradients.

    Returns:
        A scalar >= 0, with a graph.

    References:
        [3] Mescheder et al., Which Training Methods for GANs do actually Converge?, 2018,
            https://arxiv.org/abs/1801.04406
    """
    total = torch.stack([scale.sum() for scale in logits]).mean()
    (slope,) = torch.autograd.grad(total, image, create_graph=True)
    return slope.square().mean() / 2


def _per_image(values: Sequence[Tensor]) -> Tensor:
    return torch.stack([scale.mean(dim=(1, 2, 3)) for scale in values]).mean(dim=0)

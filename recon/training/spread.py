"""How much the samples of one measurement should differ, and how far a code may be from noise."""

from math import pi, sqrt

from torch import Tensor


def spread(samples: Tensor) -> Tensor:
    """Return the mean standard deviation of samples, estimated from absolute deviations, a scalar.

    ``sqrt(pi / (2 P (P - 1))) sum_i mean |x_i - mean|``, which is unbiased for independent normal samples [1].

    Args:
        samples: ``(P, B, h, w)``, P >= 2.

    References:
        [1] Bendel et al., A Regularized Conditional GAN for Posterior Sampling in Image Recovery Problems, 2023,
            https://arxiv.org/abs/2210.13389
    """
    n_samples = len(samples)
    deviations = (samples - samples.mean(dim=0)).abs().mean(dim=(1, 2, 3)).sum()
    return sqrt(pi / (2 * n_samples * (n_samples - 1))) * deviations


def posterior_loss(samples: Tensor, target: Tensor) -> Tensor:
    """Return rcGAN's regularisation: the L1 of the samples' mean, less a reward for their spread.

    With the weight ``sqrt(2 / (pi P (P + 1)))`` of the reward, normal samples minimise it if they have the true
    posterior's mean and standard deviation [1]: the L1 alone wants samples that do not differ.

    Args:
        samples: Magnitudes, ``(P, B, h, w)``, P >= 2.
        target: ``(B, h, w)``.

    Returns:
        A scalar; it may be negative.
    """
    n_samples = len(samples)
    error = (samples.mean(dim=0) - target).abs().mean()
    return error - sqrt(2 / (pi * n_samples * (n_samples + 1))) * spread(samples)


def divergence(mean: Tensor, log_variance: Tensor, free_bits: float) -> Tensor:
    """Return the Kullback-Leibler divergence of a code from a standard normal one: a mean, with free bits [2].

    Args:
        mean: ``(B, N)``.
        log_variance: Same shape.
        free_bits: What each of the N may diverge by, on average over the batch, without cost [nat].

    Returns:
        A scalar >= ``free_bits``.

    References:
        [2] Kingma et al., Improved Variational Inference with Inverse Autoregressive Flow, 2016,
            https://arxiv.org/abs/1606.04934

    Example:
        >>> divergence(Tensor([[1.0, 1.0]]), Tensor([[0.0, 0.0]]), 0.0).item()
        0.5
    """
    each = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    return each.mean(dim=0).clamp(min=free_bits).mean()

"""The null space of the sampling: what can be added to an image without any measured sample noticing."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import coil_images, combine
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image
from nnunet_kd.recon.physics.operators import adjoint, forward
from nnunet_kd.recon.physics.sampling import apply_mask

STEPS = 20  # of conjugate gradients, for several coils
# of the first residual; what is smaller is rounding, and lies in the null space as much as beside it
SMALLEST = 1e-6


def null_space(image: Tensor, acquisition: Acquisition, steps: int = STEPS) -> Tensor:
    """Project an image onto what the measurement ``A = M F S`` does not see, ``(I - A^+ A) x``.

    For a single coil that is ``F^H (1 - M) F x``, exact but for rounding. For several coils ``A^+ A x`` has no closed
    form; conjugate gradients on ``A^H A`` find it from zero, so that every step lowers what the measurement still sees.
    How fast depends on coils and mask: :func:`visible_share` tells what is left. Where coils tell all of the image,
    as many of them do at low acceleration, the null space is empty and the result small.

    A projection is its own adjoint, so gradients are projected in the same way and no step is kept for them.

    Args:
        image: ``(B, H, W)``, complex or real.
        acquisition: How it was measured; what was measured does not matter.
        steps: Of conjugate gradients, for several coils.

    Returns:
        ``(B, H, W)``, complex64.
    """
    mask, sensitivities = acquisition.mask, acquisition.sensitivities
    if sensitivities.shape[1] == 1:
        unseen = apply_mask(image_to_kspace(coil_images(image, sensitivities)), 1 - mask)
        return combine(kspace_to_image(unseen), sensitivities)
    projected: Tensor = _Projection.apply(image.to(sensitivities.dtype), mask, sensitivities, steps)
    return projected


def visible_share(detail: Tensor, acquisition: Acquisition) -> Tensor:
    """Return how much of the measurement an added detail would change, ``|A d| / |y|``.

    Args:
        detail: ``(B, H, W)``, complex or real.
        acquisition: What was measured.

    Returns:
        ``(B,)``, >= 0; 0 for an empty slice.
    """
    changed = forward(detail, acquisition.mask, acquisition.sensitivities).abs().square().sum(dim=(1, 2, 3))
    return _ratio(changed, acquisition.kspace.abs().square().sum(dim=(1, 2, 3))).sqrt()


class _Projection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor, mask: Tensor, sensitivities: Tensor, steps: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(mask, sensitivities)
        ctx.steps = steps
        return image - _seen(image, mask, sensitivities, steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        mask, sensitivities = ctx.saved_tensors
        return gradient - _seen(gradient, mask, sensitivities, ctx.steps), None, None, None


def _seen(image: Tensor, mask: Tensor, sensitivities: Tensor, steps: int) -> Tensor:
    """Return ``A^+ A x`` by conjugate gradients on ``A^H A s = A^H A x``."""
    seen = torch.zeros_like(image)
    residual = direction = _normal(image, mask, sensitivities)
    energy = _inner(residual, residual)
    enough = SMALLEST**2 * energy
    for _ in range(steps):
        ahead = _normal(direction, mask, sensitivities)
        length = _ratio(energy, _inner(direction, ahead)) * (energy > enough)
        seen = seen + length * direction
        residual = residual - length * ahead
        left = _inner(residual, residual)
        direction, energy = residual + _ratio(left, energy) * direction, left
    return seen


def _normal(image: Tensor, mask: Tensor, sensitivities: Tensor) -> Tensor:
    return adjoint(forward(image, mask, sensitivities), mask, sensitivities)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum(dim=(1, 2), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return a quotient of numbers >= 0, 0 where the divisor is 0: nothing is left to do there."""
    return torch.where(below > 0, above / below.clamp(min=torch.finfo(below.dtype).tiny), torch.zeros_like(above))

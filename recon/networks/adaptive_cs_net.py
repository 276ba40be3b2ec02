"""Adaptive-CS-Net: gradient steps towards the measurement, each with a learnt multi-scale shrinkage."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.acceleration import AccelerationEmbedding
from nnunet_kd.recon.networks.channels import n_channels, network_input, starting_image, to_channels, to_image
from nnunet_kd.recon.networks.multi_scale import MultiScaleTransform, check_choices
from nnunet_kd.recon.networks.unet_body import padded
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.low_resolution import low_resolution
from nnunet_kd.recon.physics.priors import background_image, consistency_image, phase_image

PRIORS = ("consistency", "phase", "background")
EMBEDDING = 16


class Block(nn.Module):
    """What one unrolled step adds: the multi-scale transform of the image, its neighbours and its priors.

    Args:
        n_in: Channels of all of these.
        n_out: Channels of an image.
        channels: Of the transform's finest scale.
        scales: Of the transform.
        n_condition: Numbers the transform depends on.
    """

    def __init__(self, n_in: int, n_out: int, channels: int, scales: int, n_condition: int) -> None:
        super().__init__()
        self.transform = MultiScaleTransform(n_in, n_out, channels, scales, n_condition)

    def forward(self, channels: Tensor, condition: Tensor | None) -> Tensor:
        """Return the image to add, ``(B, H, W)``, of channels ``(B, n_in, H, W)`` of any size."""
        multiple = 2 ** (self.transform.scales - 1)
        return to_image(padded(lambda features: self.transform(features, condition), channels, multiple))


class AdaptiveCSNet(nn.Module):
    """Unrolled reconstruction after Adaptive-CS-Net [1], one network for many accelerations.

    ``x_{k+1} = x_k - eta_k A^H (A x_k - y) + U_k(x_k, priors, neighbours, log R)`` with ``A = M F S``, ``U_k`` a
    :class:`nnunet_kd.recon.networks.multi_scale.MultiScaleTransform` of weights of its own, and ``eta_k`` learnt from 1
    on. One more step towards the measurement comes last. Unlike [1] the measurement is stepped towards and not only
    shown, the network is told the acceleration, and a slice's neighbours are given to every block but not
    reconstructed with it.

    Args:
        blocks: Unrolled steps.
        channels: Of each transform's finest scale.
        scales: Of each transform, at least 2.
        n_context: Neighbouring slices that every block sees too: both sides together.
        complex_data: Whether images are complex, two channels, or magnitudes of data derived from magnitudes. These
            have no phase: the prior of that name is left out.
        priors: Among ``consistency`` (the misfit as an image), ``phase`` (what is out of the smooth phase) and
            ``background`` (what lies where nothing is expected), see :mod:`nnunet_kd.recon.physics.priors`.
        embed_acceleration: Whether thresholds and features depend on the acceleration, which the mask tells.

    Raises:
        UsageError: If the settings make no network.

    References:
        [1] Pezzotti et al., An Adaptive Intelligence Algorithm for Undersampled Knee MRI Reconstruction, 2020,
            https://arxiv.org/abs/2004.07339
    """

    def __init__(
        self,
        blocks: int = 8,
        channels: int = 16,
        scales: int = 3,
        *,
        n_context: int = 0,
        complex_data: bool = True,
        priors: Sequence[str] = PRIORS,
        embed_acceleration: bool = True,
    ) -> None:
        super().__init__()
        if blocks < 1:
            raise UsageError(f"architecture, blocks: expected at least 1, got {blocks}")
        check_choices("priors", priors, PRIORS)
        self.complex_data, self.n_context = complex_data, n_context
        self.priors = tuple(name for name in PRIORS if name in priors and (complex_data or name != "phase"))
        n_out = n_channels(1, complex_data=complex_data)
        # the phase's is real, the others are images as the image itself
        n_priors = sum(1 if name == "phase" else n_out for name in self.priors)
        n_in = n_channels(1 + n_context, complex_data=complex_data) + n_priors
        self.embedding = AccelerationEmbedding(EMBEDDING) if embed_acceleration else None
        n_condition = EMBEDDING if embed_acceleration else 0
        self.blocks = nn.ModuleList(Block(n_in, n_out, channels, scales, n_condition) for _ in range(blocks))
        self.steps = nn.Parameter(torch.ones(blocks + 1))

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: complex64, or float32 for magnitudes."""
        image = starting_image(acquisition, complex_data=self.complex_data)
        low = low_resolution(acquisition)
        condition = None if self.embedding is None else self.embedding(acquisition.mask)
        for step, block in zip(self.steps, self.blocks, strict=False):
            misfit = self._misfit(image, acquisition)
            channels = [network_input(image, acquisition, self.n_context), *self._priors(image, misfit, low)]
            image = image - step * misfit + block(torch.cat(channels, dim=1), condition)
        return image - self.steps[-1] * self._misfit(image, acquisition)

    def _misfit(self, image: Tensor, acquisition: Acquisition) -> Tensor:
        misfit = consistency_image(image, acquisition)
        return misfit if self.complex_data else misfit.real

    def _priors(self, image: Tensor, misfit: Tensor, low: Tensor) -> list[Tensor]:
        found = {"consistency": misfit, "background": background_image(image, low)}
        if self.complex_data:
            found["phase"] = phase_image(image, low)
        return [to_channels(found[name][:, None]) for name in self.priors]

    def stage_names(self) -> dict[str, str]:
        """Return the layers of :meth:`middle_layers`, each of the kind ``encoder``: block pairs with block."""
        return dict.fromkeys(self.middle_layers(), "encoder")

    def middle_layers(self) -> list[str]:
        """Return the dotted names of the features that each block's addition is made from, at full resolution."""
        return [f"blocks.{index}.transform.{block.transform.last_features()}" for index, block in self._numbered()]

    def _numbered(self) -> list[tuple[int, Block]]:
        return [(index, block) for index, block in enumerate(self.blocks) if isinstance(block, Block)]

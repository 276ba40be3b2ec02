"""Unrolled variational network: steps towards the measurement and towards an image, in turn."""

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.channels import n_channels, network_input, to_image
from nnunet_kd.recon.networks.sensitivities import SensitivityNetwork
from nnunet_kd.recon.networks.unet_body import UNetBody, standardised
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.coils import coil_images, combine, root_sum_of_squares
from nnunet_kd.recon.physics.fourier import image_to_kspace, kspace_to_image

SENSITIVITIES = ("learned", "given")
COMBINATIONS = ("sensitivities", "rss")


class Cascade(nn.Module):
    """One step: ``k - eta M (k - y) - F S U(S^H F^H k)``, eta learned, U a U-Net.

    Args:
        channels: Of the U-Net's finest stage.
        pools: How often it halves the resolution.
        n_context: Neighbouring slices that it sees too.
    """

    def __init__(self, channels: int, pools: int, n_context: int) -> None:
        super().__init__()
        self.n_context = n_context
        self.body = UNetBody(n_channels(1 + n_context, complex_data=True), 2, channels, pools)
        self.step = nn.Parameter(torch.ones(1))

    def forward(self, kspace: Tensor, acquisition: Acquisition) -> Tensor:
        """Return k-space after the step, ``(B, C, H, W)``, of k-space before it."""
        sensitivities = acquisition.sensitivities
        image = combine(kspace_to_image(kspace), sensitivities)
        correction = to_image(standardised(self.body, network_input(image, acquisition, self.n_context)))
        misfit = acquisition.mask[:, None] * (kspace - acquisition.kspace)
        return kspace - self.step * misfit - image_to_kspace(coil_images(correction, sensitivities))


class VarNet(nn.Module):
    """End-to-end variational network [1] for any number of coils, one included; always complex.

    The default has the published size: 12 cascades of 18 channels and sensitivities from a U-Net of 8.

    Args:
        cascades: Steps, each with weights of its own.
        channels: Of each step's U-Net, in its finest stage.
        pools: How often it halves the resolution.
        sensitivities: ``learned`` from the calibration region with the rest, or those ``given`` with the data. A single
            coil has none to learn: plan it with ``given``, or the weights of that network are never trained.
        sensitivity_channels: Of the U-Net that learns them.
        sensitivity_pools: How often that halves the resolution.
        combination: ``sensitivities``, a complex image; or ``rss``, the root of the sum of squares over the coils, a
            magnitude in float32, as published.
        n_context: Neighbouring slices that every step sees too: both sides together.

    Raises:
        UsageError: If the settings make no network.

    References:
        [1] Sriram et al., End-to-End Variational Networks for Accelerated MRI Reconstruction, 2020,
            https://arxiv.org/abs/2004.06688
    """

    def __init__(
        self,
        cascades: int = 12,
        channels: int = 18,
        pools: int = 4,
        *,
        sensitivities: str = "learned",
        sensitivity_channels: int = 8,
        sensitivity_pools: int = 4,
        combination: str = "sensitivities",
        n_context: int = 0,
    ) -> None:
        super().__init__()
        if cascades < 1:
            raise UsageError(f"architecture, cascades: expected at least 1, got {cascades}")
        _check_choice("sensitivities", sensitivities, SENSITIVITIES)
        _check_choice("combination", combination, COMBINATIONS)
        self.combination = combination
        self.sensitivities = (
            SensitivityNetwork(sensitivity_channels, sensitivity_pools) if sensitivities == "learned" else None
        )
        self.cascades = nn.ModuleList(Cascade(channels, pools, n_context) for _ in range(cascades))

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: complex64, or float32 for ``rss``."""
        acquisition = self._with_sensitivities(acquisition)
        kspace = acquisition.kspace
        for cascade in self.cascades:
            kspace = cascade(kspace, acquisition)
        images = kspace_to_image(kspace)
        if self.combination == "rss":
            return root_sum_of_squares(images)
        return combine(images, acquisition.sensitivities)

    def _with_sensitivities(self, acquisition: Acquisition) -> Acquisition:
        if self.sensitivities is None or acquisition.kspace.shape[1] == 1:
            return acquisition
        return acquisition._replace(sensitivities=self.sensitivities(acquisition.kspace, acquisition.mask))

    def stage_names(self) -> dict[str, str]:
        """Return the bottleneck of each step, each of the kind ``encoder``: step pairs with step."""
        return dict.fromkeys(self.middle_layers(), "encoder")

    def middle_layers(self) -> list[str]:
        """Return the dotted names of the bottlenecks of all steps."""
        return [f"cascades.{index}.body.bottleneck" for index in range(len(self.cascades))]


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"architecture, {name}: expected one of {', '.join(choices)}, got {value!r}")

"""VDSR: one deep stack of convolutions that adds the lost detail to an image of low resolution."""

from torch import Tensor, nn

from nnunet_kd.recon.networks.channels import n_channels, network_input, starting_image, to_image
from nnunet_kd.recon.networks.convolutions import convolution_stack, middle_layer
from nnunet_kd.recon.physics.acquisition import Acquisition


class VDSR(nn.Module):
    """``x + C(x)`` of the zero-filled image x, as KD-MRI takes it for super-resolution [1, 2].

    KD-MRI's teacher has 11 layers and 333,569 parameters, its student 7 and 185,857. It knows nothing of what was
    measured: there is no data consistency.

    Args:
        layers: Convolutions, at least 2.
        channels: Of the convolutions between.
        complex_data: Whether the image is complex, two channels, or a magnitude, one channel.
        n_context: Neighbouring slices that it sees too: both sides together.

    Raises:
        UsageError: If the numbers make no network.

    References:
        [1] Kim et al., Accurate Image Super-Resolution Using Very Deep Convolutional Networks, 2016,
            https://arxiv.org/abs/1511.04587
        [2] Murugesan et al., KD-MRI, 2020, https://arxiv.org/abs/2004.05319
    """

    def __init__(self, layers: int = 11, channels: int = 64, *, complex_data: bool = False, n_context: int = 0) -> None:
        super().__init__()
        self.complex_data, self.n_context = complex_data, n_context
        n_in, n_out = (n_channels(images, complex_data=complex_data) for images in (1 + n_context, 1))
        self.layers = convolution_stack(n_in, n_out, channels, layers)

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: float32, or complex64 for complex data."""
        image = starting_image(acquisition, complex_data=self.complex_data)
        return image + to_image(self.layers(network_input(image, acquisition, self.n_context)))

    def stage_names(self) -> dict[str, str]:
        """Return the layer of :meth:`middle_layers`, of the kind ``encoder``."""
        return dict.fromkeys(self.middle_layers(), "encoder")

    def middle_layers(self) -> list[str]:
        """Return the dotted name of the middle convolution with its ReLU, as KD-MRI compares it."""
        return [f"layers.{middle_layer(len(self.layers))}"]

"""U-Net baseline: from the zero-filled image to the image, without a word about what was measured."""

from torch import Tensor, nn

from nnunet_kd.recon.networks.channels import n_channels, network_input, starting_image, to_image
from nnunet_kd.recon.networks.unet_body import UNetBody, standardised
from nnunet_kd.recon.physics.acquisition import Acquisition


class UNet(nn.Module):
    """fastMRI's U-Net baseline [1 of :class:`nnunet_kd.recon.networks.unet_body.UNetBody`], on magnitudes or complex.

    Each image is brought to mean 0 and standard deviation 1, which is undone on the output; images of any size are
    padded. Unlike fastMRI's recipe it clips nothing. The default has 7,756,097 parameters.

    Args:
        channels: Of the finest stage.
        pools: How often the resolution is halved.
        complex_data: Whether the image is complex, two channels, or a magnitude, one channel.
        n_context: Neighbouring slices that it sees too: both sides together.

    Raises:
        UsageError: If the numbers make no network.
    """

    def __init__(self, channels: int = 32, pools: int = 4, *, complex_data: bool = False, n_context: int = 0) -> None:
        super().__init__()
        self.complex_data, self.n_context = complex_data, n_context
        n_in, n_out = (n_channels(images, complex_data=complex_data) for images in (1 + n_context, 1))
        self.body = UNetBody(n_in, n_out, channels, pools)

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: float32, or complex64 for complex data."""
        image = starting_image(acquisition, complex_data=self.complex_data)
        return to_image(standardised(self.body, network_input(image, acquisition, self.n_context)))

    def stage_names(self) -> dict[str, str]:
        """Return the stages of encoder and decoder, the bottleneck as the encoder's deepest."""
        return self.body.stage_names("body")

    def middle_layers(self) -> list[str]:
        """Return the bottleneck's name."""
        return ["body.bottleneck"]

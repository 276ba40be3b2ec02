"""DC-CNN: cascades of a few convolutions, each followed by data consistency."""

from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.channels import n_channels, network_input, starting_image, to_image
from nnunet_kd.recon.networks.convolutions import convolution_stack, middle_layer
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.data_consistency import DataConsistency

# these keep the real part, as data derived from magnitudes want it
REAL_MODES = ("real", "hermitian")


class DCCNN(nn.Module):
    """Deep cascade of convolutional networks [1], complex or, as KD-MRI published it [2], on magnitudes.

    ``x_{k+1} = DC(x_k + C_k(x_k))``, each ``C_k`` a stack of 3x3 convolutions of its own weights. KD-MRI's teacher is
    ``DCCNN(cascades=5, convs=5, channels=32, complex_data=False)``, 141,765 parameters, its student has ``convs=3``,
    49,285. Its figure draws the sum, its released code leaves it out: ``residual=False``.

    Args:
        cascades: How many times convolutions and data consistency follow each other.
        convs: Convolutions per cascade, at least 2.
        channels: Of the convolutions between.
        complex_data: Whether images are complex, two channels, or magnitudes, one channel. Magnitudes have no phase:
            they suit data that were made from magnitude images, and no others.
        residual: Whether the convolutions say what to add to the image, or the image itself.
        data_consistency: ``hard``, ``weighted``, ``learnable``; for magnitudes also ``hermitian`` and ``real``, see
            :class:`nnunet_kd.recon.physics.data_consistency.DataConsistency`. Magnitudes always keep the real part, so
            that ``hard`` is the published ``real`` there.
        noise_level: Of ``weighted``: 0 trusts the measurement alone.
        n_context: Neighbouring slices that every cascade sees too: both sides together.

    Raises:
        UsageError: If the numbers make no network or the data consistency does not suit the data.

    References:
        [1] Schlemper et al., A Deep Cascade of Convolutional Neural Networks for Dynamic MR Image Reconstruction, 2018,
            https://arxiv.org/abs/1704.02422
        [2] Murugesan et al., KD-MRI, 2020, https://arxiv.org/abs/2004.05319
    """

    def __init__(
        self,
        cascades: int = 5,
        convs: int = 5,
        channels: int = 32,
        *,
        complex_data: bool = True,
        residual: bool = True,
        data_consistency: str = "hard",
        noise_level: float = 0.0,
        n_context: int = 0,
    ) -> None:
        super().__init__()
        if cascades < 1:
            raise UsageError(f"architecture, cascades: expected at least 1, got {cascades}")
        if complex_data and data_consistency in REAL_MODES:
            raise UsageError(
                f"architecture, data_consistency: '{data_consistency}' is for magnitudes (complex_data false), "
                "expected 'hard', 'weighted' or 'learnable' for complex data"
            )
        self.complex_data, self.residual, self.n_context = complex_data, residual, n_context
        n_in, n_out = (n_channels(images, complex_data=complex_data) for images in (1 + n_context, 1))
        self.cascades = nn.ModuleList(convolution_stack(n_in, n_out, channels, convs) for _ in range(cascades))
        self.consistency = nn.ModuleList(
            DataConsistency(data_consistency, noise_level=noise_level) for _ in range(cascades)
        )
        self._middle = middle_layer(convs)

    def forward(self, acquisition: Acquisition) -> Tensor:
        """Return the image, ``(B, H, W)``: complex64, or float32 for magnitudes."""
        image = self.start(acquisition)
        for index in range(len(self.cascades)):
            image = self.refine(index, image, acquisition)
        return image

    def start(self, acquisition: Acquisition) -> Tensor:
        """Return what the first cascade takes, ``(B, H, W)``: the zero-filled image or its magnitude."""
        return starting_image(acquisition, complex_data=self.complex_data)

    def refine(self, index: int, image: Tensor, acquisition: Acquisition) -> Tensor:
        """Return the image after one cascade and its data consistency, ``(B, H, W)`` as ``image`` is."""
        found = to_image(self.cascades[index](network_input(image, acquisition, self.n_context)))
        consistent: Tensor = self.consistency[index](image + found if self.residual else found, acquisition)
        return consistent.real if consistent.is_complex() and not self.complex_data else consistent

    def stage_names(self) -> dict[str, str]:
        """Return the layers of :meth:`middle_layers`, each of the kind ``encoder``: cascade pairs with cascade."""
        return dict.fromkeys(self.middle_layers(), "encoder")

    def middle_layers(self) -> list[str]:
        """Return the dotted names of each cascade's middle convolution with its ReLU, as KD-MRI compares them."""
        return [f"cascades.{index}.{self._middle}" for index in range(len(self.cascades))]

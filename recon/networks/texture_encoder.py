"""The encoder whose features stand for texture."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from nnunet_kd.recon.physics.low_resolution import CUTOFF, high_pass

SLOPE = 0.2


class TextureEncoder(nn.Module):
    """Autoencoder of an image's high frequencies: what texture is like, learnt from MR images without labels.

    Its features are the proxy that texture tokens and vectors are guided by: they stay in place, at an eighth of the
    resolution, and hold nothing of the low frequencies.

    Args:
        features: Channels of the code.
        channels: Of the first convolution.
        cutoff: Of the high pass, see :func:`nnunet_kd.recon.physics.low_resolution.high_pass`.
    """

    STRIDE = 8

    def __init__(self, features: int = 32, channels: int = 16, *, cutoff: float = CUTOFF) -> None:
        super().__init__()
        self.cutoff = cutoff
        widths = [1, channels, 2 * channels, 4 * channels]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in pairwise(widths))
        self.code = nn.Conv2d(widths[-1], features, 1)
        backwards = [features, *reversed(widths[1:-1]), 1]
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in pairwise(backwards))

    def encode(self, image: Tensor) -> Tensor:
        """Return the code of magnitudes.

        Args:
            image: Real, ``(B, h, w)``, on the scale of training, at least 8 x 8.

        Returns:
            ``(B, features, h // 8, w // 8)``.
        """
        found = high_pass(image, self.cutoff)[:, None]
        for layer in self.down:
            found = leaky_relu(layer(found), SLOPE)
        code: Tensor = self.code(found)
        return code

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return the high frequencies and what the code keeps of them, ``(B, h', w')``, h' and w' multiples of 8."""
        found = self.encode(image)
        for number, layer in enumerate(self.up):
            found = layer(leaky_relu(found, SLOPE) if number else found)
        size = tuple(self.STRIDE * (side // self.STRIDE) for side in image.shape[1:])
        return high_pass(image, self.cutoff)[:, : size[0], : size[1]], found[:, 0]

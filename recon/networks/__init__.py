"""Reconstruction networks; plans files store their dotted paths.

Each takes an :class:`nnunet_kd.recon.physics.acquisition.Acquisition` and returns an image ``(B, H, W)``, complex64 or,
if it works on magnitudes, float32.
"""

from nnunet_kd.recon.networks.adaptive_cs_net import AdaptiveCSNet
from nnunet_kd.recon.networks.dc_cnn import DCCNN
from nnunet_kd.recon.networks.stylish import Stylish
from nnunet_kd.recon.networks.texture_net import TextureNet
from nnunet_kd.recon.networks.unet import UNet
from nnunet_kd.recon.networks.varnet import VarNet
from nnunet_kd.recon.networks.vdsr import VDSR

__all__ = ["DCCNN", "VDSR", "AdaptiveCSNet", "Stylish", "TextureNet", "UNet", "VarNet"]

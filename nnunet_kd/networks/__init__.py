"""Networks and what they cost. Dotted paths are stable, because plans files store them.

The published networks by name, with their published sizes as defaults: ``ResUNet(input_channels=4, num_classes=3)``.
"""

from importlib import import_module

_NETWORKS = {
    "ResUNet": "res_unet",
    "DSMUNet": "dsm_unet",
    "UNetPlusPlus": "unet_plus_plus",
    "RAUNet": "ra_unet",
    "ResNet18": "resnet18",
    "MobileNetV2": "mobilenetv2",
    "ENet": "enet",
    "ERFNet": "erfnet",
}

__all__ = [*_NETWORKS]  # noqa: PLE0604  # names only


def __getattr__(name: str) -> type:
    """Import a network when it is asked for: importing the package costs no torch."""
    if name not in _NETWORKS:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    network: type = getattr(import_module(f"{__name__}.{_NETWORKS[name]}"), name)
    return network

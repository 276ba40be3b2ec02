"""Knowledge distillation for unmodified nnU-Net v2.

Importing this package costs no torch. It lets Python find the sibling folders of
a checkout and tells nnU-Net where our trainers are.
"""

from nnunet_kd import _checkout, discovery

__version__ = "0.1.0"
__all__ = ["__version__"]

_checkout.install()
discovery.autoload()

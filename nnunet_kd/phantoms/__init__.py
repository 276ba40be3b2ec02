"""Synthetic data sets for the demo and the tests."""

from nnunet_kd.phantoms.dataset import Kind, write_phantom_dataset
from nnunet_kd.phantoms.volumes import phantom_case

__all__ = ["Kind", "phantom_case", "write_phantom_dataset"]

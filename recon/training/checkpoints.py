"""The checkpoints of a fold: which one to go on from, and the way to the network in it."""

from nnunet_kd.recon.training.models import BEST, FINAL, LATEST, load_network

__all__ = ["BEST", "FINAL", "LATEST", "load_network"]

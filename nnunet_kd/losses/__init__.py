"""Distillation losses: one family per file, the pure function first, then its settings in :data:`LOSSES`."""

from dataclasses import fields

from nnunet_kd.losses.attention import AttentionTransfer, attention_map, attention_transfer
from nnunet_kd.losses.channels import CWD, cwd
from nnunet_kd.losses.contract import FeatureLoss, ImageLoss, OutputLoss
from nnunet_kd.losses.correlation import DIST, dist
from nnunet_kd.losses.decoupled import DKD, dkd
from nnunet_kd.losses.hierarchical import FeatureKL, feature_kl
from nnunet_kd.losses.hints import MGD, FitNet, MaskedGenerator, feature_error
from nnunet_kd.losses.images import Imitation, imitation
from nnunet_kd.losses.logits import LogitsKL, LogitsMSE, log_probabilities, logits_kl, logits_mse
from nnunet_kd.losses.reference import Reference
from nnunet_kd.losses.regions import SoftDice, soft_dice
from nnunet_kd.losses.relations import (
    IFVD,
    PairwiseAffinity,
    RegionAffinity,
    ifvd,
    pairwise_affinity,
    region_affinity,
    segments,
)
from nnunet_kd.losses.similarity import SimilarityPreserving, similarity_preserving
from nnunet_kd.losses.wavelets import WaveletDetail, wavelet_detail

# the names that a kd block may use
LOSSES: dict[str, type[OutputLoss] | type[FeatureLoss] | type[ImageLoss]] = {
    "logits_kl": LogitsKL,
    "logits_mse": LogitsMSE,
    "soft_dice": SoftDice,
    "dkd": DKD,
    "dist": DIST,
    "attention_transfer": AttentionTransfer,
    "fitnet": FitNet,
    "cwd": CWD,
    "ifvd": IFVD,
    "region_affinity": RegionAffinity,
    "pairwise_affinity": PairwiseAffinity,
    "mgd": MGD,
    "wavelet_detail": WaveletDetail,
    "feature_kl": FeatureKL,
    "similarity_preserving": SimilarityPreserving,
    "imitation": Imitation,
}

__all__ = [
    "CWD",
    "DIST",
    "DKD",
    "IFVD",
    "LOSSES",
    "MGD",
    "AttentionTransfer",
    "FeatureKL",
    "FeatureLoss",
    "FitNet",
    "ImageLoss",
    "Imitation",
    "LogitsKL",
    "LogitsMSE",
    "MaskedGenerator",
    "OutputLoss",
    "PairwiseAffinity",
    "Reference",
    "RegionAffinity",
    "SimilarityPreserving",
    "SoftDice",
    "WaveletDetail",
    "attention_map",
    "attention_transfer",
    "cwd",
    "dist",
    "dkd",
    "feature_error",
    "feature_kl",
    "ifvd",
    "imitation",
    "log_probabilities",
    "logits_kl",
    "logits_mse",
    "loss_options",
    "pairwise_affinity",
    "region_affinity",
    "segments",
    "similarity_preserving",
    "soft_dice",
    "wavelet_detail",
]


def loss_options(name: str) -> tuple[str, ...]:
    """Return the settings a loss of the registry takes in the kd block.

    Example:
        >>> loss_options("logits_kl")
        ('temperature', 'guide_ignored', 'weighting')
    """
    return tuple(field.name for field in fields(LOSSES[name]))

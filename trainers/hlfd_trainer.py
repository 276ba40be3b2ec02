"""Hierarchical layer-selective feedback distillation for kidney and liver tumours (Gorade et al. 2024)."""

from nnunet_kd.distillation.trainer import DistillationTrainer
from nnunet_kd.planning.recipes import RECIPES


class HLFDTrainer(DistillationTrainer):
    """``nnUNetv2_train ... -tr HLFDTrainer -p nnUNetKDHlfdPlans``: the kd block by the published recipe."""

    recipe = RECIPES["HLFDTrainer"]

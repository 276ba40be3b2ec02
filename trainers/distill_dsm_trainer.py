"""Distill DSM (Maheshwari et al. 2021): 2-D convolutions that exchange features along the slices."""

from nnunet_kd.distillation.trainer import DistillationTrainer
from nnunet_kd.planning.recipes import RECIPES


class DistillDSMTrainer(DistillationTrainer):
    """``nnUNetv2_train ... -tr DistillDSMTrainer -p nnUNetKDDistillDsmPlans``: the kd block by the published recipe."""

    recipe = RECIPES["DistillDSMTrainer"]

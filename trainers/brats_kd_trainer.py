"""Brain tumour distillation by pseudo-labels (Lachinov et al. 2020)."""

from nnunet_kd.distillation.trainer import DistillationTrainer
from nnunet_kd.planning.recipes import RECIPES


class BraTSKDTrainer(DistillationTrainer):
    """``nnUNetv2_train ... -tr BraTSKDTrainer -p nnUNetKDBratsPlans``: the kd block by the published recipe."""

    recipe = RECIPES["BraTSKDTrainer"]

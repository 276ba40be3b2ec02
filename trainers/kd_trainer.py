"""Logits distillation from any teachers, the trainer of every kd block."""

from nnunet_kd.distillation.trainer import DistillationTrainer


class KDTrainer(DistillationTrainer):
    """``nnUNetv2_train ... -tr KDTrainer -p nnUNetKDPlans``: what the plans' kd block says."""

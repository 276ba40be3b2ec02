"""The trainers that ``nnUNetv2_train -tr NAME`` finds: one per file."""

from nnunet_kd.trainers.kd_trainer import KDTrainer

__all__ = ["KDTrainer"]

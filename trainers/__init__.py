"""The trainers that ``nnUNetv2_train -tr NAME`` finds: one per file."""

from nnunet_kd.trainers.brats_kd_trainer import BraTSKDTrainer
from nnunet_kd.trainers.distill_dsm_trainer import DistillDSMTrainer
from nnunet_kd.trainers.hlfd_trainer import HLFDTrainer
from nnunet_kd.trainers.kd_trainer import KDTrainer

__all__ = ["BraTSKDTrainer", "DistillDSMTrainer", "HLFDTrainer", "KDTrainer"]

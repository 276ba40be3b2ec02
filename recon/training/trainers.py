"""The trainers by name: a network each, alone or with teachers."""

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import suggestion
from nnunet_kd.recon.training.distilled import DistilledTrainer
from nnunet_kd.recon.training.student_friendly import StudentFriendlyTrainer
from nnunet_kd.recon.training.texture_trainers import StylishTrainer, TextureNetTrainer
from nnunet_kd.recon.training.trainer import ReconTrainer


class DCCNNTrainer(ReconTrainer):
    """DC-CNN, KD-MRI's network for reconstruction."""

    networks = ("DCCNN",)


class DCCNNKDTrainer(DistilledTrainer):
    """DC-CNN as a student, KD-MRI's method."""

    networks = ("DCCNN",)


class VDSRTrainer(ReconTrainer):
    """VDSR, KD-MRI's network for super-resolution."""

    networks = ("VDSR",)


class VDSRKDTrainer(DistilledTrainer):
    """VDSR as a student, KD-MRI's method."""

    networks = ("VDSR",)


class UNetTrainer(ReconTrainer):
    """fastMRI's U-Net."""

    networks = ("UNet",)


class UNetKDTrainer(DistilledTrainer):
    """fastMRI's U-Net as a student."""

    networks = ("UNet",)


class VarNetTrainer(ReconTrainer):
    """The end-to-end variational network."""

    networks = ("VarNet",)


class VarNetKDTrainer(DistilledTrainer):
    """The end-to-end variational network as a student."""

    networks = ("VarNet",)


class AdaptiveCSNetTrainer(ReconTrainer):
    """Adaptive-CS-Net, one network for many accelerations."""

    networks = ("AdaptiveCSNet",)


class AdaptiveCSNetKDTrainer(DistilledTrainer):
    """Adaptive-CS-Net as a student: block by block from a wider one."""

    networks = ("AdaptiveCSNet",)


class SFTTrainer(StudentFriendlyTrainer):
    """DC-CNN as a student-friendly teacher, SFT-KD-Recon's method."""


TRAINERS: dict[str, type[ReconTrainer]] = {
    trainer.__name__: trainer
    for trainer in (
        DCCNNTrainer,
        DCCNNKDTrainer,
        VDSRTrainer,
        VDSRKDTrainer,
        UNetTrainer,
        UNetKDTrainer,
        VarNetTrainer,
        VarNetKDTrainer,
        AdaptiveCSNetTrainer,
        AdaptiveCSNetKDTrainer,
        TextureNetTrainer,
        StylishTrainer,
        SFTTrainer,
        ReconTrainer,
        DistilledTrainer,
    )
}


def find_trainer(name: str) -> type[ReconTrainer]:
    """Return a trainer by its name; ``ReconTrainer`` and ``DistilledTrainer`` train any network that plans name.

    Raises:
        UsageError: If there is none.
    """
    if name not in TRAINERS:
        raise UsageError(f"-tr: unknown trainer '{name}'{suggestion(name, TRAINERS)}, expected: {', '.join(TRAINERS)}")
    return TRAINERS[name]

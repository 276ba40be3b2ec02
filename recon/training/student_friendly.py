"""The trainer of student-friendly teachers: while a teacher learns, its student's cascades branch off from it."""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from nnunet_kd.distillation.features import bare_network
from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.networks.branches import StudentFriendlyTeacher, student_friendly_loss
from nnunet_kd.recon.networks.dc_cnn import DCCNN
from nnunet_kd.recon.planning.plans import build_network
from nnunet_kd.recon.training.rates import Stage
from nnunet_kd.recon.training.trainer import ReconTrainer
from nnunet_kd.recon.training.validation import crop_to


class StudentFriendlyTrainer(ReconTrainer):
    """Trains a teacher as SFT-KD-Recon does; what is saved and validated is the teacher alone.

    The plans' ``student_branches`` is the student's architecture. The loss is published and fixed: L1.
    """

    networks = ("DCCNN",)

    def check(self) -> None:
        """Refuse plans without the student's architecture, or with another loss."""
        super().check()
        name = self.run.plans.plans_name
        if self.run.configuration.student_branches is None:
            raise UsageError(
                f"-tr {self.run.trainer} needs the student's architecture, the plans '{name}' have no "
                "'student_branches' in this configuration; plan again, or type -tr DCCNNTrainer"
            )
        if self.run.configuration.loss.get("name") != "l1":
            raise UsageError(
                f"-tr {self.run.trainer} has a loss of its own, made of l1, the plans '{name}' have "
                f"{self.run.configuration.loss.get('name')}; set it to l1, or type -tr DCCNNTrainer"
            )

    def build_network(self) -> nn.Module:
        """Return the teacher with its branches."""
        teacher = super().build_network()
        configuration = self.run.configuration
        branches = configuration.student_branches or configuration.architecture
        student = build_network(replace(configuration, architecture=branches))
        if not isinstance(teacher, DCCNN) or not isinstance(student, DCCNN):
            raise UsageError(f"-tr {self.run.trainer}: expected teacher and student to be DCCNN; plan again")
        return StudentFriendlyTeacher(teacher, student)

    def bare_network(self) -> nn.Module:
        """Return the teacher."""
        teacher: nn.Module = bare_network(self.network).get_submodule("teacher")
        return teacher

    def loss(self, sample: Sample, stage: Stage, progress: float) -> tuple[Tensor, dict[str, Tensor]]:  # noqa: ARG002
        """Return the loss of the teacher with its branches, and that of the teacher alone."""
        if sample.target is None:
            raise UsageError("expected fully sampled images to learn from, found none; preprocess the data set again")
        with self.precision.context():
            image, branches = self.network(sample.acquisition)
        size = sample.target.shape[-2:]
        image, branches = crop_to(image, size), [crop_to(branch, size) for branch in branches]
        alone, _ = self.objective(image.detach(), sample.target, stage=stage)
        return student_friendly_loss(image, branches, sample.target), {"supervision": alone}

    def kd_state(self) -> dict[str, Any]:
        """Return the weights of the branches, which are no part of the teacher's."""
        return {"student": bare_network(self.network).get_submodule("student").state_dict()}

    def restore_kd(self, state: dict[str, Any]) -> None:
        """Take over the weights of the branches.

        Raises:
            UsageError: If there are none, or of another student.
        """
        student = bare_network(self.network).get_submodule("student")
        try:
            student.load_state_dict(state.get("student", {}))
        except RuntimeError as error:
            problem = " ".join(str(error).split())[:160]
            raise UsageError(
                f"the checkpoint's student branches are another's ({problem}); train without --c"
            ) from None

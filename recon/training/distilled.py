"""The trainer of students: frozen teachers beside the network, which say more about a slice than its target does."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.planning.plan_blocks import Training
from nnunet_kd.recon.training.guidance import StageGuidance
from nnunet_kd.recon.training.objective import check_terms
from nnunet_kd.recon.training.rates import Stage
from nnunet_kd.recon.training.supervision import magnitude
from nnunet_kd.recon.training.teachers import TeacherEnsemble, load_teachers
from nnunet_kd.recon.training.trainer import ReconTrainer
from nnunet_kd.recon.training.validation import crop_to

ADAPTER_SEED = 2000


class DistilledTrainer(ReconTrainer):
    """Trains a student on fully sampled images and on what frozen teachers say, as the plans' kd block tells.

    Without losses in the block it is the control: the same student and budget without a teacher.

    Attributes:
        teachers: The ensemble; ``None`` for a control, and where only ``--val`` is asked for.
        features: Taps, pairs and adapters, if a term compares features.
    """

    distils = True
    teachers: TeacherEnsemble | None = None
    features: StageGuidance | None = None
    _adapter_optimizer: torch.optim.Optimizer | None = None

    @property
    def kd(self) -> KDSettings:
        """The kd block.

        Raises:
            UsageError: If the plans have none.
        """
        if self.run.kd is None:
            raise UsageError(
                f"-tr {self.run.trainer} reads a kd block, the plans '{self.run.plans.plans_name}' have none; type: "
                f"nnunet_kd recon plan -d {self.run.plans.dataset_name} --teacher MODEL_FOLDER, and train with -p and "
                "the plans that it names"
            )
        return self.run.kd

    def recipe(self) -> Training:
        """Return the plans' recipe with seed, precision and budget of the kd block, where it has any."""
        budget = self.kd.budget
        wanted: dict[str, Any] = {
            "seed": self.kd.seed,
            "precision": self.kd.precision,
            "num_epochs": budget.num_epochs,
            "num_iterations_per_epoch": budget.num_iterations_per_epoch,
            "optimizer": budget.optimizer,
            "initial_lr": budget.initial_lr,
        }
        training = self.run.configuration.training
        return replace(training, **{key: value for key, value in wanted.items() if value is not None})

    def check(self) -> None:
        """Refuse also terms that no reconstruction has."""
        super().check()
        check_terms(self.kd)

    def prepare(self, sample: Sample) -> None:
        """Load the teachers, check what they say of a batch, and build the adapters."""
        if not self.kd.uses_teachers:
            return
        members = load_teachers(
            self.kd.teachers,
            self.run.plans,
            self.run.configuration,
            self.run.fold,
            device=self.device,
            seed=self.training.seed or 0,  # of the plans: a resumed run finds the same
        )
        self.teachers = TeacherEnsemble(members)
        with self.precision.context():
            self.teachers.refuse_nonfinite(sample.acquisition)
            self._pair_features(sample)
        self.start_stage()

    def _pair_features(self, sample: Sample) -> None:
        if self.teachers is None or not self.objective.feature_losses:
            return
        networks: dict[str, nn.Module] = {}
        for member in self.teachers.members:
            networks.setdefault(member.source, member.network)
        self.features = StageGuidance(
            self.objective.feature_losses,
            self.bare_network(),
            networks,
            sample.acquisition,
            device=self.device,
            seed=ADAPTER_SEED + (self.training.seed or 0),
        )
        self.teachers.tap({source: self.features.teacher_names(source) for source in networks})

    def start_stage(self) -> None:
        """Make the optimisers anew, that of the adapters too."""
        super().start_stage()
        adapters = [] if self.features is None else list(self.features.adapters.parameters())
        self._adapter_optimizer = self.make_optimizer(adapters) if adapters else None

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers of network and adapters."""
        return [self.optimizer, *([] if self._adapter_optimizer is None else [self._adapter_optimizer])]

    def loss(self, sample: Sample, stage: Stage, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is minimised and its parts."""
        active = [term.name for term in self.objective.active(stage, progress)]
        if self.teachers is None or not active:
            return self._without_teachers(sample, stage, progress)
        with self.precision.context():
            guidance = self.teachers.guide(sample.acquisition)
        output, target = self.predict(sample)
        features = None if self.features is None else self.features(guidance.maps, active)
        teacher = crop_to(guidance.image, target.shape[-2:])
        total, parts = self.objective(
            output, target, stage=stage, progress=progress, teacher=teacher, features=features
        )
        if self.place.world_size > 1 and not stage.supervision:
            total = total + 0 * magnitude(output).sum()  # DDP waits for the gradient of every weight
        return total, parts

    def _without_teachers(self, sample: Sample, stage: Stage, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        found = super().loss(sample, stage, progress)
        if self.features is not None:
            self.features.taps.take()  # let go of the maps
        return found

    def after_backward(self) -> None:
        """Average the adapters' gradients over ranks; DDP does not know them."""
        if self.features is not None:
            self.features.average_gradients()

    def kd_state(self) -> dict[str, Any]:
        """Return the teachers' hashes and the adapters."""
        if self.teachers is None:
            return {}
        state: dict[str, Any] = {"teachers": self.teachers.hashes()}
        if self.features is not None and self.features.has_state:
            state["adapters"] = self.features.state(self._adapter_optimizer)
        return state

    def restore_kd(self, state: dict[str, Any]) -> None:
        """Take over the adapters, after checking that the teachers are those the run began with.

        Raises:
            UsageError: If a teacher changed, or the adapters belong to other losses.
        """
        if self.teachers is None:
            return
        found = self.teachers.hashes()
        for source, hashes in state.get("teachers", {}).items():
            for fold, sha256 in hashes.items():
                if found.get(source, {}).get(fold, sha256) != sha256:
                    raise UsageError(
                        f"teacher {source} fold {fold} changed since this training began; put its checkpoint back or "
                        "train anew without --c"
                    )
        if self.features is not None and self.features.has_state:
            self.features.restore(state.get("adapters", {}), self._adapter_optimizer)

    def describe(self) -> dict[str, Any]:
        """Return members of the ensemble and pairs of layers."""
        members = [] if self.teachers is None else self.teachers.members
        comparisons = [] if self.features is None else self.features.comparisons
        return {
            "teachers": [{"name": m.name, "share": m.share, "sha256": m.sha256} for m in members],
            "pairs": {c.term: [[student.name, teacher.name] for student, teacher in c.pairs] for c in comparisons},
        }

"""The trainer: nnU-Net's own loop with teachers beside the student."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_kd.distillation.base_trainer import BaseTrainer
from nnunet_kd.distillation.cached_data import SoftLabels, soft_labels_for_training, split
from nnunet_kd.distillation.feature_guidance import FeatureGuidance
from nnunet_kd.distillation.features import WithFeatures
from nnunet_kd.distillation.frozen import FrozenOnCPU, compile_is_asked_for
from nnunet_kd.distillation.objective import Objective, feature_losses
from nnunet_kd.distillation.optimization import OPTIMIZERS, LearningRate
from nnunet_kd.distillation.progress import PREFIX, SUPERVISION, DistillationLogger
from nnunet_kd.distillation.supervision import Supervision, confidences, sample_weights
from nnunet_kd.distillation.support import ends_on_usage_error, to_device
from nnunet_kd.distillation.teachers import Guidance, Member, TeacherEnsemble, load_members, pseudo_dice
from nnunet_kd.errors import UsageError
from nnunet_kd.losses import Reference
from nnunet_kd.losses.reference import references as references_at
from nnunet_kd.losses.supervised import SUPERVISIONS
from nnunet_kd.planning.checks import check_teacher
from nnunet_kd.planning.kd_block import KDSettings, default_settings, read_settings
from nnunet_kd.planning.model_folder import open_model_folder
from nnunet_kd.planning.recipes import NNUNET, Recipe, with_budget

RANDOM_TEACHER_SEED = 1000  # apart from the student's, whose first weights must not be its teacher's
ADAPTER_SEED = 2000
NEAR_CHANCE = 0.2


class DistillationTrainer(BaseTrainer):
    """Train a student against labels and frozen teachers, as its plans' ``kd`` block says.

    Everything else is nnU-Net's: data, augmentation, supervision, validation. Prediction and
    ``--val`` need no teacher. Subclasses must not define ``__init__`` with other arguments:
    nnU-Net reads its signature to store the arguments in checkpoints.

    Attributes:
        recipe: How the trainer trains; what the kd block's budget says comes first.
        kd: Settings from the plans, or the default when the plans have no ``kd`` block.
        teachers: The ensemble, from the start of training on; ``None`` for a control.
        soft_labels: What stands for the ensemble where its outputs are cached.
        features: Taps and adapters, from the start of training on, if a loss compares features.
        objective: What is minimised.
    """

    recipe: Recipe = NNUNET
    kd: KDSettings
    teachers: TeacherEnsemble | None = None
    soft_labels: SoftLabels | None = None
    features: FeatureGuidance | None = None
    objective: Objective
    _confidences: dict[str, float] | None = None
    _adapter_optimizer: torch.optim.Optimizer | None = None
    _adapter_scheduler: Any = None
    _hashes: dict[str, dict[str, str]]
    _step: int = 0  # in this epoch
    _n_steps: int = 0  # since this process started
    _bar: "tqdm[Any] | None" = None

    # ---- set-up ----

    def configure(self) -> None:
        """Read the kd block."""
        plans, name = self.plans_manager.plans, self.configuration_name
        settings = read_settings(plans, name)
        if settings is None:
            folder = f"{self.plans_manager.dataset_name}/nnUNetTrainer__{self.plans_manager.plans_name}__{name}"
            self.print_to_log_file(
                f"The plans have no kd block: distilling {folder}, same fold, by the method {self.recipe.method}"
            )
            settings = default_settings(folder, self.recipe.method)
        self.kd = settings
        self.recipe = with_budget(self.recipe, settings.budget)
        for key in ("num_epochs", "num_iterations_per_epoch", "initial_lr", "weight_decay"):
            setattr(self, key, getattr(self.recipe, key))
        if settings.budget.num_val_iterations_per_epoch is not None:
            self.num_val_iterations_per_epoch = settings.budget.num_val_iterations_per_epoch
        self.seed, self.precision, self._hashes = settings.seed, settings.precision, {}
        if self.seed is not None:
            exact = os.environ.get("nnUNet_n_proc_DA") == "0"
            how = "repeatable" if exact else "not exactly repeatable: augmentation runs in workers (nnUNet_n_proc_DA=0)"
            self.print_to_log_file(f"Seed {self.seed}: initialisation is repeatable, sampling is {how}")

    def prepare(self) -> None:
        """Build the objective and a log with its parts."""
        self.objective = Objective(self.loss, self.kd)
        if self.kd.sample_weights == "confidence":
            if not isinstance(self.loss, Supervision):
                raise UsageError(
                    f"sample_weights 'confidence': nnU-Net's loss, which {type(self).__name__} keeps, cannot weigh "
                    "cases; train with -tr BraTSKDTrainer, or plan with --sample-weights equal"
                )
            self._confidences = confidences(self.dataset_json)
        self.logger.local_logger = DistillationLogger([SUPERVISION, *self.objective.names])

    def stored_state(self) -> dict[str, Any]:
        """Return the hashes of the teachers in use, so that another checkpoint is noticed on resuming, and adapters."""
        state: dict[str, Any] = {"teachers": self._hashes}
        if self.features is not None and self.features.has_state:
            state["adapters"] = self.features.state(self._adapter_optimizer)
        return state

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Return what the recipe names, and the course of its learning rate."""
        return self._optimizer_for(self.network.parameters())

    def _optimizer_for(self, parameters: Iterable[nn.Parameter]) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = OPTIMIZERS[self.recipe.optimizer](parameters, self.initial_lr, self.weight_decay)
        return optimizer, LearningRate(optimizer, self.recipe.schedule, self, self._val_losses)

    def _val_losses(self) -> list[float]:
        return list(self.logger.get_value("val_losses", None))

    def _build_loss(self) -> nn.Module:
        if self.recipe.supervision is None:
            return super()._build_loss()
        labels = self.label_manager
        return Supervision(
            SUPERVISIONS[self.recipe.supervision], regions=labels.has_regions, ignore_label=labels.ignore_label
        )

    def further_optimizers(self) -> list[tuple[torch.optim.Optimizer, list[nn.Parameter]]]:
        """Return the adapters' optimiser."""
        if self.features is None or self._adapter_optimizer is None:
            return []
        return [(self._adapter_optimizer, list(self.features.adapters.parameters()))]

    def after_backward(self) -> None:
        """Average the adapters' gradients over ranks; DDP does not know them."""
        if self.features is not None:
            self.features.average_gradients()

    # ---- teachers ----

    @ends_on_usage_error
    def on_train_start(self) -> None:
        """Check and load the teachers before anything else starts, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        self._check_previous_stage()
        if self.kd.uses_teachers and self.current_epoch < self.num_epochs:
            if self.kd.teacher_outputs == "cached":
                self.soft_labels = soft_labels_for_training(self)
                self._hashes = {source.model_folder: dict(source.sha256) for source in self.kd.teachers}
            else:
                self.teachers = self._load_teachers()
        elif not self.kd.uses_teachers:
            self.print_to_log_file("No distillation loss: this run is a control (or a teacher to be)")
        super().on_train_start()

    def _check_previous_stage(self) -> None:
        folder = self.folder_with_segs_from_previous_stage
        if folder is not None and not (Path(folder).is_dir() and any(Path(folder).iterdir())):
            stage, plans = self.configuration_manager.previous_stage_name, self.plans_manager
            raise UsageError(
                f"expected the previous stage's predictions in {folder}, found none; a cascade needs {stage} first, "
                f"same trainer and plans, every fold: nnUNetv2_train {plans.dataset_name} {stage} FOLD "
                f"-tr {type(self).__name__} -p {plans.plans_name}"
            )

    def _load_teachers(self) -> TeacherEnsemble:
        members: list[Member] = []
        for number, source in enumerate(self.kd.teachers):
            folder = open_model_folder(source.model_folder)
            check_teacher(folder, self.plans_manager.plans, self.configuration_name, self.dataset_json)
            recorded = (self.resumed or {}).get("teachers", {}).get(source.model_folder, {})
            known = replace(source, sha256={**recorded, **source.sha256})
            seed = RANDOM_TEACHER_SEED + (self.kd.seed or 0) + number
            members += load_members(known, folder, self.fold, device=self.device, seed=seed)
        self._hashes = {source.model_folder: {} for source in self.kd.teachers}
        for member in members:
            self.print_to_log_file(
                f"Teacher {member.name}, weight {member.weight:.3g}, sha256 {str(member.sha256)[:12]}"
            )
            if member.sha256 is not None:
                self._hashes[member.source][str(member.fold)] = member.sha256
        self.note_contamination(member.fold for member in members)
        if feature_losses(self.kd):
            self.features = self._feature_guidance(members)
            members = [replace(member, taps=self.features.teacher_names(member.source)) for member in members]
        members = [replace(member, network=self._compiled(member.network, member.taps)) for member in members]
        return TeacherEnsemble(members, regions=self.label_manager.has_regions)

    def note_contamination(self, folds: Iterable[int | str]) -> None:
        """Log that teachers of other folds than the student's saw its validation cases."""
        if self.fold != "all" and any(fold != self.fold for fold in folds):
            self.print_to_log_file(
                f"NOTE: the teachers saw validation cases of fold {self.fold} in their training, so that the "
                "validation scores of this student are contaminated; judge it on cases that no member saw"
            )

    def _feature_guidance(self, members: Sequence[Member]) -> FeatureGuidance:
        shape = (self.batch_size, self.num_input_channels, *self.configuration_manager.patch_size)
        first = {member.source: member.network for member in reversed(members)}
        seed = ADAPTER_SEED + (self.kd.seed or 0)
        features = FeatureGuidance(feature_losses(self.kd), self.network, first, shape, device=self.device, seed=seed)
        for comparison in features.comparisons:
            pairs = ", ".join(f"{ours.name} - {theirs.name}" for ours, theirs in comparison.pairs)
            self.print_to_log_file(f"{comparison.term}: student - teacher modules: {pairs}")
        if len(features.adapters):
            parameters = list(features.adapters.parameters())
            self._adapter_optimizer, self._adapter_scheduler = self._optimizer_for(parameters)
            n = sum(parameter.numel() for parameter in parameters)
            self.print_to_log_file(f"{len(features.adapters)} adapters with {n} parameters, no part of the student")
        if self.resumed is not None and features.has_state:
            features.restore(self.resumed.get("adapters") or {}, self._adapter_optimizer)
        return features

    def _compiled(self, network: nn.Module, taps: Sequence[str]) -> nn.Module:
        if self.cpu_dtype is not None and compile_is_asked_for():
            self.print_to_log_file("Compiling the teacher for this CPU (nnUNet_compile); the first batch takes longer")
            return FrozenOnCPU(network, self.cpu_dtype, taps)
        if taps:
            network = WithFeatures(network, taps)
        return cast("nn.Module", torch.compile(network)) if self._do_i_compile() else network

    # ---- steps ----

    def on_train_epoch_start(self) -> None:
        """Start nnU-Net's epoch and a progress bar (shown on terminals only)."""
        super().on_train_epoch_start()
        if self._adapter_scheduler is not None:
            self._adapter_scheduler.step(self.current_epoch)
        self._step = 0
        self._bar = tqdm(
            total=self.num_iterations_per_epoch,
            desc=f"epoch {self.current_epoch + 1}/{self.num_epochs}",
            leave=False,
            disable=None if self.local_rank == 0 else True,
        )

    @ends_on_usage_error
    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Make one optimiser step.

        Args:
            batch: ``data`` ``(B, channels, *spatial)`` and ``target`` (per scale with deep supervision).

        Returns:
            ``loss``, the minimised sum, and its unweighted parts under ``kd_...``.
        """
        data, soft = batch["data"].to(self.device, non_blocking=True), None
        if self.soft_labels is not None:
            data, soft = split(data, self.soft_labels.n_riding)
        labels = to_device(batch["target"], self.device)
        for optimizer, _ in ((self.optimizer, None), *self.further_optimizers()):
            optimizer.zero_grad(set_to_none=True)
        progress = (self.current_epoch + self._step / self.num_iterations_per_epoch) / self.num_epochs
        with self.autocast():
            output = self.network(data)
            outputs = list(output) if isinstance(output, list | tuple) else [output]
            guidance = self._guidance(data, soft, outputs, progress)
        references = references_at(
            labels,
            outputs[0].shape[1],
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
        )
        if guidance.targets and self._n_steps == 0:
            self._report_teachers(guidance.targets, references[0])
        features = None if self.features is None else self.features(guidance.maps, self.objective.active(progress))
        if self._confidences is not None:
            self.loss.sample_weights = sample_weights(batch["keys"], self._confidences).to(self.device)
        total, parts = self.objective(
            outputs, labels, guidance.targets, references=references, features=features, progress=progress
        )
        self.update(total)
        self._refuse_nonfinite({name: float(value) for name, value in parts.items()}, data)
        self._step += 1
        self._n_steps += 1
        if self._bar is not None:
            self._bar.update()
        missing = {PREFIX + name: float("nan") for name in self.objective.names if name not in parts}
        return {
            "loss": total.detach().cpu().numpy(),
            **{PREFIX + name: float(value) for name, value in parts.items()},
            **missing,
        }

    def _guidance(self, data: Tensor, soft: Tensor | None, outputs: Sequence[Tensor], progress: float) -> Guidance:
        sizes = [output.shape[2:] for output in outputs]
        if self.objective.active(progress) and self.soft_labels is not None and soft is not None:
            return Guidance(targets=self.soft_labels.targets(soft, sizes), maps=[])
        if self.teachers is None or not self.objective.active(progress):
            return Guidance(targets={}, maps=[])
        temperatures = self.objective.temperatures(progress)
        if self._n_steps == 0:
            temperatures = temperatures or (1.0,)  # for the report on the first batch
        return self.teachers.guide(data, sizes, temperatures)

    def _report_teachers(self, targets: dict[float, list[Tensor | None]], reference: Reference) -> None:
        """Log the teachers' Dice on the first batch: the quickest way to notice a teacher that does not fit."""
        probabilities = next(iter(targets.values()), [None])[0]
        if probabilities is None or not bool(torch.isfinite(probabilities).all()):
            return
        scores = pseudo_dice(probabilities, reference)
        self.print_to_log_file("Teacher's pseudo Dice on the first batch", [round(score, 4) for score in scores])
        if scores and float(np.mean(scores)) < NEAR_CHANCE:
            self.print_to_log_file(
                "WARNING: that is near chance (as a random teacher should be). Is it trained, and on this data?"
            )

    def _refuse_nonfinite(self, parts: dict[str, float], data: Tensor) -> None:
        # looked at after the step, so that no GPU waits for it; the run stops before anything is saved
        broken = [name for name, value in parts.items() if not np.isfinite(value)]
        if not broken:
            return
        if self.teachers is not None:
            with self.autocast():
                self.teachers.refuse_nonfinite(data)
        raise UsageError(
            f"{' and '.join(broken)} became {parts[broken[0]]} in epoch {self.current_epoch}, step {self._step}; "
            "lower the learning rate or this term's weight and continue from the last checkpoint with --c"
        )

    def on_train_end(self) -> None:
        """End as nnU-Net does, and take the taps off the student."""
        super().on_train_end()
        if self.features is not None:
            self.features.taps.remove()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the parts of the objective beside nnU-Net's loss."""
        if self._bar is not None:
            self._bar.close()
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        for part in self.logger.local_logger.parts:
            values = [value for value in outputs[PREFIX + part] if not np.isnan(value)]
            mean = float(np.mean(values)) if values else float("nan")  # a term whose time is over: no value, not zero
            self.logger.log(PREFIX + part, self._mean_over_ranks(mean), self.current_epoch)

    def _mean_over_ranks(self, value: float) -> float:
        if not self.is_ddp:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor) / dist.get_world_size()

    def on_epoch_end(self) -> None:
        """Log the parts of the objective beside nnU-Net's own lines."""
        parts = self.logger.local_logger.parts
        values = {part: round(self.logger.get_value(PREFIX + part, -1), 4) for part in parts}
        self.print_to_log_file("Parts of the loss", values)
        progress = self.current_epoch / self.num_epochs
        if any(term.schedule != "constant" for term in self.objective.terms):
            weights = {t.name: round(t.factor(progress), 3) for t in self.objective.terms if t.is_active(progress)}
            self.print_to_log_file("Weights of the terms when the epoch began", weights)
        super().on_epoch_end()

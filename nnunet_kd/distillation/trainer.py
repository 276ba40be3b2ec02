"""The trainer: nnU-Net's own loop with teachers beside the student."""

import functools
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.collate_outputs import collate_outputs
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from nnunet_kd.distillation.checkpoints import TEMPORARY, load_checkpoint_safely, save_atomically, to_plain
from nnunet_kd.distillation.objective import Objective
from nnunet_kd.distillation.progress import PREFIX, DistillationLogger
from nnunet_kd.distillation.random_state import random_state, restore_random_state
from nnunet_kd.distillation.teachers import Member, TeacherEnsemble, load_member, pseudo_dice, resolve_folds
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import describe, has_native_bf16
from nnunet_kd.planning.checks import check_teacher
from nnunet_kd.planning.kd_block import KDSettings, TeacherSource, default_settings, read_settings
from nnunet_kd.planning.model_folder import open_model_folder

P = ParamSpec("P")
R = TypeVar("R")

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
SECONDS_BETWEEN_SAVES = 600
NEAR_CHANCE = 0.2
GRADIENT_NORM = 12  # nnU-Net's own


def ends_on_usage_error(method: Callable[P, R]) -> Callable[P, R]:
    """Turn a user's mistake into its line and exit status 2, also inside nnU-Net's own commands."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except UsageError as error:
            print(f"nnunet_kd: {' '.join(str(error).split())}", file=sys.stderr, flush=True)  # noqa: T201
            raise SystemExit(2) from None

    return wrapped


class FullPrecision(nn.Module):
    """A loss that sees float32 logits whatever the network computed in."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, outputs: Tensor | Sequence[Tensor], targets: Tensor | Sequence[Tensor]) -> Tensor:
        """Cast the outputs, ``(B, C, *spatial)`` or a list of them, and call the loss."""
        if isinstance(outputs, list | tuple):
            value: Tensor = self.loss([output.float() for output in outputs], targets)
        else:
            value = self.loss(outputs.float(), targets)
        return value


class DistillationTrainer(nnUNetTrainer):
    """Train a student against labels and frozen teachers, as its plans' ``kd`` block says.

    Everything else is nnU-Net's: data, augmentation, supervision, validation. Prediction and
    ``--val`` need no teacher. Subclasses must not define ``__init__`` with other arguments:
    nnU-Net reads its signature to store the arguments in checkpoints.

    Attributes:
        kd: Settings from the plans, or the default when the plans have no ``kd`` block.
        teachers: The ensemble, from the start of training on; ``None`` for a control.
        objective: What is minimised.
        cpu_dtype: Autocast type of training steps on a CPU; ``None`` for float32.
    """

    kd: KDSettings
    teachers: TeacherEnsemble | None = None
    objective: Objective
    cpu_dtype: torch.dtype | None = None

    # ---- set-up ----

    @ends_on_usage_error
    def initialize(self) -> None:
        """Build network, optimiser and loss from the plans; same steps and order as nnU-Net's.

        It is nnU-Net's method written anew for one reason: gloo on CPUs and several nodes need another
        device and another DDP wrapper than its own.
        """
        if self.was_initialized:
            raise RuntimeError("initialize was called twice")
        self._read_settings()
        self._place()
        self._set_batch_size_and_oversample()
        self.num_input_channels = self._n_input_channels()
        self.network = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            self.enable_deep_supervision,
        ).to(self.device)
        if self._do_i_compile():
            self.print_to_log_file("Using torch.compile...")
            self.network = torch.compile(self.network)
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        if self.is_ddp:
            self._wrap_for_ddp()
        self.loss = self._build_loss()
        self.objective = Objective(self.loss, self.kd, regions=self.label_manager.has_regions)
        self._use_own_log()
        self.dataset_class = self._infer_dataset_class()
        self.was_initialized = True

    def _read_settings(self) -> None:
        plans, name = self.plans_manager.plans, self.configuration_name
        settings = read_settings(plans, name)
        if settings is None:
            folder = f"{self.plans_manager.dataset_name}/nnUNetTrainer__{self.plans_manager.plans_name}__{name}"
            self.print_to_log_file(f"The plans have no kd block: distilling {folder}, same fold, with logits_kl")
            settings = default_settings(folder)
        self.kd = settings
        budget = settings.budget
        for key in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch", "initial_lr"):
            if getattr(budget, key) is not None:
                setattr(self, key, getattr(budget, key))
        if budget.optimizer == "AdamW" and budget.initial_lr is None:
            self.initial_lr = 1e-3
        if settings.seed is not None:
            _seed(settings.seed)
            exact = os.environ.get("nnUNet_n_proc_DA") == "0"
            self.print_to_log_file(
                f"Seed {settings.seed}: initialisation is repeatable, sampling "
                + (
                    "too"
                    if exact
                    else "is not exactly, because augmentation runs in workers (nnUNet_n_proc_DA=0 would)"
                )
            )

    def _place(self) -> None:
        """Choose the device of this process and what its training steps compute in."""
        if self.is_ddp:
            on_cpu = dist.get_backend() == "gloo" or not torch.cuda.is_available()
            index = int(os.environ.get("LOCAL_RANK", self.local_rank))
            self.device = torch.device("cpu") if on_cpu else torch.device("cuda", index)
        self.grad_scaler = GradScaler("cuda") if self.device.type == "cuda" else None
        if self.device.type == "cpu":
            native = self.kd.precision is None and has_native_bf16()
            self.cpu_dtype = torch.bfloat16 if native or self.kd.precision == "bfloat16" else None
            kind = "bfloat16 autocast, losses in float32" if self.cpu_dtype else "float32"
            self.print_to_log_file(f"Training steps compute in {kind} on {describe()}")

    def _n_input_channels(self) -> int:
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        return int(determine_num_input_channels(self.plans_manager, self.configuration_manager, self.dataset_json))

    def _infer_dataset_class(self) -> type:
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        folder = Path(self.preprocessed_dataset_folder)
        if not folder.is_dir():
            dataset = self.plans_manager.dataset_name
            raise UsageError(
                f"expected preprocessed data in {folder}, found none; type: nnUNetv2_preprocess "
                f"-d {dataset} -plans_name {self.plans_manager.plans_name} -c {self.configuration_name}"
            )
        dataset_class: type = infer_dataset_class(str(folder))
        return dataset_class

    def _wrap_for_ddp(self) -> None:
        on_cuda = self.device.type == "cuda"
        if on_cuda:  # SyncBatchNorm exists on CUDA only
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        self.network = DistributedDataParallel(self.network, device_ids=[self.device.index] if on_cuda else None)
        if self.kd.seed is not None:  # the ranks share their weights but draw different patches
            _seed(self.kd.seed + self.local_rank)

    def _use_own_log(self) -> None:
        self.logger.local_logger = DistillationLogger(["supervision", *self.objective.names])
        names = ("initial_lr", "weight_decay", "num_iterations_per_epoch", "num_epochs", "batch_size")
        self.logger.update_config({"hparas": {name: getattr(self, name) for name in names}})

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Any]:
        """Return nnU-Net's SGD or AdamW with the same weight decay, and nnU-Net's polynomial decay."""
        if self.kd.budget.optimizer != "AdamW":
            optimizers: tuple[torch.optim.Optimizer, Any] = super().configure_optimizers()
            return optimizers
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _build_loss(self) -> nn.Module:
        return FullPrecision(super()._build_loss())

    def set_deep_supervision_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # nnU-Net's signature
        """Switch what the student's forward returns; networks without deep supervision stay as they are."""
        for module in (self._bare_network(), getattr(self._bare_network(), "decoder", None)):
            if hasattr(module, "deep_supervision"):
                module.deep_supervision = enabled and self.enable_deep_supervision

    def _bare_network(self) -> nn.Module:
        network = self.network.module if self.is_ddp else self.network
        return network._orig_mod if isinstance(network, OptimizedModule) else network

    # ---- teachers ----

    @ends_on_usage_error
    def on_train_start(self) -> None:
        """Check and load the teachers before anything else starts, then start as nnU-Net does."""
        if not self.was_initialized:
            self.initialize()
        for leftover in Path(self.output_folder).glob(f"*.pth{TEMPORARY}"):
            leftover.unlink(missing_ok=True)
        self._check_previous_stage()
        if self.kd.uses_teachers and self.current_epoch < self.num_epochs:
            self.teachers = TeacherEnsemble(self._load_members(), regions=self.label_manager.has_regions)
        elif not self.kd.uses_teachers:
            self.print_to_log_file("No distillation loss: this run is a control (or a teacher to be)")
        super().on_train_start()
        self._last_saved = time.monotonic()
        if self._resumed_state is not None:
            restore_random_state(self._resumed_state.get("random"), rank=self.local_rank)

    _resumed_state: dict[str, Any] | None = None
    _last_saved: float = 0.0
    _step: int = 0
    _bar: "tqdm[Any] | None" = None

    def _check_previous_stage(self) -> None:
        folder = self.folder_with_segs_from_previous_stage
        if folder is not None and not (Path(folder).is_dir() and any(Path(folder).iterdir())):
            stage, plans = self.configuration_manager.previous_stage_name, self.plans_manager
            raise UsageError(
                f"expected the previous stage's predictions in {folder}, found none; a cascade needs {stage} first, "
                f"same trainer and plans, every fold: nnUNetv2_train {plans.dataset_name} {stage} FOLD "
                f"-tr {type(self).__name__} -p {plans.plans_name}"
            )

    def _load_members(self) -> list[Member]:
        members: list[Member] = []
        for number, source in enumerate(self.kd.teachers):
            folder = open_model_folder(source.model_folder)
            check_teacher(folder, self.plans_manager.plans, self.configuration_name, self.dataset_json)
            folds = resolve_folds(source, folder, self.fold)
            recorded = {**self._recorded_hashes().get(source.model_folder, {}), **source.sha256}
            known = TeacherSource(**{**vars(source), "sha256": recorded})
            seed = 1000 + (self.kd.seed or 0) + 17 * number
            for fold in folds:
                weight = source.weight / len(folds)
                member = load_member(known, folder, fold, weight=weight, device=self.device, seed=seed)
                members.append(self._compiled(member))
                self._hashes.setdefault(source.model_folder, {})[str(fold)] = member.sha256
                self.print_to_log_file(f"Teacher {member.name}, weight {weight:.3g}, sha256 {str(member.sha256)[:12]}")
            if self.fold != "all" and any(fold != self.fold for fold in folds):
                self.print_to_log_file(
                    f"NOTE: the teachers saw validation cases of fold {self.fold} in their training, so that the "
                    "validation scores of this student are contaminated; judge it on cases that no member saw"
                )
        return members

    @functools.cached_property
    def _hashes(self) -> dict[str, dict[str, str | None]]:
        return {}

    def _recorded_hashes(self) -> dict[str, dict[str, str]]:
        recorded = (self._resumed_state or {}).get("teachers", {})
        return {name: {f: h for f, h in folds.items() if h is not None} for name, folds in recorded.items()}

    def _compiled(self, member: Member) -> Member:
        if not self._do_i_compile():
            return member
        network = torch.compile(member.network)
        return Member(name=member.name, network=network, weight=member.weight, sha256=member.sha256)

    # ---- steps ----

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.device.type == "cuda":
            return torch.autocast("cuda")
        if self.cpu_dtype is not None:
            return torch.autocast("cpu", dtype=self.cpu_dtype)
        return nullcontext()

    def on_train_epoch_start(self) -> None:
        """Start nnU-Net's epoch and a progress bar (shown on terminals only)."""
        super().on_train_epoch_start()
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
        data = batch["data"].to(self.device, non_blocking=True)
        labels = _to_device(batch["target"], self.device)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            output = self.network(data)
            outputs = list(output) if isinstance(output, list | tuple) else [output]
            targets = self._targets(data, outputs)
        if self.teachers is not None and self._step == 0 and self.current_epoch == self._first_epoch():
            self._report_teachers(targets, labels)
        ignored = self._ignored(labels)
        progress = (self.current_epoch + self._step / self.num_iterations_per_epoch) / self.num_epochs
        total, parts = self.objective(outputs, labels, targets, ignored=ignored, progress=progress)
        self._update(total)
        values = {PREFIX + name: float(value) for name, value in parts.items()}
        self._refuse_nonfinite_teacher(values, data)
        self._step += 1
        if self._bar is not None:
            self._bar.update()
        return {"loss": total.detach().cpu().numpy(), **values}

    def _first_epoch(self) -> int:
        return int((self._resumed_state or {}).get("epoch", 0))

    def _targets(self, data: Tensor, outputs: Sequence[Tensor]) -> dict[float, list[Tensor | None]]:
        if self.teachers is None:
            return {}
        return self.teachers.targets(data, [output.shape[2:] for output in outputs], self.objective.temperatures)

    def _update(self, total: Tensor) -> None:
        if self.grad_scaler is not None:
            self.grad_scaler.scale(total).backward()
            self.grad_scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            total.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), GRADIENT_NORM)
            self.optimizer.step()

    def _ignored(self, labels: Tensor | list[Tensor]) -> list[Tensor] | None:
        """Return where the ignore label lies, per scale."""
        if not self.label_manager.has_ignore_label:
            return None
        scales = labels if isinstance(labels, list) else [labels]
        if self.label_manager.has_regions:
            return [scale[:, -1:] > 0 for scale in scales]
        return [scale == self.label_manager.ignore_label for scale in scales]

    def _report_teachers(self, targets: dict[float, list[Tensor | None]], labels: Tensor | list[Tensor]) -> None:
        """Log the teachers' Dice on the first batch: the quickest way to notice a teacher that does not fit."""
        finest = labels[0] if isinstance(labels, list) else labels
        ignored = self._ignored(labels)
        probabilities = next(iter(targets.values()))[0]
        if probabilities is None or not bool(torch.isfinite(probabilities).all()):
            return
        regions = self.label_manager.has_regions
        scores = pseudo_dice(probabilities, finest, regions=regions, ignored=None if ignored is None else ignored[0])
        self.print_to_log_file("Teacher's pseudo Dice on the first batch", [round(score, 4) for score in scores])
        if scores and float(np.mean(scores)) < NEAR_CHANCE:
            self.print_to_log_file(
                "WARNING: that is near chance. Is the teacher trained, and on this data? (expected for a random teacher)"
            )

    def _refuse_nonfinite_teacher(self, values: dict[str, float], data: Tensor) -> None:
        # looked at after the step, so that no GPU waits for it; the run stops before anything is saved
        if self.teachers is not None and not all(np.isfinite(value) for value in values.values()):
            with self._autocast():
                self.teachers.refuse_nonfinite(data)

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Log the parts of the objective beside nnU-Net's loss."""
        if self._bar is not None:
            self._bar.close()
        super().on_train_epoch_end(train_outputs)
        outputs = collate_outputs(train_outputs)
        for part in self.logger.local_logger.parts:
            mean = float(np.mean(outputs[PREFIX + part]))
            self.logger.log(PREFIX + part, self._mean_over_ranks(mean), self.current_epoch)

    def _mean_over_ranks(self, value: float) -> float:
        if not self.is_ddp:
            return value
        tensor = torch.tensor(value, device=self.device)
        dist.all_reduce(tensor)
        return float(tensor) / dist.get_world_size()

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate as nnU-Net does, in the arithmetic of the training steps."""
        with self._autocast():
            result: dict[str, Any] = super().validation_step(batch)
        return result

    def on_epoch_end(self) -> None:
        """Log the parts and the expected end; save often enough that little is lost."""
        parts = self.logger.local_logger.parts
        values = {part: round(self.logger.get_value(PREFIX + part, -1), 4) for part in parts}
        self.print_to_log_file("Parts of the loss", values)
        due = self.num_epochs < 100 or time.monotonic() - self._last_saved > SECONDS_BETWEEN_SAVES
        self.save_every = 1 if due else 50
        super().on_epoch_end()
        self._log_expected_end()

    def _log_expected_end(self) -> None:
        remaining = self.num_epochs - self.current_epoch
        starts = self.logger.get_value("epoch_start_timestamps", None)[-10:]
        ends = self.logger.get_value("epoch_end_timestamps", None)[-10:]
        seconds = remaining * float(np.median([end - start for start, end in zip(starts, ends, strict=True)]))
        if remaining > 0:
            end = datetime.now() + timedelta(seconds=seconds)
            self.print_to_log_file(f"{remaining} epochs left, expected end {end:%Y-%m-%d %H:%M}")

    # ---- checkpoints ----

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint plus a ``kd`` entry, so that a crash leaves the old or the new file whole."""
        state = random_state()  # gathered on all ranks
        if self.local_rank != 0:
            return
        if self.disable_checkpointing:
            self.print_to_log_file("No checkpoint written, checkpointing is disabled")
            return
        checkpoint = {
            "network_weights": self._bare_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": to_plain(self.logger.get_checkpoint()),
            "_best_ema": to_plain(self._best_ema),
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "kd": {"random": state, "teachers": self._hashes, "epoch": self.current_epoch + 1},
        }
        save_atomically(checkpoint, filename)
        self._last_saved = time.monotonic()

    @ends_on_usage_error
    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint, after checking that it is data and whole.

        When training continues, a damaged file is passed over for the next one: final, latest, best, fresh.

        Args:
            filename_or_checkpoint: The file.
        """
        if not self.was_initialized:
            self.initialize()
        path = Path(filename_or_checkpoint)
        for candidate in self._candidates(path):
            try:
                checkpoint = load_checkpoint_safely(candidate)
            except UsageError as error:
                if not self.logger.resume:
                    raise
                self.print_to_log_file(f"Passed over: {error}")
                continue
            super().load_checkpoint(str(candidate))
            self._resumed_state = checkpoint.get("kd") or {"epoch": self.current_epoch}
            self._hashes.update(self._resumed_state.get("teachers", {}))
            self.print_to_log_file(f"Continuing from {candidate.name} at epoch {self.current_epoch}")
            return
        self.print_to_log_file("No whole checkpoint: starting afresh")

    def _candidates(self, first: Path) -> list[Path]:
        """Return the file asked for and, when training continues, what else it may continue from."""
        if not self.logger.resume or first.name not in CHECKPOINTS:
            return [first]
        later = CHECKPOINTS[CHECKPOINTS.index(first.name) + 1 :]
        return [first, *(first.with_name(name) for name in later if first.with_name(name).is_file())]


def _to_device(target: Tensor | list[Tensor], device: torch.device) -> Tensor | list[Tensor]:
    if isinstance(target, list):
        return [scale.to(device, non_blocking=True) for scale in target]
    return target.to(device, non_blocking=True)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  # nnU-Net's loaders draw from the global generator
    torch.manual_seed(seed)

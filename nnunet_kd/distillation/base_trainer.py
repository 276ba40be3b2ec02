"""nnU-Net's trainer made fit for any host: CPUs in bfloat16, gloo, and checkpoints that survive a crash."""

import operator
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from nnunet_kd.distillation.checkpoints import (
    TEMPORARY,
    UnsafeCheckpointError,
    load_checkpoint_safely,
    save_atomically,
    to_plain,
)
from nnunet_kd.distillation.features import bare_network
from nnunet_kd.distillation.random_state import random_state, restore_random_state
from nnunet_kd.distillation.support import FullPrecision, ends_on_usage_error, seed_everything
from nnunet_kd.errors import UsageError
from nnunet_kd.hardware import describe, has_native_bf16

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
SECONDS_BETWEEN_SAVES = 600
SHORT_TRAINING = 100  # epochs, below which every epoch is saved
GRADIENT_NORM = 12  # nnU-Net's own


class BaseTrainer(nnUNetTrainer):
    """What every trainer of ours needs beside its method.

    Subclasses set :attr:`seed` and :attr:`precision` in :meth:`configure`. They must not define
    ``__init__`` with other arguments: nnU-Net reads its signature to store the arguments in checkpoints.

    Attributes:
        seed: Of initialisation and sampling; ``None`` leaves both random.
        precision: ``float32``, ``bfloat16`` or ``None`` (bfloat16 where the processor has it), on CPUs only.
        cpu_dtype: Autocast type of training steps on a CPU; ``None`` for float32.
        resumed: The ``kd`` entry of the checkpoint that training continues from.
    """

    seed: int | None = None
    precision: str | None = None
    cpu_dtype: torch.dtype | None = None
    resumed: Mapping[str, Any] | None = None
    was_initialized: bool
    _last_saved: float = 0.0

    def configure(self) -> None:
        """Set schedule, :attr:`seed` and :attr:`precision`; called before anything is built."""

    def prepare(self) -> None:
        """Build what the method needs; called when network, optimiser and loss exist."""

    def stored_state(self) -> dict[str, Any]:
        """Return what goes into the checkpoint's ``kd`` entry, as plain values and tensors."""
        return {}

    @ends_on_usage_error
    def initialize(self) -> None:
        """Build network, optimiser and loss from the plans; same steps and order as nnU-Net's.

        It is nnU-Net's method written anew for one reason: gloo on CPUs and several nodes need another
        device and another DDP wrapper than its own.
        """
        if self.was_initialized:
            raise RuntimeError("initialize was called twice")
        self.configure()
        if self.seed is not None:
            seed_everything(self.seed)
        self._place()
        if self.configuration_manager.network_arch_init_kwargs.get("auxiliary_heads") is False:
            self.enable_deep_supervision = False  # a network of ours that has one output
        self._set_batch_size_and_oversample()
        self.num_input_channels = determine_num_input_channels(
            self.plans_manager, self.configuration_manager, self.dataset_json
        )
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
        self.prepare()
        self.dataset_class = self._infer_dataset_class()
        self.was_initialized = True
        names = ("initial_lr", "weight_decay", "num_iterations_per_epoch", "num_epochs", "batch_size")
        self.logger.update_config({"hparas": {name: getattr(self, name) for name in names}})

    def _place(self) -> None:
        """Choose the device of this process and what its training steps compute in."""
        if self.is_ddp:
            on_cpu = dist.get_backend() == "gloo" or not torch.cuda.is_available()
            index = int(os.environ.get("LOCAL_RANK") or self.local_rank)
            self.device = torch.device("cpu") if on_cpu else torch.device("cuda", index)
        self.grad_scaler = GradScaler("cuda") if self.device.type == "cuda" else None
        if self.device.type == "cpu":
            native = self.precision is None and has_native_bf16()
            self.cpu_dtype = torch.bfloat16 if native or self.precision == "bfloat16" else None
            kind = "bfloat16 autocast, losses in float32" if self.cpu_dtype else "float32"
            self.print_to_log_file(f"Training steps compute in {kind} on {describe()}")

    def _wrap_for_ddp(self) -> None:
        on_cuda = self.device.type == "cuda"
        if on_cuda:  # SyncBatchNorm exists on CUDA only
            self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)  # type: ignore[no-untyped-call]
        self.network = DistributedDataParallel(self.network, device_ids=[self.device.index] if on_cuda else None)
        if self.seed is not None:  # the ranks share their weights but draw different patches
            seed_everything(self.seed + self.local_rank)

    def _infer_dataset_class(self) -> type:
        folder = Path(self.preprocessed_dataset_folder)
        if not folder.is_dir():
            raise UsageError(
                f"expected preprocessed data in {folder}, found none; type: nnUNetv2_preprocess -d "
                f"{self.plans_manager.dataset_name} -plans_name {self.plans_manager.plans_name} "
                f"-c {self.configuration_name}"
            )
        dataset_class: type = infer_dataset_class(str(folder))
        return dataset_class

    def _build_loss(self) -> nn.Module:
        return FullPrecision(super()._build_loss())

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Switch what the network's forward returns; networks without deep supervision stay as they are."""
        bare = self.bare_network()
        for module in (bare, getattr(bare, "decoder", None)):
            if module is not None and hasattr(module, "deep_supervision"):
                module.deep_supervision = enabled and self.enable_deep_supervision

    def bare_network(self) -> nn.Module:
        """Return the network beneath DDP and torch.compile."""
        return bare_network(self.network)

    # ---- steps ----

    def on_train_start(self) -> None:
        """Start as nnU-Net does, then draw on from where a resumed run stopped."""
        for leftover in Path(self.output_folder).glob(f"*.pth{TEMPORARY}"):
            leftover.unlink(missing_ok=True)
        super().on_train_start()
        self._last_saved = time.monotonic()
        if self.resumed is not None:
            restore_random_state(self.resumed.get("random"), rank=self.local_rank)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which networks run."""
        if self.device.type == "cuda":
            return torch.autocast("cuda")
        if self.cpu_dtype is not None:
            return torch.autocast("cpu", dtype=self.cpu_dtype)
        return nullcontext()

    def update(self, total: Tensor) -> None:
        """Make nnU-Net's optimiser step on a scalar loss: scaled on CUDA, gradients clipped to norm 12."""
        optimizers = [(self.optimizer, list(self.network.parameters())), *self.further_optimizers()]
        scaler = self.grad_scaler
        (total if scaler is None else scaler.scale(total)).backward()  # type: ignore[no-untyped-call]
        self.after_backward()
        for optimizer, parameters in optimizers:
            if scaler is not None:
                scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
        if scaler is not None:
            scaler.update()

    def further_optimizers(self) -> list[tuple[torch.optim.Optimizer, list[nn.Parameter]]]:
        """Return optimisers of what is trained beside the network, with their parameters."""
        return []

    def after_backward(self) -> None:
        """Change gradients before they are clipped and used."""

    def validation_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Validate as nnU-Net does, in the arithmetic of the training steps."""
        with self.autocast():
            result: dict[str, Any] = super().validation_step(batch)
        return result

    def on_epoch_end(self) -> None:
        """End nnU-Net's epoch; save often enough that little is lost, and tell when training will end."""
        self.save_every = 1 if self._save_is_due() else 50
        super().on_epoch_end()
        remaining = self.num_epochs - self.current_epoch
        starts = self.logger.get_value("epoch_start_timestamps", None)[-10:]
        ends = self.logger.get_value("epoch_end_timestamps", None)[-10:]
        seconds = remaining * float(np.median([end - start for start, end in zip(starts, ends, strict=True)]))
        if remaining > 0:
            end = datetime.now().astimezone() + timedelta(seconds=seconds)
            self.print_to_log_file(f"{remaining} epochs left, expected end {end:%Y-%m-%d %H:%M}")

    def _save_is_due(self) -> bool:
        due = self.num_epochs < SHORT_TRAINING or time.monotonic() - self._last_saved > SECONDS_BETWEEN_SAVES
        if not self.is_ddp:
            return due
        verdict = [due]  # rank 0's clock decides for all: saving is a collective call
        dist.broadcast_object_list(verdict, src=0)
        return verdict[0]

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
            "network_weights": self.bare_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if self.grad_scaler is None else self.grad_scaler.state_dict(),
            "logging": to_plain(self.logger.get_checkpoint()),
            "_best_ema": to_plain(self._best_ema),
            "current_epoch": self.current_epoch + 1,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "kd": {"random": state, **self.stored_state()},
        }
        save_atomically(checkpoint, filename)
        self._last_saved = time.monotonic()

    @ends_on_usage_error
    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint, after checking that it is data and whole.

        When training continues, a damaged file is passed over for the next one: final, latest, best. If none is left,
        training does not start afresh, because it would write over them.

        Args:
            filename_or_checkpoint: The file.
        """
        if not self.was_initialized:
            self.initialize()
        for candidate in self._candidates(Path(filename_or_checkpoint)):
            try:
                checkpoint = load_checkpoint_safely(candidate)
            except UsageError as error:
                if isinstance(error, UnsafeCheckpointError) or not self.logger.resume:
                    raise
                self.print_to_log_file(f"Passed over: {error}")
                continue
            self._take_over(checkpoint, candidate)
            self.print_to_log_file(f"Continuing from {candidate.name} at epoch {self.current_epoch}")
            return
        raise UsageError(
            f"no whole checkpoint in {self.output_folder} to continue from (see above); copy one there, or train "
            "without --c, which starts afresh and writes over what is there"
        )

    def _take_over(self, checkpoint: Mapping[str, Any], path: Path) -> None:
        """Set network, optimiser and log; a checkpoint of other plans, or without one of them, is refused."""
        try:
            operator.index(checkpoint["current_epoch"])  # nnU-Net takes whatever stands there
            super().load_checkpoint(str(path))
            self.resumed = dict(checkpoint.get("kd") or {})
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UsageError(
                f"{path} does not suit the plans '{self.plans_manager.plans_name}' ({type(error).__name__}: "
                f"{' '.join(str(error).split())[:200]}); if they were planned anew since, train without --c or plan "
                "under another name with -p"
            ) from error

    def _candidates(self, first: Path) -> list[Path]:
        """Return the file asked for and, when training continues, what else it may continue from."""
        if not self.logger.resume or first.name not in CHECKPOINTS:
            return [first]
        later = CHECKPOINTS[CHECKPOINTS.index(first.name) + 1 :]
        return [first, *(first.with_name(name) for name in later if first.with_name(name).is_file())]

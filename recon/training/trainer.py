"""The trainer: one network, its data and what it learns from; the loop is in :mod:`nnunet_kd.recon.training.loop`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_kd.distillation.features import bare_network
from nnunet_kd.distillation.ranks import Place
from nnunet_kd.distillation.support import seed_everything
from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import PreprocessedCases, Sample, sample_settings
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.planning.plan_blocks import Training
from nnunet_kd.recon.planning.plans import build_network
from nnunet_kd.recon.training.batches import to_device
from nnunet_kd.recon.training.objective import ReconObjective
from nnunet_kd.recon.training.precision import choose_precision, placed
from nnunet_kd.recon.training.ranks import ALONE, check_share, gather
from nnunet_kd.recon.training.rates import Stage, build_optimizer, plan_stages
from nnunet_kd.recon.training.run import Run
from nnunet_kd.recon.training.supervision import build_supervision
from nnunet_kd.recon.training.validation import crop_to, metric_names


class ReconTrainer:
    """Trains one network on fully sampled images; subclasses add what they learn from beside them.

    Everything is checked and built by the constructor; nothing is written before training starts.

    Attributes:
        networks: Names of the classes it trains; empty: any.
        distils: Whether it reads the plans' kd block.
        adversarial: Whether it reads their generative block.
        run: Which training it is.
        training: The recipe, with the kd block's budget in it.
        seed: Of initialisation and sampling.
        network: In training; what :meth:`bare_network` returns is saved.
        stages: Of the training.
        optimizer: Made anew in every stage.

    Args:
        run: Which training.
        device: Of this process.
        place: Of this process among all.

    Raises:
        UsageError: If plans, data and trainer do not suit each other.
    """

    networks: ClassVar[tuple[str, ...]] = ()
    distils: ClassVar[bool] = False
    adversarial: ClassVar[bool] = False

    def __init__(self, run: Run, device: torch.device, place: Place = ALONE) -> None:
        self.run, self.device, self.place = run, device, place
        self.training = self.recipe()
        self.check()
        configuration = run.configuration
        self.settings = sample_settings(run.plans, configuration)
        self.metrics = metric_names(configuration.metrics)
        supervision = build_supervision(configuration.loss, f"plans '{run.plans.plans_name}', loss")
        self.objective = ReconObjective(supervision, run.kd if self.distils else None)
        self.stages = plan_stages(self.training, has_features=bool(self.objective.feature_losses))
        self.cases = PreprocessedCases(run.preprocessed, run.training_cases)
        self.validation_cases = PreprocessedCases(run.preprocessed, run.validation_cases)
        # without a seed every rank would draw its own
        self.seed = self.training.seed if self.training.seed is not None else gather(torch.seed() % 2**31)[0]
        self.precision = choose_precision(device, self.training.precision)
        self.scaler = self.precision.scaler()
        seed_everything(self.seed)
        self.network: nn.Module = placed(self.build_network(), device)
        if place.world_size > 1:
            self.network = DistributedDataParallel(
                self.network, device_ids=[device.index] if device.type == "cuda" else None
            )
        self.start_stage()

    def recipe(self) -> Training:
        """Return the plans' recipe."""
        return self.run.configuration.training

    def check(self) -> None:
        """Refuse plans that are another trainer's.

        Raises:
            UsageError: With the trainer to type.
        """
        name = self.run.configuration.architecture.network_class_name.rpartition(".")[2]
        if self.networks and name not in self.networks:
            raise UsageError(
                f"-tr {self.run.trainer} trains {' or '.join(self.networks)}, the plans "
                f"'{self.run.plans.plans_name}' have {name}; type -tr {name}{'KD' if self.distils else ''}Trainer"
            )
        if not self.distils and self.run.kd is not None:
            raise UsageError(
                f"the plans '{self.run.plans.plans_name}' have a kd block, which {self.run.trainer} does not read; "
                f"type -tr {name}KDTrainer, also for a control without teacher, or -p nnUNetReconPlans"
            )
        if not self.adversarial and self.run.configuration.generative is not None:
            raise UsageError(
                f"the plans '{self.run.plans.plans_name}' have a generative block, which {self.run.trainer} does not "
                f"read; type -tr {name}Trainer"
            )
        check_share(self.run.configuration.batch_size, self.place.world_size)

    def build_network(self) -> nn.Module:
        """Return what is trained, with fresh weights."""
        return build_network(self.run.configuration)

    def bare_network(self) -> nn.Module:
        """Return the network that is saved and validated: beneath DDP, without what training adds."""
        return bare_network(self.network)

    def prepare(self, sample: Sample) -> None:
        """Build what needs a batch; called once before training, with one on the device."""

    # ---- steps ----

    def stage_of(self, epoch: int) -> Stage:
        """Return the stage an epoch belongs to."""
        return next(stage for stage in self.stages if stage.contains(epoch))

    def start_stage(self) -> None:
        """Make the optimisers anew."""
        self.optimizer = self.make_optimizer(p for p in self.network.parameters() if p.requires_grad)

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the recipe's optimiser for some parameters."""
        return build_optimizer(self.training.optimizer, parameters, self.training.initial_lr)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Return every optimiser: of the network, and of what is trained beside it."""
        return [self.optimizer]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of all optimisers."""
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = rate

    def step(self, sample: Sample, stage: Stage, progress: float) -> dict[str, Tensor]:
        """Make one step on a batch.

        Args:
            sample: The batch.
            stage: Of the training.
            progress: Share of the stage that is done.

        Returns:
            Detached scalars: ``total`` and the unweighted parts.
        """
        total, parts = self.loss(to_device(sample, self.device), stage, progress)
        self._update(total)
        return {"total": total.detach(), **parts}

    def loss(self, sample: Sample, stage: Stage, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is minimised and its parts for a batch on the device."""
        output, target = self.predict(sample)
        return self.objective(output, target, stage=stage, progress=progress)

    def predict(self, sample: Sample) -> tuple[Tensor, Tensor]:
        """Return the network's image, cropped as the target, and the target, ``(B, h, w)`` each."""
        with self.precision.context():
            output = self.network(sample.acquisition)
        if sample.target is None:
            raise UsageError("expected fully sampled images to learn from, found none; preprocess the data set again")
        return crop_to(output, sample.target.shape[-2:]), sample.target

    def _update(self, total: Tensor) -> None:
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        (total if self.scaler is None else self.scaler.scale(total)).backward()  # type: ignore[no-untyped-call]
        self.after_backward()
        for optimizer in optimizers:
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
        if self.scaler is not None:
            self.scaler.update()

    def after_backward(self) -> None:
        """Change gradients before they are used."""

    # ---- what is validated ----

    def reconstruct(self, acquisition: Acquisition) -> Tensor:
        """Return the image that is validated, ``(B, H, W)``, complex or real."""
        with self.precision.context():
            image: Tensor = self.bare_network()(acquisition)
        return image

    def show(self, folder: Path, epoch: int) -> None:
        """Write pictures of an epoch that ended, where the trainer has any; called on the first process.

        Args:
            folder: Of the fold.
            epoch: Its number, from 0.
        """

    # ---- state ----

    def kd_state(self) -> dict[str, Any]:
        """Return what else a checkpoint holds of a distillation: plain values and tensors."""
        return {}

    def restore_kd(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`kd_state` returned."""

    def describe(self) -> dict[str, Any]:
        """Return what ``debug.json`` says beside the plans."""
        return {}

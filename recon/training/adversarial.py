"""The trainer of generative networks: a generator, a discriminator, and the mean of the generator's weights."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunet_kd.distillation.features import bare_network
from nnunet_kd.distillation.ranks import Place
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import write_block
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.networks.generative import MEAN_SAMPLES, GenerativeNetwork
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.planning.generative_block import Generative
from nnunet_kd.recon.training.averaging import WeightAverage
from nnunet_kd.recon.training.batches import plan_epoch, read_batches, to_device
from nnunet_kd.recon.training.game import acceleration_weights, grown
from nnunet_kd.recon.training.generated import Generated, gather_images
from nnunet_kd.recon.training.opponent import Opponent, average_gradients, refuse_nonfinite
from nnunet_kd.recon.training.ranks import ALONE
from nnunet_kd.recon.training.rates import Stage
from nnunet_kd.recon.training.run import Run
from nnunet_kd.recon.training.spread import divergence, posterior_loss
from nnunet_kd.recon.training.texture_proxy import TextureProxy
from nnunet_kd.recon.training.trainer import ReconTrainer

PROXY_SEED = 3000


class AdversarialTrainer(ReconTrainer):
    """Trains a generative network on fully sampled images and against a discriminator, as the plans' block tells.

    What is validated and saved is the running mean of the generator's weights. Several processes average gradients by
    themselves: the generator is not called through DDP, which would not see that it gives several images.

    Attributes:
        has_baseline: Whether the network goes on from a baseline that may be loaded and kept.
        has_code: Whether the network encodes a texture vector, with its mean and variance.
        opponent: The discriminator.
        average: The mean of the generator's weights.
        proxy: The features that stand for texture; ``None`` where they do not count.

    Raises:
        UsageError: If the plans have no such block, or one that does not suit the network or the device.
    """

    adversarial = True
    has_baseline: ClassVar[bool] = False
    has_code: ClassVar[bool] = False

    def __init__(self, run: Run, device: torch.device, place: Place = ALONE) -> None:
        super().__init__(run, device, place)
        if self.scaler is not None:
            raise UsageError(
                f"-tr {run.trainer} needs float32 or native bfloat16, this device would compute in float16; plan again "
                "with --precision float32"
            )
        self.opponent = Opponent(self.block, self.training.initial_lr, device, self.precision)
        self.average = WeightAverage(self.generator, self.block.ema)
        self.proxy = self._make_proxy()
        self.warm_up = self.block.warm_up_share(self.training.num_epochs)

    @property
    def block(self) -> Generative:
        """The block ``generative`` of the plans.

        Raises:
            UsageError: If they have none.
        """
        block = self.run.configuration.generative
        if block is None:
            raise UsageError(
                f"-tr {self.run.trainer} reads a generative block, the plans '{self.run.plans.plans_name}' have none; "
                "plan again with --network and --overwrite"
            )
        return block

    @property
    def generator(self) -> GenerativeNetwork:
        """The network in training, with the weights of the last step."""
        network = bare_network(self.network)
        if not isinstance(network, GenerativeNetwork):
            raise UsageError(f"-tr {self.run.trainer} trains generative networks, {type(network).__name__} is none")
        return network

    def check(self) -> None:
        """Refuse also a block that does not suit the network, and distillation."""
        if self.run.kd is not None:
            raise UsageError(
                f"-tr {self.run.trainer} reads no kd block, the plans '{self.run.plans.plans_name}' have one; distil "
                "the baseline with -tr AdaptiveCSNetKDTrainer, and plan with --baseline and its model folder"
            )
        super().check()
        block = self.block
        where = f"plans '{self.run.plans.plans_name}', generative"
        if block.baseline is not None and not self.has_baseline:
            raise UsageError(f"{where}, baseline: this network starts from none; type null")
        if block.proxy.weight > 0 and (block.proxy.compares == "vector") != self.has_code:
            suitable = "vector" if self.has_code else "gram"
            raise UsageError(f"{where}, proxy, compares: this network expects '{suitable}', got another")

    def bare_network(self) -> nn.Module:
        """Return the network that is saved and validated: the mean over steps."""
        return self.average.network

    def _make_proxy(self) -> TextureProxy | None:
        settings = self.block.proxy
        if settings.weight == 0:
            return None
        features = self.generator.latent_size if self.has_code else settings.features
        return TextureProxy(settings, features, self.device)

    def prepare(self, sample: Sample) -> None:
        """Check that the discriminator takes images of this size."""
        with torch.no_grad():
            generated = gather_images(sample, [{"image": sample.acquisition.image}], sample.acquisition.image)
            try:
                self.opponent.judge(generated.target, generated)
            except ValueError as error:
                raise UsageError(f"generative, discriminator, resolutions: {error}; type a smaller number") from None

    # ---- steps ----

    def set_rate(self, rate: float) -> None:
        """Set the learning rates of generator and discriminator."""
        super().set_rate(rate)
        self.opponent.set_rate(rate)

    def step(self, sample: Sample, stage: Stage, progress: float) -> dict[str, Tensor]:
        """Make one step of the generator, and one of the discriminator where the warm-up is over.

        Returns:
            Detached scalars: ``total`` of the generator, its unweighted parts, and the discriminator's.

        Raises:
            UsageError: If a loss is not finite.
        """
        if self.proxy is not None and not self.proxy.is_trained:
            self._train_proxy(self.proxy)
        sample = to_device(sample, self.device)
        with self.precision.context():
            parts, baseline = self.generate(sample.acquisition)
        generated = gather_images(sample, parts, baseline)
        total, losses = self.generator_loss(generated, stage, progress)
        refuse_nonfinite(total, "generator")
        self._update(total)
        self.average.update(self.generator)
        if self.plays(progress):
            losses |= self.opponent.step(generated)
        return {"total": total.detach(), **losses}

    def plays(self, progress: float) -> bool:
        """Tell whether there is a discriminator by now."""
        return self.block.adversarial_weight > 0 and progress >= self.warm_up

    def generate(self, acquisition: Acquisition) -> tuple[Sequence[dict[str, Tensor]], Tensor]:
        """Return the parts of new samples, and the baseline's image with the gradients that supervision wants."""
        network = self.generator
        parts = [network.parts(acquisition, network.latent(acquisition)) for _ in range(self.block.n_samples)]
        return parts, parts[0]["baseline"]

    def generator_loss(self, generated: Generated, stage: Stage, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what the generator minimises, and its unweighted parts."""
        block = self.block
        mean = generated.samples.mean(dim=0)
        total, losses = self.objective(mean, generated.target, stage=stage, progress=progress)
        for name, weight, value in self.terms(generated, stage):
            total = total + weight * value
            losses[name] = value.detach()
        amount = block.adversarial_weight * grown(progress, self.warm_up)
        weights = amount * acceleration_weights(generated.log_acceleration)
        if amount > 0:
            verdicts = self.opponent.generator_losses(generated)
            total = total + (weights * verdicts).mean()
            losses["adversarial"] = verdicts.detach().mean()
        return total, losses

    def terms(self, generated: Generated, stage: Stage) -> Iterator[tuple[str, float, Tensor]]:  # noqa: ARG002
        """Yield name, weight and value of what counts beside supervision and the verdict."""
        block = self.block
        if block.spread_weight > 0 and block.n_samples > 1:
            yield "posterior", block.spread_weight, posterior_loss(generated.samples, generated.target)
        if self.proxy is not None and not self.has_code:
            yield "proxy", block.proxy.weight, self.proxy.gram_loss(generated.samples, generated.target)
        if self.has_code:
            yield from self._code_terms(generated.parts[0], generated.target)

    def _code_terms(self, parts: dict[str, Tensor], target: Tensor) -> Iterator[tuple[str, float, Tensor]]:
        block = self.block
        if self.proxy is not None:
            yield "proxy", block.proxy.weight, self.proxy.vector_loss(parts["style"], target)
        if block.kl_weight > 0:
            yield "kl", block.kl_weight, divergence(parts["mean"], parts["log_variance"], block.free_bits)

    def after_backward(self) -> None:
        """Average the generator's gradients over processes."""
        average_gradients(self.generator)

    def _train_proxy(self, proxy: TextureProxy) -> None:
        """Train the texture encoder; every process does the same, and takes the first one's weights."""
        seed = self.seed + PROXY_SEED
        batches = plan_epoch(
            self.cases.sizes, self.run.configuration.batch_size, seed=seed, epoch=0, n_batches=proxy.settings.steps
        )
        samples = read_batches(self.cases, self.settings, batches, seed=seed, epoch=0)
        proxy.train(sample.target.to(self.device) for sample in samples if sample.target is not None)
        if dist.is_available() and dist.is_initialized():
            for values in (*proxy.encoder.state_dict().values(), proxy.scale):
                dist.broadcast(values, 0)

    # ---- what is validated ----

    @torch.no_grad()
    def reconstruct(self, acquisition: Acquisition) -> Tensor:
        """Return the mean magnitude of several samples, as prediction gives it, ``(B, H, W)``."""
        with self.precision.context():
            samples = self.average.network.samples(acquisition, range(MEAN_SAMPLES))  # type: ignore[operator]
        mean: Tensor = samples.abs().mean(dim=0)
        return mean

    def show(self, folder: Path, epoch: int) -> None:
        """Write the picture of the epoch."""
        from nnunet_kd.recon.training.sample_pictures import write_pictures

        write_pictures(self, folder, epoch)

    # ---- state ----

    def kd_state(self) -> dict[str, Any]:
        """Return the generator's last weights, the discriminator, the encoder and the counts."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.opponent.state(),
            "proxy": self.proxy.state() if self.proxy is not None and self.proxy.is_trained else None,
            "averaged_steps": self.average.steps,
        }

    def restore_kd(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`kd_state` returned.

        Raises:
            UsageError: If the checkpoint is of another training.
        """
        try:
            self.generator.load_state_dict(state["generator"])
            self.opponent.restore(state["discriminator"])
            self.average.steps = int(state["averaged_steps"])
            if self.proxy is not None and state["proxy"] is not None:
                self.proxy.restore(state["proxy"])
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UsageError(
                f"the checkpoint does not suit the plans' generative block ({type(error).__name__}: {reason}); if they "
                "were planned anew since, train without --c"
            ) from error

    def describe(self) -> dict[str, Any]:
        """Return the block, and the size of the discriminator."""
        n_parameters = sum(parameter.numel() for parameter in self.opponent.network.parameters())
        return {"generative": write_block(self.block), "discriminator_parameters": n_parameters}

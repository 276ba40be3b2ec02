"""The discriminator in training: its steps, its optimiser and what a checkpoint holds of it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.networks.discriminators import PatchDiscriminator
from nnunet_kd.recon.planning.generative_block import Generative
from nnunet_kd.recon.training.game import discriminator_loss, generator_losses, slope_penalty, verdicts
from nnunet_kd.recon.training.generated import Generated
from nnunet_kd.recon.training.precision import Precision

BETAS = (0.0, 0.9)  # of Adam: the opponent changes too fast for momentum


class Opponent:
    """A discriminator that learns to tell a generator's images from true ones.

    Attributes:
        network: The discriminator.
        optimizer: Adam without momentum.
        steps: How many it made.

    Args:
        settings: Of the plans.
        rate: The generator's first learning rate.
        device: Where it lives.
        precision: Of its convolutions. The penalty on its slope is computed in float32.
    """

    def __init__(self, settings: Generative, rate: float, device: torch.device, precision: Precision) -> None:
        chosen = settings.discriminator
        self.settings, self.precision = settings, precision
        self.network: nn.Module = PatchDiscriminator(
            chosen.channels, chosen.layers, chosen.resolutions, cutoff=chosen.cutoff
        ).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), rate * chosen.rate, betas=BETAS)
        self.steps = 0

    def set_rate(self, rate: float) -> None:
        """Set the learning rate to its own multiple of the generator's."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.settings.discriminator.rate

    def judge(self, image: Tensor, generated: Generated) -> list[Tensor]:
        """Return the logits of images ``(N B, h, w)`` of a batch of B, see :class:`PatchDiscriminator`."""
        times = len(image) // len(generated.condition)
        condition, told = generated.condition.repeat(times, 1, 1), generated.log_acceleration.repeat(times)
        logits: list[Tensor] = self.network(image, condition, told)
        return logits

    def generator_losses(self, generated: Generated) -> Tensor:
        """Return what each sample loses by the verdict on it, ``(P, B)``; the discriminator gets no gradients."""
        chosen = self.settings.discriminator
        self.network.requires_grad_(requires_grad=False)
        try:
            with self.precision.context():
                logits = self.judge(generated.samples.flatten(0, 1), generated)
        finally:
            self.network.requires_grad_(requires_grad=True)
        losses = generator_losses(verdicts(logits, chosen.judges), chosen.game)
        return losses.reshape(generated.samples.shape[:2])

    def step(self, generated: Generated) -> dict[str, Tensor]:
        """Make one step on the images of a batch, which get no gradients.

        Returns:
            Detached scalars: ``discriminator``, and ``r1`` where it was computed.

        Raises:
            UsageError: If the loss is not finite.
        """
        chosen = self.settings.discriminator
        with self.precision.context():
            real = self.judge(generated.target, generated)
            fake = self.judge(generated.samples.detach().flatten(0, 1), generated)
        loss = discriminator_loss(verdicts(real, chosen.judges), verdicts(fake, chosen.judges), chosen.game)
        parts = {"discriminator": loss.detach()}
        if self.settings.r1_weight > 0 and self.steps % self.settings.r1_interval == 0:
            penalty = self._penalty(generated)
            parts["r1"] = penalty.detach()
            loss = loss + self.settings.r1_weight * self.settings.r1_interval * penalty
        refuse_nonfinite(loss, "discriminator")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.network)
        self.optimizer.step()
        self.steps += 1
        return parts

    def _penalty(self, generated: Generated) -> Tensor:
        image = generated.target.detach().requires_grad_()
        return slope_penalty(self.judge(image, generated), image)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {
            "weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.network.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer_state"])
        self.steps = int(state["steps"])


def refuse_nonfinite(loss: Tensor, who: str) -> None:
    """End a training whose loss is lost.

    Raises:
        UsageError: If the loss is NaN or infinite.
    """
    if not bool(torch.isfinite(loss)):
        raise UsageError(
            f"the {who}'s loss became {float(loss)}; lower training, initial_lr or generative, adversarial_weight in "
            "the plans and train again"
        )


def average_gradients(network: nn.Module) -> None:
    """Average gradients over the processes of a training, as DDP does where it is called."""
    if not (dist.is_available() and dist.is_initialized()):
        return
    for parameter in network.parameters():
        if parameter.requires_grad:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            dist.all_reduce(gradient)
            parameter.grad = gradient / dist.get_world_size()

"""The trainers of the generative networks."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.networks.texture_net import TextureNet
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.training.adversarial import AdversarialTrainer
from nnunet_kd.recon.training.generated import Generated
from nnunet_kd.recon.training.rates import Stage

if TYPE_CHECKING:
    from nnunet_kd.recon.training.run import Run


class TextureNetTrainer(AdversarialTrainer):
    """TextureNet: a baseline, trained already or on the way, and texture against a discriminator.

    The baseline's image is a constant to everything but its own supervision, so that no discriminator changes it.
    """

    networks = ("TextureNet",)
    has_baseline = True

    def build_network(self) -> nn.Module:
        """Return the network, its baseline without gradients where it is kept."""
        network = super().build_network()
        if self.block.freeze_baseline:
            _baseline(network).requires_grad_(requires_grad=False)
        return network

    def prepare(self, sample: Sample) -> None:
        """Load the baseline too, where the plans name one."""
        super().prepare(sample)
        if self.block.baseline is not None:
            load_baseline(self.run, self.block.baseline, _baseline(self.generator))
            self.average.restart(self.generator)

    def generate(self, acquisition: Acquisition) -> tuple[Sequence[dict[str, Tensor]], Tensor]:
        """Return the parts of new samples, whose baseline is computed once, and the baseline's image."""
        network = self.generator
        if not isinstance(network, TextureNet):
            raise TypeError(f"expected a TextureNet, got {type(network).__name__}")
        with torch.set_grad_enabled(not self.block.freeze_baseline):
            baseline = network.baseline(acquisition)
        latents = [network.latent(acquisition) for _ in range(self.block.n_samples)]
        return list(network.add_textures(baseline.detach(), acquisition, latents)), baseline

    def terms(self, generated: Generated, stage: Stage) -> Iterator[tuple[str, float, Tensor]]:
        """Yield also the baseline's own supervision, where it is trained."""
        yield from super().terms(generated, stage)
        if not self.block.freeze_baseline:
            loss, _ = self.objective(generated.baseline, generated.target, stage=stage)
            yield "baseline", 1.0, loss


class StylishTrainer(AdversarialTrainer):
    """The published generative form: texture vector with its proxy, divergence of the code, one verdict per image."""

    networks = ("Stylish",)
    has_code = True


def load_baseline(run: "Run", text: str, baseline: nn.Module) -> None:
    """Load trained weights into a network's baseline, strictly.

    Args:
        run: Of the network.
        text: ``MODEL_FOLDER[:FOLD]``; without fold the one that is trained, which never saw the validation cases.
        baseline: Takes the weights.

    Raises:
        UsageError: If the folder, the fold or its final checkpoint is missing or damaged, or is of another network,
            other data or another scale.
    """
    from nnunet_kd.recon.planning.baseline import open_baseline
    from nnunet_kd.recon.training.models import FINAL, load_network

    model, fold = open_baseline(text)
    ours = run.plans
    compared = {
        "task": (model.plans.task, ours.task),
        "acquisition": (model.plans.acquisition, ours.acquisition),
        "normalisation": (model.plans.normalisation, ours.normalisation),
        "n_neighbours": (model.configuration.n_neighbours, run.configuration.n_neighbours),
    }
    for key, (theirs, wanted) in compared.items():
        if theirs != wanted:
            raise UsageError(
                f"baseline {model.path.name} has {key} {theirs!r}, the plans '{ours.plans_name}' have {wanted!r}; plan "
                f"again with --baseline {text}"
            )
    trained, _, _ = load_network(model.path, run.fold if fold is None else fold, FINAL)
    if getattr(trained, "priors", None) != getattr(baseline, "priors", None):
        raise UsageError(f"baseline {model.path.name} has other priors than the plans; plan with --baseline {text}")
    try:
        baseline.load_state_dict(trained.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:160]
        raise UsageError(
            f"baseline {model.path.name} is of another size ({reason}); plan with --baseline {text}"
        ) from None


def _baseline(network: nn.Module) -> nn.Module:
    found = network.baseline
    if not isinstance(found, nn.Module):
        raise TypeError(f"expected a network with a baseline, got {type(network).__name__}")
    return found

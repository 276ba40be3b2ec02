"""What stands for the texture of an image: features of an encoder that is trained on the true images."""

from collections.abc import Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from nnunet_kd.recon.networks.texture_encoder import TextureEncoder
from nnunet_kd.recon.planning.generative_block import Proxy

WINDOW = 4  # features on a side, 32 pixels: texture within counts, not its exact place


class TextureProxy:
    """An encoder of high frequencies, learnt without labels before a generator is trained, and then fixed.

    Attributes:
        encoder: Its code is divided by ``scale``.
        scale: Root mean square of each feature over true images, ``(1, C, 1, 1)``.
        is_trained: Whether :meth:`train` ran, or a state was restored.

    Args:
        settings: Of the plans.
        features: Length of the code.
        device: Where it lives.
    """

    def __init__(self, settings: Proxy, features: int, device: torch.device) -> None:
        self.settings = settings
        self.encoder: nn.Module = TextureEncoder(features, settings.channels, cutoff=settings.cutoff).to(device)
        self.scale = torch.ones(1, features, 1, 1, device=device)
        self.is_trained = False

    def train(self, images: Iterable[Tensor]) -> float:
        """Train the encoder to keep what it can of high frequencies, one step for each batch.

        Args:
            images: Batches of true magnitudes, ``(B, h, w)``, on the device.

        Returns:
            The share of the high frequencies' energy that the last batch's code lost.
        """
        self.encoder.train().requires_grad_(requires_grad=True)
        optimizer = torch.optim.Adam(self.encoder.parameters(), self.settings.initial_lr)
        energy, lost = torch.zeros_like(self.scale), torch.zeros(())
        for number, image in enumerate(images):
            truth, found = self.encoder(image)
            lost = (found - truth).square().mean() / truth.square().mean().clamp(min=1e-12)
            optimizer.zero_grad(set_to_none=True)
            lost.backward()
            optimizer.step()
            kept = 0.0 if number == 0 else 0.9
            energy = kept * energy + (1 - kept) * self._energy(image)
        self.encoder.eval().requires_grad_(requires_grad=False)
        self.scale = energy.sqrt().clamp(min=1e-6)
        self.is_trained = True
        return float(lost.detach())

    @torch.no_grad()
    def _energy(self, image: Tensor) -> Tensor:
        found: Tensor = self.encoder.encode(image).square().mean(dim=(0, 2, 3), keepdim=True)  # type: ignore[operator]
        return found

    def features(self, image: Tensor) -> Tensor:
        """Return features of magnitudes, ``(B, C, h // 8, w // 8)``, of the order of 1."""
        found: Tensor = self.encoder.encode(image)  # type: ignore[operator]
        return found / self.scale

    def gram_loss(self, samples: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference of :func:`local_moments` of samples and truth, a scalar.

        Args:
            samples: Magnitudes, ``(P, B, h, w)``.
            target: ``(B, h, w)``.
        """
        with torch.no_grad():
            wanted = local_moments(self.features(target))
        found = local_moments(self.features(samples.flatten(0, 1)))
        return (found.reshape(*samples.shape[:2], *found.shape[1:]) - wanted).abs().mean()

    def vector_loss(self, vector: Tensor, target: Tensor) -> Tensor:
        """Return the mean absolute difference of a texture vector and the truth's: its mean absolute features.

        Args:
            vector: ``(B, C)``.
            target: Magnitudes, ``(B, h, w)``.
        """
        with torch.no_grad():
            wanted = self.features(target).abs().mean(dim=(2, 3))
        return (vector - wanted).abs().mean()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        return {"encoder": self.encoder.state_dict(), "scale": self.scale}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what :meth:`state` returned."""
        self.encoder.load_state_dict(state["encoder"])
        self.encoder.eval().requires_grad_(requires_grad=False)
        self.scale = state["scale"].to(self.scale.device)
        self.is_trained = True


def local_moments(features: Tensor) -> Tensor:
    """Return the second moments of features within windows: which of them go together there, and how strongly.

    They are the Gram matrices of texture synthesis [1], but of windows that overlap by half instead of the image, so
    that texture is compared where it is.

    Args:
        features: ``(B, C, h, w)``.

    Returns:
        ``(B, C (C + 1) / 2, h', w')``; the products of two unlike features count by the root of 2, as both of them.

    References:
        [1] Gatys et al., Texture Synthesis Using Convolutional Neural Networks, 2015,
            https://arxiv.org/abs/1505.07376
    """
    n_features = features.shape[1]
    rows, columns = torch.triu_indices(n_features, n_features, device=features.device)
    window = [min(WINDOW, size) for size in features.shape[2:]]
    products = features[:, rows] * features[:, columns]
    pooled = avg_pool2d(products, window, [max(1, size // 2) for size in window])
    counts = torch.where(rows == columns, 1.0, sqrt(2))
    return pooled * counts[:, None, None]

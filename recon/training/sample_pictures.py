"""What a generative network makes of one validation slice, as a picture after every epoch."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nnunet_kd.figures import new_figure
from nnunet_kd.recon.data.samples import SampleSettings, collate, make_sample
from nnunet_kd.recon.networks.generative import MEAN_SAMPLES, GenerativeNetwork
from nnunet_kd.recon.physics.sampling import true_acceleration
from nnunet_kd.recon.training.batches import to_device
from nnunet_kd.recon.training.supervision import magnitude
from nnunet_kd.recon.training.validation import by_acceleration, crop_to

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from nnunet_kd.recon.training.adversarial import AdversarialTrainer

LATEST = "samples_latest.png"
ERROR_GAIN = 5.0  # errors are shown so many times brighter than the images
Image = NDArray[np.floating[Any]]


class Shown(NamedTuple):
    """One slice, magnitudes ``(h, w)`` on the scale of training.

    Attributes:
        title: Says which.
        zero_filled: Before any network.
        baseline: What detail is added to.
        samples: Two or more, ``(P, h, w)``.
        detail: What the first sample adds, with its sign: its magnitude less the baseline's.
        target: The truth.
    """

    title: str
    zero_filled: Image
    baseline: Image
    samples: Image
    detail: Image
    target: Image


def write_pictures(trainer: "AdversarialTrainer", folder: Path, epoch: int) -> None:
    """Draw ``samples_epoch_N.png`` and ``samples_latest.png``, each written whole or not at all.

    Args:
        trainer: After an epoch.
        folder: Of the fold.
        epoch: Its number, from 0.
    """
    picture = draw(make_shown(trainer))
    for name in (f"samples_epoch_{epoch}.png", LATEST):
        temporary = folder / f".{name}"
        temporary.write_bytes(picture)
        temporary.replace(folder / name)


@torch.no_grad()
def make_shown(trainer: "AdversarialTrainer") -> Shown:
    """Reconstruct the middle slice of the first validation case, at the highest planned acceleration."""
    settings = _hardest(trainer)
    cases = trainer.validation_cases
    name, facts = next(iter(cases.facts.items()))
    numbers = [number for case, number in cases.items if case == name] or [0]
    number = numbers[len(numbers) // 2]
    data = cases.read(name, number, settings.n_neighbours)
    sample = to_device(collate([make_sample(data, settings, volume_scale=facts.volume_scale)]), trainer.device)
    network = trainer.bare_network().eval()
    if not isinstance(network, GenerativeNetwork) or sample.target is None:
        raise TypeError("expected a generative network and a target")
    acquisition, size = sample.acquisition, sample.target.shape[-2:]
    with trainer.precision.context():
        samples = network.samples(acquisition, range(MEAN_SAMPLES))
        baseline = network.parts(acquisition, network.latent(acquisition, 0))["baseline"]
    images = [acquisition.image, baseline, *samples]
    zero_filled, base, *found = (crop_to(magnitude(image), size)[0].cpu().numpy() for image in images)
    rate = true_acceleration(acquisition.mask[0].cpu().expand(acquisition.image.shape[1:]))
    title = f"{name}, slice {number}, acceleration {float(rate):.1f}"
    return Shown(title, zero_filled, base, np.stack(found), found[0] - base, sample.target[0].cpu().numpy())


def _hardest(trainer: "AdversarialTrainer") -> SampleSettings:
    several = by_acceleration(trainer)
    return several[max(several, key=lambda label: float(label[1:]))] if several else trainer.settings


def draw(shown: Shown) -> bytes:
    """Return the picture, PNG: images above, below them errors, and what the samples do not agree on."""
    from io import BytesIO

    first, second, mean = shown.samples[0], shown.samples[1], shown.samples.mean(axis=0)
    images = {"zero-filled": shown.zero_filled, "baseline": shown.baseline, "sample 0": first, "sample 1": second}
    images[f"mean of {len(shown.samples)}"] = mean
    ratio = shown.target.shape[0] / shown.target.shape[1]
    figure = new_figure(figsize=(16, 16 / 7 * ratio * 2 + 1.2))
    grid = figure.subplots(2, len(images) + 2)
    figure.suptitle(shown.title)
    brightest = float(shown.target.max()) or 1.0
    for column, (name, image) in enumerate(images.items()):
        _grey(grid[0, column], image, brightest, f"{name}\n{_psnr(image, shown.target):.1f} dB")
        error = f"error x {ERROR_GAIN:g}" if column == 0 else ""
        _grey(grid[1, column], np.abs(image - shown.target), brightest / ERROR_GAIN, error)
    largest = max(float(np.abs(shown.detail).max()), 1e-6 * brightest)
    signed = grid[0, -2]
    signed.imshow(shown.detail, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
    signed.set_title(f"detail of sample 0\n± {100 * largest / brightest:.2g} % of maximum")
    deviations = shown.samples.std(axis=0, ddof=1)
    widest = max(float(deviations.max()), 1e-6 * brightest)
    _grey(grid[1, -2], deviations, widest, f"spread, 0 to {100 * widest / brightest:.2g} %")
    _grey(grid[0, -1], shown.target, brightest, "target\n")
    for axes in grid.ravel():
        axes.set_axis_off()
    buffer = BytesIO()
    figure.savefig(buffer, dpi=80, format="png")
    return buffer.getvalue()


def _grey(axes: "Axes", image: Image, brightest: float, title: str) -> None:
    axes.imshow(image, cmap="gray", vmin=0, vmax=brightest, interpolation="nearest")
    axes.set_title(title)


def _psnr(image: Image, target: Image) -> float:
    error = float(np.square(image - target).mean())
    return float(10 * np.log10(float(target.max()) ** 2 / error)) if error > 0 else float("inf")

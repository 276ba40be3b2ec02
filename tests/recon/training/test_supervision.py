from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.training.supervision import SUPERVISIONS, build_supervision, l1_ssim, magnitude, ms_ssim, ssim


def images(size: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(3, size, size, generator=generator) * torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    return target + 0.1 * torch.randn(3, size, size, generator=generator), target


def test_ssim_is_skimage_s_with_each_slice_s_range() -> None:
    prediction, target = images()
    expected = np.mean(
        [
            structural_similarity(t.numpy(), p.numpy(), data_range=float(t.max()), win_size=7)
            for p, t in zip(prediction, target, strict=True)
        ]
    )
    # skimage averages over the windows that lie wholly inside, as the loss does
    assert float(1 - ssim(prediction, target)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", SUPERVISIONS)
@pytest.mark.parametrize("size", [9, 40, 120])
def test_losses_vanish_for_the_truth_and_have_gradients_elsewhere(name: str, size: int) -> None:
    prediction, target = images(size)
    loss = build_supervision({"name": name}, "loss")
    assert float(loss(target, target)) == pytest.approx(0, abs=1e-5)
    prediction.requires_grad_()
    value = loss(prediction, target)
    value.backward()
    assert value > 0
    assert torch.isfinite(prediction.grad).all()
    assert prediction.grad.abs().sum() > 0


@pytest.mark.parametrize("name", SUPERVISIONS)
def test_empty_slices_stay_finite(name: str) -> None:
    prediction = torch.zeros(2, 16, 16, requires_grad=True)
    loss = build_supervision({"name": name}, "loss")(prediction, torch.zeros(2, 16, 16))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(prediction.grad).all()


def test_multiscale_of_one_scale_is_ssim() -> None:
    prediction, target = images(13)  # 6 at the second scale: no window fits
    each = [ms_ssim(p[None], t[None]) for p, t in zip(prediction, target, strict=True)]
    for value, p, t in zip(each, prediction, target, strict=True):
        assert float(value) == pytest.approx(float(ssim(p[None], t[None])), abs=1e-6)


def test_share_mixes() -> None:
    prediction, target = images()
    mixed = build_supervision({"name": "l1_ssim", "share": 0.25}, "loss")(prediction, target)
    assert mixed == pytest.approx(float(0.75 * l1_ssim(prediction, target, 0) + 0.25 * l1_ssim(prediction, target, 1)))


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ({"name": "l2"}, "l1, ssim"),
        ({"name": "l1", "share": 0.5}, "unknown key 'share'"),
        ({"name": "l1_ssim", "share": 2}, "share"),
    ],
)
def test_other_settings_are_refused_in_one_line(loss: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        build_supervision(loss, "plans, loss")
    assert "\n" not in str(caught.value)


def test_magnitude_keeps_the_sign_of_real_images() -> None:
    assert magnitude(torch.tensor([[[3 + 4j]]])).tolist() == [[[5.0]]]
    assert magnitude(torch.tensor([[[-1.0]]])).tolist() == [[[-1.0]]]

"""Claims about the U-Net and the variational network: they compute what fastMRI's networks of the same weights do.

golden_fastmri.json holds the outputs of the package fastmri 0.3.0 (facebookresearch/fastMRI, MIT licence) for weights
and inputs made of sines; where that package is installed, ``pytest tests/recon/networks/test_unet.py --write-tables``
writes it anew, and a test compares with the package itself.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nnunet_kd.recon.networks import UNet, VarNet
from nnunet_kd.recon.networks.sensitivities import SensitivityNetwork, calibration_window
from nnunet_kd.recon.networks.unet_body import UNetBody, padded, standardised
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.physics.fourier import image_to_kspace

GOLDEN = Path(__file__).with_name("golden_fastmri.json")
Measure = Callable[..., Acquisition]
Fill = Callable[[nn.Module], nn.Module]

# ours, and fastmri.models' of the same weights in the same order
SMALL_UNET, SMALL_VARNET = {"chans": 2, "num_pool_layers": 3}, {"num_cascades": 2, "sens_chans": 2, "chans": 2}


def small_unet() -> UNet:
    return UNet(channels=2, pools=3)


def small_varnet() -> VarNet:
    return VarNet(2, 2, 4, sensitivity_channels=2, combination="rss")


def in_the_order_of_fastmri(network: VarNet) -> nn.Module:
    """Return the same weights with each step's length before its U-Net, as fastMRI registers them."""
    ordered = nn.Module()
    weights = list(network.sensitivities.parameters()) if network.sensitivities is not None else []
    for cascade in network.cascades:
        weights += [cascade.step, *cascade.body.parameters()]  # type: ignore[list-item,union-attr,misc]
    for number, weight in enumerate(weights):
        ordered.register_parameter(str(number), weight)
    return ordered


def magnitudes(images: Tensor) -> list[float]:
    """Return a few dozen pixels, which is enough to tell networks apart."""
    return [float(f"{value:.6g}") for value in images.detach().abs()[:, ::5, ::7].flatten()]


def of_fastmri(acquisition: Measure, fill: Fill) -> dict[str, list[float]]:
    models = pytest.importorskip("fastmri.models")
    measured = acquisition((32, 48))
    image = measured.image.abs()[:, None]
    mean, scale = image.mean((2, 3), keepdim=True), image.std((2, 3), keepdim=True)
    unet = fill(models.Unet(1, 1, **SMALL_UNET))
    found = {"unet": magnitudes((unet((image - mean) / scale) * scale + mean)[:, 0])}
    measured = acquisition((40, 24), coils=3)
    mask = measured.mask.expand(2, 1, 24)[:, None, :, :, None].bool()
    kspace = torch.view_as_real(measured.kspace)
    return found | {"varnet": magnitudes(fill(models.VarNet(**SMALL_VARNET))(kspace, mask))}


def of_ours(acquisition: Measure, fill: Fill) -> dict[str, list[float]]:
    unet, varnet = fill(small_unet()), small_varnet()
    fill(in_the_order_of_fastmri(varnet))
    return {
        "unet": magnitudes(unet(acquisition((32, 48)))),
        "varnet": magnitudes(varnet(acquisition((40, 24), coils=3))),
    }


@pytest.mark.parametrize("network", ["unet", "varnet"])
def test_outputs_are_those_of_fastmri_on_file(
    network: str, acquisition: Measure, fill: Fill, request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--write-tables"):
        GOLDEN.write_text(json.dumps(of_fastmri(acquisition, fill), indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())[network]
    assert of_ours(acquisition, fill)[network] == pytest.approx(golden, rel=1e-3, abs=1e-4)


def test_outputs_are_those_of_the_package_itself(acquisition: Measure, fill: Fill) -> None:
    expected, found = of_fastmri(acquisition, fill), of_ours(acquisition, fill)
    assert found["unet"] == pytest.approx(expected["unet"], rel=1e-3, abs=1e-4)
    assert found["varnet"] == pytest.approx(expected["varnet"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [(lambda: UNet(channels=32, pools=4), 7_756_097), (VarNet, 29_936_966)],
    ids=["unet", "varnet"],
)
def test_sizes_are_those_of_fastmri(network: Callable[[], nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in network().parameters()) == parameters


@pytest.mark.parametrize("shape", [(7, 5), (16, 33), (40, 24)])
def test_an_image_of_any_size_is_padded_around_it_and_cut_back(shape: tuple[int, int]) -> None:
    sizes = []

    def look(channels: Tensor) -> Tensor:
        sizes.append(tuple(channels.shape[2:]))
        return channels

    image = torch.randn(2, 1, *shape)
    assert torch.equal(padded(look, image, 8), image)
    assert all(
        size % 8 == 0 and max(16, whole) <= size < max(17, whole + 8) for size, whole in zip(*sizes, shape, strict=True)
    )


def test_scale_and_offset_of_the_input_come_out_again() -> None:
    body, image = UNetBody(2, 2, 2, 2), torch.randn(2, 2, 16, 16)
    changed = 1e-4 * image + torch.tensor([3e-4, -1e-4]).view(2, 1, 1)
    expected = 1e-4 * standardised(body, image) + torch.tensor([3e-4, -1e-4]).view(2, 1, 1)
    torch.testing.assert_close(standardised(body, changed), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("mask", "window"),
    [
        ("1011111101", "0011111100"),
        ("1011110001", "0000110000"),  # the centre of 10 lies at index 5
        ("1111111111", "1111111111"),
        ("1010101010", "0000010000"),
        ("110111101", "000011000"),
    ],
)
def test_the_calibration_region_is_the_symmetric_run_around_the_centre(mask: str, window: str) -> None:
    lines, expected = (torch.tensor([[[int(line) for line in text]]]) for text in (mask, window))
    assert torch.equal(calibration_window(lines).int(), expected.int())
    assert torch.equal(calibration_window(lines.mT).int(), expected.mT.int())
    both = lines * lines.mT
    assert torch.equal(calibration_window(both).int(), (expected * expected.mT).int())


def test_learned_sensitivities_come_from_the_calibration_region_alone(acquisition: Measure) -> None:
    network, measured = SensitivityNetwork(2, 2), acquisition((24, 20), coils=3)
    sensitivities = network(measured.kspace, measured.mask)
    torch.testing.assert_close(sensitivities.abs().square().sum(dim=1), torch.ones(2, 24, 20))
    outside = measured.kspace * (1 + 5 * ~calibration_window(measured.mask)[:, None])
    assert torch.equal(network(outside, measured.mask), sensitivities)


def test_given_sensitivities_are_used_and_learned_ones_replace_them(acquisition: Measure) -> None:
    measured = acquisition((16, 16), coils=2)
    other = measured._replace(sensitivities=measured.sensitivities.flip(1))
    given, learned = VarNet(1, 2, 2, sensitivities="given"), VarNet(1, 2, 2)
    assert not torch.equal(given(measured), given(other))
    assert torch.equal(learned(measured), learned(other))


def test_a_full_step_without_correction_keeps_what_was_measured(acquisition: Measure) -> None:
    """The soft data consistency alone: a step of length 1 replaces the samples, one of 0 leaves them."""
    measured = acquisition((16, 16))
    network = VarNet(1, 2, 2, sensitivities="given")
    cascade = network.cascades[0]
    own = torch.randn_like(measured.kspace)
    with torch.no_grad():
        correction = cascade(own, measured._replace(kspace=own)) - own
        sampled = measured.mask[:, None].expand_as(own) > 0
        for length, expected in ((1.0, measured.kspace), (0.0, own)):
            cascade.step.fill_(length)  # type: ignore[operator,union-attr]
            moved = cascade(own, measured) - correction
            torch.testing.assert_close(moved[sampled], expected[sampled])
            torch.testing.assert_close(moved[~sampled], own[~sampled])


def test_the_combination_of_one_coil_is_the_magnitude_either_way(acquisition: Measure, fill: Fill) -> None:
    measured = acquisition((16, 16))
    images = [
        fill(VarNet(1, 2, 2, sensitivities="given", combination=how))(measured) for how in ("sensitivities", "rss")
    ]
    torch.testing.assert_close(images[0].abs(), images[1])
    assert image_to_kspace(images[0]).dtype == torch.complex64

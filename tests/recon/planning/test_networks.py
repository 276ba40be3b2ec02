"""Claims about the generative networks in plans: their loss, their trainer, what ``recon plan`` says of them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd.recon.planning.networks import SizeRequest, planned_loss, student_architecture, teacher_architecture
from nnunet_kd.recon.planning.plans import build_network, read_plans


@pytest.mark.parametrize(
    ("network", "loss", "sizes"),
    [
        ("adaptive_cs_net", "ms_ssim_l1", ("--blocks", "2", "--scales", "2")),
        ("texture_net", "ms_ssim_l1", ("--blocks", "1", "--tokens", "3")),
        ("stylish", "l1", ("--pools", "2")),
    ],
)
def test_a_network_is_planned_by_its_short_name(
    network: str, loss: str, sizes: tuple[str, ...], run: Callable[..., None], planned: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ["--mask", "equispaced", "--acceleration", "4", "8", "16", "32", "--channels", "4"]
    words += ["-p", "nnUNetReconSparsePlans"]
    run("plan", "-d", "1", "--network", network, *sizes, *words)
    plans = read_plans(planned / "nnUNetReconSparsePlans.json")
    assert plans.configuration("2d").loss == {"name": loss}
    name = type(build_network(plans.configuration("2d"))).__name__
    assert f"-tr {name}Trainer" in (said := capsys.readouterr().out) or "-tr ReconTrainer" in said
    neighbours = plans.configuration("2d_neighbours")
    assert neighbours.architecture.arch_kwargs["n_context"] == 2


def test_a_thin_one_has_as_many_blocks() -> None:
    wide = teacher_architecture("reconstruction", SizeRequest(network="adaptive_cs_net"), published=False)
    thin = student_architecture(wide, SizeRequest())
    assert (thin.arch_kwargs["blocks"], thin.arch_kwargs["channels"]) == (8, 8)
    assert planned_loss(thin) == planned_loss(wide) == {"name": "ms_ssim_l1"}

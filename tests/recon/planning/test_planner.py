from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.dataset import open_dataset
from nnunet_kd.recon.networks import DCCNN
from nnunet_kd.recon.planning import planner
from nnunet_kd.recon.planning.fingerprint import read_fingerprint
from nnunet_kd.recon.planning.memory import kept_bytes_per_pixel, planned_batch_size
from nnunet_kd.recon.planning.networks import NETWORKS, SizeRequest, n_parameters, teacher_architecture
from nnunet_kd.recon.planning.overview import check_masks, trainer_name, true_accelerations
from nnunet_kd.recon.planning.planner import PlanRequest, planned_crop
from nnunet_kd.recon.planning.plans import Normalisation, ReconPlans, Training, read_plans
from nnunet_kd.recon.planning.sampling import planned_sampling

Run = Callable[..., None]


@pytest.fixture
def plan(run: Run, folders: Path) -> Callable[..., ReconPlans]:
    """Plan the single-coil data set anew and read what was written."""
    folder = folders / "preprocessed" / "Dataset001_Single"

    def plan_again(*words: str, name: str = "nnUNetReconPlans") -> ReconPlans:
        run("plan", "-d", "1", "--overwrite", *words)
        return read_plans(folder / f"{name}.json")

    return plan_again


def test_default_is_the_corrected_setting(plan: Callable[..., ReconPlans]) -> None:
    plans = plan()
    assert set(plans.configurations) == {"2d", "2d_neighbours"}
    one, several = plans.configuration("2d"), plans.configuration("2d_neighbours")
    assert one.architecture.arch_kwargs == {
        "cascades": 5, "convs": 5, "channels": 32, "complex_data": True, "residual": True, "data_consistency": "hard",
    }  # fmt: skip
    assert (several.n_neighbours, several.architecture.arch_kwargs["n_context"]) == (1, 2)
    assert one.data_identifier == several.data_identifier == "nnUNetReconPlans_2d"
    assert (plans.normalisation, one.crop, one.loss) == (Normalisation(), (20, 20), {"name": "l1"})
    assert plans.sampling["mask"] == "random"
    assert "fixed_seed" not in plans.sampling


@pytest.mark.parametrize(("acceleration", "lines"), [(4, 37), (5, 30), (8, 18)])
def test_published_setting_to_the_letter(planned: Path, acceleration: int, lines: int) -> None:
    dataset = open_dataset("1")
    request = PlanRequest(plans_name="PublishedPlans", published=True, sampling={"acceleration": [acceleration]})
    plans = planner.plan(dataset, read_fingerprint(planned, dataset), request)
    (configuration,) = plans.configurations.values()
    kwargs = configuration.architecture.arch_kwargs
    assert (kwargs["complex_data"], kwargs["residual"], kwargs["data_consistency"]) == (False, False, "real")
    assert n_parameters(configuration.architecture) == 141_765
    assert configuration.training == Training(
        num_epochs=150, optimizer="Adam", initial_lr=1e-3, lr_schedule="step", lr_step=40, lr_gamma=0.1, seed=42
    )
    assert (configuration.batch_size, configuration.metrics[0]) == (4, "mse")
    assert plans.normalisation.scheme == "reference_max"
    sampling = planned_sampling(plans.sampling)
    masks = [sampling.draw((150, 150), name, seed) for name in "ab" for seed in (None, 3)]
    assert all(np.array_equal(masks[0], mask) for mask in masks)
    assert masks[0].shape == (150, 1)
    assert int(masks[0].sum()) == lines
    assert masks[0][70:80].all()


def test_super_resolution_gets_vdsr(run: Run, folders: Path) -> None:
    run("extract_fingerprint", "-d", "3")
    run("plan", "-d", "3")
    plans = read_plans(folders / "preprocessed" / "Dataset003_Super" / "nnUNetReconPlans.json")
    assert (plans.task, plans.sampling, plans.truncation) == ("super_resolution", None, {"factor": [4, 2]})
    assert n_parameters(plans.configuration("2d").architecture) == 333_569
    assert trainer_name(plans, "2d") == "VDSRTrainer"


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_planned(name: str) -> None:
    family = NETWORKS[name]
    sizes = dict.fromkeys(family.sizes, 2)
    architecture = teacher_architecture("reconstruction", SizeRequest(network=name, sizes=sizes), published=False)
    assert n_parameters(architecture) > 0
    shrunk = teacher_architecture("reconstruction", SizeRequest(network=name, shrink=1000), published=False)
    assert shrunk.arch_kwargs["channels"] == 4


def test_options_reach_the_plans(plan: Callable[..., ReconPlans]) -> None:
    plans = plan(
        "--mask", "magic", "--acceleration", "2", "4", "--axis", "rows", "--normalisation", "percentile",
        "--percentile", "99", "--epochs", "7", "--lr", "0.01", "--optimizer", "AdamW", "--seed", "3", "--loss",
        "l1_ssim:share=0.2", "--batch-size", "3", "--cascades", "2", "--channels", "8", name="nnUNetReconS3Plans",
    )  # fmt: skip
    configuration = plans.configuration("2d")
    assert planned_sampling(plans.sampling).settings.acceleration == (2, 4)
    assert (plans.sampling["mask"], plans.sampling["axis"]) == ("magic", "rows")
    assert plans.normalisation == Normalisation(scheme="percentile", percentile=99)
    training = configuration.training
    assert (training.num_epochs, training.initial_lr, training.optimizer, training.seed) == (7, 0.01, "AdamW", 3)
    assert configuration.loss == {"name": "l1_ssim", "share": 0.2}
    assert configuration.batch_size == 3
    assert (configuration.architecture.arch_kwargs["cascades"], configuration.architecture.arch_kwargs["channels"]) == (
        2,
        8,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-p", "my__Plans"], "-p: expected a name"),
        (["--layers", "3"], "--layers: .*DCCNN has no such size; it has: cascades, convs, channels"),
        (["--gpu-memory", "0"], "--gpu-memory: expected GB > 0"),
        (["--gpu-memory", "inf"], "--gpu-memory: expected GB > 0"),
        (["--method", "kd_mri"], "expected --teacher MODEL_FOLDER"),
        (["--published", "--network", "unet"], "--published: KD-MRI has no network 'unet'"),
        (["--loss", "l2"], "loss, name: expected one of l1"),
        (["--epochs", "0"], "num_epochs: expected a whole number >= 1"),
        (["--percentile", "0"], "percentile: expected a number > 0"),
        (["--acceleration", "4", "32"], "0.01 of the centre keep no line for certain on a matrix of 32x24"),
        (["--mask-file", "none.npy", "--mask", "file"], "none.npy"),
    ],
)
def test_what_cannot_be_planned_is_one_line(run: Run, planned: Path, words: list[str], message: str) -> None:
    before = {path: path.read_bytes() for path in planned.iterdir()}
    with pytest.raises(UsageError, match=message) as error:
        run("plan", "-d", "1", "--overwrite", *words)
    assert "\n" not in str(error.value)
    assert {path: path.read_bytes() for path in planned.iterdir()} == before


@pytest.mark.parametrize(("mask", "size"), [("equispaced", 24), ("random", 24), ("poisson_disc", 24)])
@pytest.mark.parametrize("more", [0, 1])
def test_a_centre_beyond_the_matrix_is_refused(planned: Path, mask: str, size: int, more: int) -> None:
    fingerprint = read_fingerprint(planned, open_dataset("1"))
    sampling = {"mask": mask, "acceleration": 4, "n_calibration": size + more}
    plans = replace(read_plans(planned / "nnUNetReconPlans.json"), sampling=sampling)
    refused = pytest.raises(UsageError, match=rf"n_calibration: expected at most {size} on a matrix of 32x24, got 25")
    with refused if more else nullcontext():
        check_masks(plans, fingerprint)


def test_plans_are_not_replaced_unasked(run: Run, folders: Path) -> None:
    with pytest.raises(UsageError, match=r"nnUNetReconPlans\.json exists; type --overwrite"):
        run("plan", "-d", "1")


def test_several_coils_are_not_published(run: Run, folders: Path) -> None:
    with pytest.raises(UsageError, match="--published: KD-MRI takes single-coil data"):
        run("plan", "-d", "2", "--published")


def test_bytes_are_those_that_autograd_keeps() -> None:
    # per pixel and cascade: the input of each convolution, and each ReLU's output once, float32
    network = DCCNN(cascades=1, convs=3, channels=8, complex_data=False, residual=False, data_consistency="real")
    kept = kept_bytes_per_pixel(network, 1)
    assert 4 * (1 + 8 + 8) <= kept <= 4 * (1 + 8 + 8) + 100
    wide = DCCNN(cascades=1, convs=3, channels=32, complex_data=False, residual=False, data_consistency="real")
    assert kept_bytes_per_pixel(wide, 1) - kept == pytest.approx(4 * 2 * 24, rel=0.01)


@pytest.mark.parametrize(
    ("memory", "n_slices", "size"), [(8, 10_000, 4), (80, 10_000, 16), (0.1, 10_000, 1), (80, 100, 5), (80, 8, 4)]
)
def test_batch_fits_memory_and_data(memory: float, n_slices: int, size: int) -> None:
    assert planned_batch_size(4e3, [(640, 368), (320, 320)], n_slices, memory) == size


@pytest.mark.parametrize(
    ("shapes", "matrices", "crop"),
    [
        ([[320, 320]], [[640, 368], [640, 372]], (320, 320)),
        ([[4, 4]], [[4, 4]], None),
        ([[3, 3], [4, 4]], [[8, 8]], None),
    ],
)
def test_crop_is_the_targets_common_size(shapes: Any, matrices: Any, crop: tuple[int, int] | None) -> None:
    assert planned_crop({"target_shapes": shapes, "matrices": matrices}) == crop


def test_true_accelerations_leave_padding_out(plan: Callable[..., ReconPlans]) -> None:
    plans = plan("--mask", "equispaced", "--acceleration", "2", "--center-fraction", "0")
    cases = {"a": {"matrix": [32, 24], "padding": None}, "b": {"matrix": [32, 24], "padding": [0, 12]}}
    assert true_accelerations(plans, {"cases": cases}) == [2.0, 2.0]
    cases = {"a": {"matrix": [8, 8], "padding": None, "mask": {"true_acceleration": 3.5}}}
    assert true_accelerations(plans, {"cases": cases}) == [3.5]

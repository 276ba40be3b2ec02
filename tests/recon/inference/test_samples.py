"""Samples of generative networks as files: their mean, their spread, and the report that reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunet_kd import cli
from nnunet_kd.recon.networks import TextureNet

h5py = pytest.importorskip("h5py")

SIZES = {"blocks": 1, "channels": 4, "scales": 2, "tokens": 2, "token_channels": 4, "texture_channels": 4}


@pytest.fixture
def generative(place: Any) -> Any:
    """A model folder whose one fold adds random detail."""
    place.rewrite(
        configuration={
            "architecture": {"network_class_name": "nnunet_kd.recon.networks.TextureNet", "arch_kwargs": SIZES}
        },
        sampling={"mask": "random", "acceleration": [8, 16]},
    )
    for fold in range(2):
        torch.manual_seed(fold)
        network = TextureNet(**SIZES)
        for weights in network.generator.parameters():
            torch.nn.init.normal_(weights, std=0.2)
        weights = {"network_weights": network.state_dict()}
        torch.save(weights, place.model / f"fold_{fold}" / "checkpoint_final.pth")
    return place


def read(folder: Path, name: str) -> np.ndarray:
    with h5py.File(folder / name) as content:
        return content["reconstruction"][()]


def test_samples_their_mean_and_their_spread(generative: Any) -> None:
    assert generative.predict("-f", 0, "--samples", 3, "--seed", 5, "--acceleration", 8) == 0
    output = generative.output
    folders = [output / f"seed_{seed}" for seed in (5, 6, 7)]
    for case in generative.cases.glob("*.h5"):
        samples = np.stack([read(folder, case.name) for folder in folders])
        assert np.abs(samples[0] - samples[1]).max() > 1e-3 * samples.max()
        np.testing.assert_allclose(read(output, case.name), samples.mean(axis=0), rtol=1e-5, atol=1e-6 * samples.max())
        spread = samples.std(axis=0, ddof=1)
        np.testing.assert_allclose(read(output / "spread", case.name), spread, rtol=1e-3, atol=1e-5 * samples.max())
    record = json.loads((folders[1] / "recon_prediction.json").read_text())
    assert (record["seed"], record["sampling"]) == (6, {"acceleration": 8.0})
    first = read(folders[1], case.name)
    assert generative.predict("-f", 0, "--samples", 1, "--seed", 6, "--acceleration", 8, "--overwrite") == 0
    np.testing.assert_array_equal(read(output, case.name), first)


def test_the_default_is_the_mean_of_four(generative: Any) -> None:
    assert generative.predict("-f", 0) == 0
    (case, _) = sorted(generative.cases.glob("*.h5"))
    mean = read(generative.output, case.name)
    assert not [path for path in generative.output.iterdir() if path.is_dir()]
    assert generative.predict("-f", 0, "--samples", 4, "--overwrite") == 0
    np.testing.assert_allclose(read(generative.output, case.name), mean, rtol=1e-5, atol=1e-6 * mean.max())


def test_the_report_takes_the_folders(generative: Any, tmp_path: Path) -> None:
    assert generative.predict("-f", 0, "--samples", 2, "--acceleration", 8) == 0
    output = generative.output
    arms = ["--arm", f"texture@8={output / 'seed_0'},{output / 'seed_1'}", "--arm", f"mean@8={output}"]
    words = ["-r", generative.cases, *arms, "--baseline", "mean", "-o", tmp_path / "report", "-np", "0"]
    words += ["--metrics", "PSNR", "--patch", "8", "--stride", "4"]
    assert cli.main(["recon", "hallucination_report", *map(str, words)]) == 0
    text = "".join(file.read_text() for file in (tmp_path / "report").glob("*.md"))
    assert "texture" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--samples", 2], "expected one fold, got 2"),
        (["-f", 0, "--samples", 1001], "expected at most 1000, got 1001"),
        (["--zero_filled", "--seed", 1], "this one gives one image"),
    ],
)
def test_what_gives_no_samples(
    generative: Any, words: list[object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generative.predict(*words) == 2
    assert message in capsys.readouterr().err
    assert not generative.output.exists()


def test_a_seed_that_no_generator_takes(generative: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        generative.predict("-f", 0, "--samples", 2, "--seed", 2**64)
    assert "--seed: expected a whole number from 0 to 4294967295" in capsys.readouterr().err


def test_a_network_of_one_image_has_no_samples(place: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert place.predict("-f", 0, "--samples", 2) == 2
    assert "this one gives one image" in capsys.readouterr().err

"""Small segmentations on disk."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

SaveLabels = Callable[..., Path]


@pytest.fixture
def save_labels() -> SaveLabels:
    """Write an array (z first) with a spacing in array order."""

    def save(
        file: Path,
        array: NDArray[Any],
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        direction: Sequence[float] | None = None,
    ) -> Path:
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing([float(size) for size in reversed(spacing or [1.0] * array.ndim)])
        if origin is not None:
            image.SetOrigin(list(origin))
        if direction is not None:
            image.SetDirection(list(direction))
        file.parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(file))
        return file

    return save


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def arms(tmp_path: Path, save_labels: SaveLabels, random: np.random.Generator) -> Path:
    """A reference of 8 cases with two nested structures, and three arms of falling quality."""
    errors = {"teacher": 1, "kd": 2, "student": 3}
    grid = np.indices((12, 14, 16))
    for number in range(8):
        centre = np.array([6, 7, 8]) + random.integers(-1, 2, size=3)

        def ball(shift: int, centre: NDArray[Any] = centre) -> NDArray[np.uint8]:
            distance = np.sqrt(((grid - (centre + np.array([0, 0, shift]))[:, None, None, None]) ** 2).sum(axis=0))
            return np.asarray((distance < 5).astype(np.uint8) + (distance < 3))

        save_labels(tmp_path / "labels" / f"case_{number}.nii.gz", ball(0), (2.0, 1.0, 1.0))
        for arm, shift in errors.items():
            moved = ball(shift if random.random() < 0.8 else shift - 1)
            save_labels(tmp_path / arm / f"case_{number}.nii.gz", moved, (2.0, 1.0, 1.0))
    return tmp_path


@pytest.fixture
def stock_summary() -> Callable[..., Path]:
    """Let nnU-Net itself evaluate a folder and write its summary.json."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
    from nnunetv2.utilities.json_export import recursive_fix_for_json_export

    def write(
        reference: Path, predictions: Path, file: Path, labels: Sequence[Any] = (1, 2), ignore: int | None = None
    ) -> Path:
        cases = [
            compute_metrics(str(reference / p.name), str(p), SimpleITKIO(), list(labels), ignore)
            for p in sorted(predictions.glob("*.nii.gz"))
        ]
        means = {label: {"Dice": float(np.nanmean([c["metrics"][label]["Dice"] for c in cases]))} for label in labels}
        for case in cases:
            recursive_fix_for_json_export(case)
        file.parent.mkdir(parents=True, exist_ok=True)
        save_summary_json({"metric_per_case": cases, "mean": means, "foreground_mean": {}}, str(file))
        return file

    return write


@pytest.fixture
def write_model(tmp_path: Path) -> Callable[..., Path]:
    """Write an nnU-Net model folder whose networks were never trained, and two images beside it."""
    import torch

    from nnunet_kd.networks.build import build_network
    from nnunet_kd.planning.model_folder import open_model_folder

    def write(plans_name: str = "nnUNetPlans", width: int = 4, folds: Sequence[int] = (0,)) -> Path:
        kwargs = {
            "n_stages": 2, "features_per_stage": [width, 2 * width], "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]], "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1], "conv_bias": True, "dropout_op": None, "dropout_op_kwargs": None,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d", "norm_op_kwargs": {"affine": True},
            "nonlin": "torch.nn.LeakyReLU", "nonlin_kwargs": {"inplace": True},
        }  # fmt: skip
        resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
        configuration = {
            "data_identifier": "nnUNetPlans_3d_fullres",
            "batch_size": 2,
            "preprocessor_name": "DefaultPreprocessor",
            "patch_size": [12, 14, 16],
            "spacing": [2.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [False],
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": kwargs,
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }
        for what in ("data", "seg", "probabilities"):
            configuration[f"resampling_fn_{what}"] = "resample_data_or_seg_to_shape"
            configuration[f"resampling_fn_{what}_kwargs"] = resampling
        plans = {
            "dataset_name": "Dataset900_Toy",
            "plans_name": plans_name,
            "image_reader_writer": "SimpleITKIO",
            "label_manager": "LabelManager",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {}},
            "configurations": {"3d_fullres": configuration},
        }
        labels = {"background": 0, "a": 1, "b": 2}
        dataset = {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz"}
        folder = tmp_path / f"nnUNetTrainer__{plans_name}__3d_fullres"
        folder.mkdir()
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(dataset))
        for fold in folds:
            network = build_network(open_model_folder(folder), deep_supervision=False)
            checkpoint = {
                "network_weights": network.state_dict(),
                "trainer_name": "nnUNetTrainer",
                "init_args": {"configuration": "3d_fullres"},
                "inference_allowed_mirroring_axes": (0, 1, 2),
            }
            (folder / f"fold_{fold}").mkdir()
            torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
        return folder

    return write


@pytest.fixture
def images(tmp_path: Path, save_labels: SaveLabels, random: np.random.Generator) -> Path:
    """Two images with one channel, named as nnU-Net wants them."""
    for number in range(2):
        noise = random.normal(size=(12, 14, 16)).astype(np.float32)
        save_labels(tmp_path / "images" / f"case_{number}_0000.nii.gz", noise, (2.0, 1.0, 1.0))
    return tmp_path / "images"

"""A small model folder as nnU-Net leaves it after training, and a bundle, written by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import nibabel as nib
import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_kd.deployment import predictor
from nnunet_kd.deployment.bundle import MODEL_FILES, WINDOW, Bundle, write_record
from nnunet_kd.deployment.inference.plan import InferencePlan, Resampling

DATASET = "Dataset999_Toy"
DATASET_JSON = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "inner": 1, "outer": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
    "dataset": {"case_0": {"images": ["/home/ada/raw/case_0_0000.nii.gz"], "label": "/home/ada/raw/case_0.nii.gz"}},
}
RESAMPLING = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
PLAN = InferencePlan(
    dataset_name="Dataset999_Toy",
    configuration="3d_fullres",
    spacing=(1.0, 1.0, 1.0),
    patch_size=(8, 8, 8),
    transpose_forward=(0, 1, 2),
    transpose_backward=(0, 1, 2),
    normalization_schemes=("NoNormalization", "NoNormalization"),
    use_mask_for_norm=(False, False),
    foreground_intensity_properties=({}, {}),
    resampling_data=Resampling(),
    resampling_seg=Resampling(is_seg=True, order=1),
    resampling_probabilities=Resampling(order=1),
    channel_names=("MRI",),
    labels={"background": 0, "high": 1, "low": 2},
    regions_class_order=None,
    file_ending=".nii.gz",
    image_reader_writer="SimpleITKIO",
    mirror_axes=(0, 1, 2),
    previous_stage=None,
)


def _architecture() -> dict[str, Any]:
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": [4, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [2, 2, 2]],
            "n_conv_per_stage": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def toy_plans(**configuration: Any) -> dict[str, Any]:
    settings = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [16, 16, 16],
        "median_image_size_in_voxels": [20.0, 18.0, 16.0],
        "spacing": [1.0, 1.0, 1.0],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": RESAMPLING,
        "resampling_fn_seg_kwargs": {**RESAMPLING, "is_seg": True},
        "resampling_fn_probabilities_kwargs": RESAMPLING,
        "architecture": _architecture(),
        "batch_dice": False,
        **configuration,
    }
    teacher = {"model_folder": f"/home/ada/results/{DATASET}/nnUNetTrainer__nnUNetPlans__3d_fullres", "folds": "same"}
    block = {"method": "kd", "seed": 3, "teachers": [teacher], "losses": [{"name": "logits_kl", "weight": 1.0}]}
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetKDPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [20, 18, 16],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": settings},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "kd": {"version": 1, "configurations": {"3d_fullres": block}},
    }


def _checkpoint(plans: dict[str, Any], fold: str, trainer: str, builder: type[nnUNetTrainer]) -> dict[str, Any]:
    """Everything nnU-Net saves, its log's numpy scalars and its device object included."""
    manager = PlansManager(json.loads(json.dumps(plans)))
    torch.manual_seed(crc32(fold.encode()))  # Python's own hash differs from process to process
    network = builder.build_network_architecture(manager, manager.get_configuration("3d_fullres"), 1, 3, True)
    optimizer = torch.optim.AdamW(network.parameters())
    sum(parameter.square().sum() for parameter in network.parameters()).backward()
    optimizer.step()
    arguments = {"plans": plans, "configuration": "3d_fullres", "fold": fold, "dataset_json": DATASET_JSON}
    return {
        "network_weights": network.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "grad_scaler_state": None,
        "logging": {"mean_fg_dice": [np.float64(0.5)]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1,
        "init_args": {**arguments, "device": torch.device("cpu")},
        "trainer_name": trainer,
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a trained model folder and returns its path."""

    def make(
        trainer: str = "nnUNetTrainer_1epoch",
        *,
        folds: tuple[str, ...] = ("0",),
        builder: type[nnUNetTrainer] = nnUNetTrainer,
        **configuration: Any,
    ) -> Path:
        plans = toy_plans(**configuration)
        folder = tmp_path / "results" / DATASET / f"{trainer}__nnUNetKDPlans__3d_fullres"
        for fold in folds:
            (folder / f"fold_{fold}").mkdir(parents=True)
            torch.save(_checkpoint(plans, fold, trainer, builder), folder / f"fold_{fold}" / "checkpoint_final.pth")
        (folder / "plans.json").write_text(json.dumps(plans))
        (folder / "dataset.json").write_text(json.dumps(DATASET_JSON))
        (folder / "dataset_fingerprint.json").write_text(json.dumps({"spacings": [[1.0, 1.0, 1.0]]}))
        return folder

    return make


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """One scan of 20 x 18 x 16 voxels to predict."""
    folder = tmp_path / "images"
    folder.mkdir()
    volume = np.random.default_rng(0).normal(size=(20, 18, 16)).astype(np.float32)
    nib.save(nib.Nifti1Image(volume, np.eye(4)), folder / "case_9_0000.nii.gz")
    return folder


def thresholds(patches: np.ndarray) -> np.ndarray:
    """Background within 1 of 0, then label 1 above and 2 below."""
    first = patches[:, :1]
    return np.concatenate([np.ones_like(first), first, -first], axis=1)


@pytest.fixture
def make_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that makes a bundle; its files are empty and its network is the one given."""

    def make(network: Any = thresholds, name: str = "bundle", runtime: str = "openvino", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file in MODEL_FILES[runtime]:
            (folder / file).touch()
        plan = replace(PLAN, **changes)
        facts = {"runtime": runtime, "precision": "f32", "folds": (0,), "window": WINDOW, "versions": {}, "source": {}}
        write_record(Bundle(path=folder, plan=plan, **facts))
        monkeypatch.setattr(predictor, "network_from_file", lambda *_: network)
        return folder

    return make


@pytest.fixture
def write_images(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images into a folder and returns it."""

    def write(*names: str, shape: tuple[int, ...] = (12, 10, 9), seed: int = 0) -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for index, name in enumerate(names):
            # far from the thresholds: in corners, weights in half precision are coarse
            values = 3 * np.random.default_rng(seed + index).integers(-1, 2, size=shape)
            image = nib.Nifti1Image(
                values.astype(np.float32), np.array(nib.affines.from_matvec(np.diag([-1, 1, -1]), [5, -7, 9]))
            )
            nib.save(image, folder / f"{name}.nii.gz")
        return folder

    return write

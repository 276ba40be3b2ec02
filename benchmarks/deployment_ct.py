"""A volume of the size of a CT scan, made here, and networks of nnU-Net's kind that roughly find what is in it.

They are trained for some steps: enough to decide voxels as trained networks do, which random ones do not.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATASET = "Dataset950_SyntheticCT"
CONFIGURATION = "3d_fullres"
CASE = "ct_001"
SPACING = (2.5, 0.75, 0.75)  # mm, slices first
PLAN_SPACING = (3.2, 2.0, 2.0)  # brings 300 x 512 x 512 voxels to 234 x 192 x 192: 4 x 3 x 3 tiles
PATCH = (96, 96, 96)
FEATURES = (32, 64, 128, 256, 320)
GRID = (234, 192, 192)
LABELS = {"background": 0, "organ": 1, "stone": 2}
TEACHER = f"nnUNetTrainer__nnUNetPlans__{CONFIGURATION}"
_TISSUE, _NOISE, _AIR = 40, 15, -1000  # Hounsfield units
_N_BALLS, _RADII = 60, (0.03, 0.06)  # shares of the volume; smaller than a tile, whose mean networks take away
_VALUES = (140, 500)  # of the labels 1 and 2, Hounsfield units
_INTENSITIES = {"mean": 80.0, "std": 120.0, "median": 45.0, "min": -200.0, "max": 600.0}
_CLIP = {"percentile_00_5": -150.0, "percentile_99_5": 520.0}
_TILE, _STEPS = 48, 100
_RATE = 2.5e-3  # of the teacher; a narrower network takes a larger one in proportion


def phantom(shape: Sequence[int]) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Return a body in air with balls of two kinds and noise, and its labels; both slices first.

    Args:
        shape: Slices, rows and columns.
    """
    slices, rows, columns = shape
    rng = np.random.default_rng(0)
    centres = rng.uniform((0.05, 0.3, 0.2), (0.95, 0.7, 0.8), (_N_BALLS, 3))
    balls = list(zip(centres, rng.uniform(*_RADII, _N_BALLS), np.arange(_N_BALLS) % 2 + 1, strict=True))
    volume, labels = np.full(shape, _AIR, dtype=np.int16), np.zeros(shape, dtype=np.uint8)
    y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    body = ((x - 0.5) / 0.42) ** 2 + ((y - 0.5) / 0.3) ** 2 < 1
    values_of = np.array([_TISSUE, *_VALUES])
    for index, z in enumerate(np.linspace(0, 1, slices)):
        for centre, radius, label in balls:
            if abs(z - centre[0]) < radius:
                inside = (z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2 < radius**2
                labels[index][inside & body] = label
        values = values_of[labels[index]] + rng.normal(0, _NOISE, body.shape)
        volume[index][body] = values[body].astype(np.int16)
    return volume, labels


def write_volume(path: Path, shape: Sequence[int]) -> None:
    """Write the phantom's image.

    Args:
        path: File to write.
        shape: Columns, rows and slices.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(phantom(shape[::-1])[0])
    image.SetSpacing(SPACING[::-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    SimpleITK.WriteImage(image, str(path))


def plans(features: Sequence[int]) -> dict[str, Any]:
    """Return nnU-Net's plans for this volume with a plain convolutional network of given widths."""
    n = len(features)
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    name = "resample_data_or_seg_to_shape"
    arguments = {
        "n_stages": n,
        "features_per_stage": list(features),
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[3, 3, 3]] * n,
        "strides": [[1, 1, 1], *[[2, 2, 2]] * (n - 1)],
        "n_conv_per_stage": [2] * n,
        "n_conv_per_stage_decoder": [2] * (n - 1),
        "conv_bias": True,
        "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    configuration = {
        "data_identifier": f"nnUNetPlans_{CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(GRID),
        "spacing": list(PLAN_SPACING),
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": name,
        "resampling_fn_seg": name,
        "resampling_fn_probabilities": name,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": arguments,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
        "batch_dice": False,
    }
    return {
        "dataset_name": DATASET,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": list(SPACING),
        "original_median_shape_after_transp": [300, 512, 512],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {**_INTENSITIES, **_CLIP}},
    }


def dataset_json() -> dict[str, Any]:
    """Return the data set's description."""
    return {"channel_names": {"0": "CT"}, "labels": dict(LABELS), "numTraining": 1, "file_ending": ".nii.gz"}


def write_model(results: Path, shrink: int, n_steps: int = _STEPS) -> Path:
    """Write a model folder of nnU-Net's layout, all widths divided by ``shrink``, unless it is there.

    Args:
        results: nnU-Net's folder of results.
        shrink: 1 for the teacher.
        n_steps: Of training.
    """
    import torch
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    name = "nnUNetPlans" if shrink == 1 else f"nnUNetShrink{shrink}Plans"
    content = {**plans([width // shrink for width in FEATURES]), "plans_name": name}
    folder = results / DATASET / f"nnUNetTrainer__{name}__{CONFIGURATION}"
    checkpoint = folder / "fold_0" / "checkpoint_final.pth"
    if checkpoint.is_file():
        return folder
    architecture = copy.deepcopy(content["configurations"][CONFIGURATION]["architecture"])
    torch.manual_seed(0)
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        len(LABELS),
        deep_supervision=True,
    )
    train(network, _RATE * shrink, n_steps)
    (folder / "fold_0").mkdir(parents=True, exist_ok=True)
    for file, data in (("plans.json", content), ("dataset.json", dataset_json())):
        (folder / file).write_text(json.dumps(data, indent=1))
    torch.save(_checkpoint(content, network.state_dict()), checkpoint)
    return folder


def train(network: Any, rate: float, n_steps: int) -> None:  # noqa: ANN401  # a module
    """Train a network on small tiles of the phantom at the plan's spacing, half of them around a ball."""
    import torch

    from nnunet_kd.hardware import cpu_features

    torch.manual_seed(0)
    volume, labels = phantom(GRID)
    clipped = np.clip(volume.astype(np.float32), *_CLIP.values())
    image = (clipped - _INTENSITIES["mean"]) / _INTENSITIES["std"]
    rng = np.random.default_rng(0)
    foreground = np.argwhere(labels)
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(n_steps):
        centre = rng.choice(foreground) if step % 2 else rng.integers(GRID)
        starts = [int(np.clip(c - _TILE // 2, 0, n - _TILE)) for c, n in zip(centre, GRID, strict=True)]
        tile = tuple(slice(start, start + _TILE) for start in starts)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in cpu_features()):
            logits = network(torch.from_numpy(image[tile])[None, None])[0]  # the first is of full size
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.from_numpy(labels[tile])[None].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _checkpoint(content: Mapping[str, Any], weights: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "network_weights": weights,
        "trainer_name": "nnUNetTrainer",
        "init_args": {"plans": content, "configuration": CONFIGURATION, "fold": 0, "dataset_json": dataset_json()},
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }
